"""What each provider of the catalogue demands, written down a second time: from documentation, not from the catalogue.

A server in `test_catalog_rows.py` behaves like this, and so finds a row that says something else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Test = tuple[str, str]
"""The method and the whole URL of the call that tests a key."""

_TINY: Final = {"max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}


@dataclass(frozen=True)
class Demand:
    """What a provider expects: `call` is the whole URL of its first operation, `sign` the header of a credential.

    `bad` are the statuses it answers a bad key with. `is_open`: the test answers 200 to anyone. `tells` is what it
    makes of `stream_options`: `ask` needs them to count, `always` refuses them.
    """

    call: str
    test: str
    operation: str = "chat"
    sign: tuple[str, str] = ("authorization", "Bearer {}")
    test_sign: tuple[str, str] | None = None
    test_method: str = "GET"
    test_body: Any = None
    bad: tuple[int, ...] = (401,)
    is_open: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    region: str | None = None
    auth: str | None = None
    limit: str = "max_tokens"
    tells: str = "ask"
    model: str = "some-model"


def _usual(base: str, **more: Any) -> Demand:
    return Demand(**{"call": f"{base}/chat/completions", "test": f"{base}/models", **more})


def _chatting(base: str, model: str, **more: Any) -> Demand:
    """Tested by a chat of one token, because its list is open to anyone, or there is none."""
    url = f"{base}/chat/completions"
    return Demand(url, url, test_method="POST", test_body={"model": model, **_TINY}, **more)


def _embedding(base: str, model: str, given: Any) -> Demand:
    url = f"{base}/embeddings"
    body = {"model": model, "input": given}
    return Demand(url, url, "embeddings", test_method="POST", test_body=body)


_AZURE: Final = "https://my-resource.openai.azure.com/openai"
_KEY_ALONE: Final = ("api-key", "{}")
_VERTEX: Final = "-aiplatform.googleapis.com/v1/projects/my-project/locations"

DEMANDS: Final[dict[str, Demand]] = {
    "openai": _usual("https://api.openai.com/v1", limit="max_completion_tokens"),
    "openai, for an organization": _usual(
        "https://api.openai.com/v1",
        limit="max_completion_tokens",
        fields={"organization": "org-1", "project": "proj_2"},
        headers={"OpenAI-Organization": "org-1", "OpenAI-Project": "proj_2"},
    ),
    "anthropic": _usual(
        "https://api.anthropic.com/v1", test_sign=("x-api-key", "{}"), headers={"anthropic-version": "2023-06-01"}
    ),
    "gemini": _usual(
        "https://generativelanguage.googleapis.com/v1beta/openai",
        test="https://generativelanguage.googleapis.com/v1beta/models?pageSize=1",
        test_sign=("x-goog-api-key", "{}"),
        bad=(400, 401, 403),
    ),
    "mistral": _usual("https://api.mistral.ai/v1", tells="always"),
    "deepseek": _usual("https://api.deepseek.com", test="https://api.deepseek.com/user/balance"),
    "xai": _usual("https://api.x.ai/v1", test="https://api.x.ai/v1/api-key", bad=(400, 401)),
    "moonshot": _usual("https://api.moonshot.ai/v1"),
    "moonshot, in China": _usual("https://api.moonshot.cn/v1", region="cn"),
    "zai": _usual("https://api.z.ai/api/paas/v4"),
    "zai, for coding": _usual("https://api.z.ai/api/coding/paas/v4", region="coding"),
    "cohere": _usual("https://api.cohere.ai/compatibility/v1", test="https://api.cohere.ai/v1/models", tells="always"),
    "cohere, reranking": Demand("https://api.cohere.ai/v2/rerank", "https://api.cohere.ai/v1/models", "rerank"),
    "perplexity": _chatting("https://api.perplexity.ai", "sonar"),
    "minimax": _usual("https://api.minimax.io/v1"),
    "dashscope": _usual("https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
    "stepfun": _usual("https://api.stepfun.com/v1"),
    "volcengine": _usual(
        "https://ark.cn-beijing.volces.com/api/v3",
        test="https://ark.cn-beijing.volces.com/api/v3/contents/generations/tasks?page_num=1&page_size=1",
    ),
    "ai21": _chatting("https://api.ai21.com/studio/v1", "jamba-mini", bad=(400, 401)),
    "upstage": _chatting("https://api.upstage.ai/v1/solar", "solar-mini"),
    "meta": _usual("https://api.meta.ai/v1"),
    "voyage": _embedding("https://api.voyageai.com/v1", "voyage-3.5-lite", "Hi"),
    "jina": _embedding("https://api.jina.ai/v1", "jina-embeddings-v3", ["Hi"]),
    "recraft": Demand(
        "https://external.api.recraft.ai/v1/images/generations",
        "https://external.api.recraft.ai/v1/users/me",
        "images.generations",
    ),
    "assemblyai": _chatting(
        "https://llm-gateway.assemblyai.com/v1", "claude-sonnet-4-6", sign=("authorization", "{}"), bad=(401, 403)
    ),
    "groq": _usual("https://api.groq.com/openai/v1"),
    "cerebras": _usual("https://api.cerebras.ai/v1", limit="max_completion_tokens"),
    "fireworks": _usual("https://api.fireworks.ai/inference/v1"),
    "together": _usual("https://api.together.ai/v1"),
    "nvidia": _chatting("https://integrate.api.nvidia.com/v1", "meta/llama-3.1-8b-instruct"),
    "deepinfra": _usual("https://api.deepinfra.com/v1/openai", test="https://api.deepinfra.com/v1/me"),
    "sambanova": _chatting("https://api.sambanova.ai/v1", "Meta-Llama-3.1-8B-Instruct"),
    "novita": _usual("https://api.novita.ai/openai"),
    "siliconflow": _usual("https://api.siliconflow.com/v1"),
    "nebius": _usual("https://api.tokenfactory.nebius.com/v1"),
    "baseten": _usual("https://inference.baseten.co/v1"),
    "hyperbolic": _usual("https://api.hyperbolic.xyz/v1"),
    "scaleway": _usual("https://api.scaleway.ai/v1"),
    "ovhcloud": _chatting("https://oai.endpoints.kepler.ai.cloud.ovh.net/v1", "gpt-oss-20b", bad=(401, 403)),
    "ollama-cloud": _chatting("https://ollama.com/v1", "gpt-oss:20b"),
    "venice": _usual("https://api.venice.ai/api/v1", test="https://api.venice.ai/api/v1/api_keys/rate_limits"),
    "azure-openai": _usual(
        f"{_AZURE}/v1", sign=_KEY_ALONE, fields={"resource": "my-resource"}, limit="max_completion_tokens"
    ),
    "azure-openai, classic": Demand(
        f"{_AZURE}/deployments/gpt%20four/chat/completions?api-version=2024-10-21",
        f"{_AZURE}/models?api-version=2024-10-21",
        sign=_KEY_ALONE,
        fields={"resource": "my-resource", "api_version": "2024-10-21"},
        limit="max_completion_tokens",
        model="gpt four",
    ),
    "azure-openai, classic responses": Demand(
        f"{_AZURE}/responses?api-version=2025-04-01-preview",
        f"{_AZURE}/models?api-version=2025-04-01-preview",
        "responses",
        sign=_KEY_ALONE,
        fields={"resource": "my-resource", "api_version": "2025-04-01-preview"},
    ),
    "azure-ai-foundry": _usual(
        "https://hub-1.services.ai.azure.com/openai/v1", sign=_KEY_ALONE, fields={"resource": "hub-1"}
    ),
    "bedrock": _usual(
        "https://bedrock-runtime.eu-central-1.amazonaws.com/openai/v1",
        fields={"region": "eu-central-1"},
        bad=(401, 403),
        model="openai.gpt-oss-120b-1:0",
    ),
    "bedrock, by mantle": _usual(
        "https://bedrock-mantle.us-east-1.api.aws/openai/v1",
        fields={"region": "us-east-1"},
        region="mantle",
        bad=(401, 403),
    ),
    "vertex-ai": Demand(
        f"https://europe-west4{_VERTEX}/europe-west4/endpoints/openapi/chat/completions",
        f"https://europe-west4{_VERTEX}/europe-west4/publishers/google/models/gemini-2.5-flash:countTokens",
        test_method="POST",
        test_body={"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
        fields={"project": "my-project", "location": "europe-west4"},
        bad=(401, 403),
        model="google/gemini-2.5-flash",
    ),
    "databricks": Demand(
        "https://adb-123.4.azuredatabricks.net/ai-gateway/mlflow/v1/chat/completions",
        "https://adb-123.4.azuredatabricks.net/api/2.0/preview/scim/v2/Me",
        fields={"host": "adb-123.4.azuredatabricks.net"},
        bad=(401, 403),
    ),
    "snowflake-cortex": _usual(
        "https://acme-prod.snowflakecomputing.com/api/v2/cortex/v1",
        fields={"account": "acme-prod"},
        headers={"X-Snowflake-Authorization-Token-Type": "PROGRAMMATIC_ACCESS_TOKEN"},
        test="https://acme-prod.snowflakecomputing.com/api/v2/databases?showLimit=1",
    ),
    "cloudflare-workers-ai": Demand(
        "https://api.cloudflare.com/client/v4/accounts/0a1b2c/ai/v1/chat/completions",
        "https://api.cloudflare.com/client/v4/user/tokens/verify",
        fields={"account_id": "0a1b2c"},
        bad=(401, 403),
        model="@cf/meta/llama-3.1-8b-instruct",
    ),
    "openrouter": _usual("https://openrouter.ai/api/v1", test="https://openrouter.ai/api/v1/key"),
    "openrouter, with a title": _usual(
        "https://openrouter.ai/api/v1",
        test="https://openrouter.ai/api/v1/key",
        fields={"referer": "https://gate.example", "title": "Gate"},
        headers={"HTTP-Referer": "https://gate.example", "X-Title": "Gate"},
    ),
    "huggingface": _chatting(
        "https://router.huggingface.co/v1",
        "openai/gpt-oss-120b",
        fields={"bill_to": "us"},
        headers={"X-HF-Bill-To": "us"},
    ),
    "vercel-ai-gateway": _chatting("https://ai-gateway.vercel.sh/v1", "openai/gpt-4o-mini"),
    "requesty": _usual("https://router.requesty.ai/v1"),
    "poe": _usual("https://api.poe.com/v1"),
    "ollama": _usual("http://localhost:11434/v1", is_open=True),
    "vllm": _usual("http://localhost:8000/v1"),
    "lmstudio": _usual("http://localhost:1234/v1"),
    "llamacpp": _usual("http://localhost:8080/v1", test="http://localhost:8080/props"),
    "openai-compatible": _usual(
        "https://llm.example.org/any/v1", region="https://llm.example.org/any/v1", is_open=True
    ),
    "openai-compatible, by x-api-key": _usual(
        "https://llm.example.org/v1",
        region="https://llm.example.org/v1",
        auth="x-api-key",
        sign=("x-api-key", "{}"),
        is_open=True,
    ),
    "openai-compatible, by api-key": _usual(
        "https://llm.example.org/v1",
        region="https://llm.example.org/v1",
        auth="api-key-header",
        sign=_KEY_ALONE,
        is_open=True,
    ),
}
"""By the id of the row, behind a comma what is special in it."""

REFUSALS: Final[dict[str, dict[int, Any]]] = {
    "ai21": {400: {"detail": "Bad request: bad or missing authentication."}},
    "gemini": {
        400: {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "API_KEY_INVALID",
                        "domain": "googleapis.com",
                    }
                ],
            }
        },
        401: {
            "error": {
                "code": 401,
                "message": "Request had invalid authentication credentials.",
                "status": "UNAUTHENTICATED",
                "details": [{"reason": "ACCESS_TOKEN_TYPE_UNSUPPORTED"}],
            }
        },
    },
    "xai": {
        400: {
            "code": "Client specified an invalid argument",
            "error": "Incorrect API key provided: xa***99. You can obtain an API key from https://console.x.ai.",
        }
    },
}
"""How some word a bad key; the others say it in ways of their own, that only their status tells of."""


def refusal_of(provider: str, status: int) -> bytes:
    """The body of the answer to a bad key."""
    usual = {"message": "This credential does not open anything here."}
    return json.dumps(REFUSALS.get(provider, {}).get(status, usual)).encode()
