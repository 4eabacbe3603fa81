"""What an agent key may do, in words, and how a program uses it (pure)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from ostiary.agents.policy import Choice
from ostiary.agents.records import AgentKey
from ostiary.dashboard.words import number, usd

_USES: Final = {"gate:chat": "call models", "gate:models": "list models", "gate:usage": "look up its own use"}
_COUNTS: Final = (
    ("rpm", "requests a minute"),
    ("rpd", "requests a day (UTC)"),
    ("tpm", "tokens a minute"),
    ("parallel", "requests at the same time"),
)


@dataclass(frozen=True, slots=True)
class Power:
    """One thing that a key may or may not do: a sentence, and the names it speaks of."""

    icon: str
    words: str
    names: tuple[str, ...] = ()


def powers(key: AgentKey, *, capture_is_forbidden: bool = False) -> list[Power]:
    """Everything, in the order in which a call is asked for it. Its organization may forbid that content is kept."""
    uses = [says for scope, says in _USES.items() if scope in key.scopes]
    admin = tuple(sorted(scope for scope in key.scopes if scope not in _USES))
    found = [Power("badge-check", f"It may {_joined(uses)}." if uses else "It may not call anything.")]
    if admin:
        found.append(Power("shield", "In the admin API, as far as its owner's role goes:", admin))
    found.append(_limited("globe", "address", "addresses", key.addresses, "From any address", "from"))
    found.append(_limited("boxes", "model", "models", key.models, "Any enabled model", "for"))
    if key.free_only:
        found.append(Power("gift", "Only models that cost nothing."))
    found.append(_limited("cloud", "provider", "providers", key.providers, "At any provider", "at"))
    found.append(_rates(key))
    found.append(_money(key))
    if key.parent_id is not None:
        found.append(Power("corner-down-right", "Never more than its parent may at that moment."))
    if key.is_captured:
        said = "Prompts and answers of its calls are kept, redacted."
        forbidden = "It is set to keep prompts and answers, but its organization forbids it: nothing is kept."
        found.append(Power("eye", forbidden if capture_is_forbidden else said))
    return found


def _limited(icon: str, one: str, many: str, choice: Choice, every: str, word: str) -> Power:
    if choice.mode == "all":
        return Power(icon, f"{every}.")
    if choice.mode == "none":
        return Power(icon, f"No {one} at all: every call is refused.")
    names = tuple(sorted(choice.items))
    return Power(icon, f"Only {word} this {one}:" if len(names) == 1 else f"Only {word} these {many}:", names)


def _rates(key: AgentKey) -> Power:
    found = [f"{number(getattr(key, name))} {unit}" for name, unit in _COUNTS if getattr(key, name) is not None]
    said = f"At most {_joined(found)}." if found else "No limit of requests or tokens of its own."
    return Power("gauge", said)


def _money(key: AgentKey) -> Power:
    budget = key.budget
    if budget is None:
        return Power("wallet", "No budget of its own; its organization's counts, if there is one.")
    period = "a calendar month (UTC)" if budget.kind == "month" else "in total"
    said = []
    if budget.cap_nano is not None:
        said.append(f"It may spend {usd(budget.cap_nano)} {period}; then calls that cost are refused.")
    if budget.soft_nano is not None:
        said.append(f"Above {usd(budget.soft_nano)} {period} somebody is warned.")
    if budget.thresholds:
        said.append(f"Alerts at {_joined([f'{one} %' for one in budget.thresholds])}.")
    return Power("wallet", " ".join(said))


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


# ---- Connect an agent -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Snippet:
    """A few lines for somebody's program."""

    id: str
    name: str
    code: str


def snippets(url: str, model: str, secret: str = "<your-key>") -> tuple[Snippet, ...]:  # noqa: S107 - where one goes
    """One call of this gateway, at `url`, in each language; only the shell's has the secret."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}, ensure_ascii=False)
    quoted, name = body.replace("'", "'\\''"), json.dumps(model, ensure_ascii=False)
    curl = f"""\
export OSTIARY_API_KEY='{secret}'
curl {url}/v1/chat/completions \\
  -H "Authorization: Bearer $OSTIARY_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{quoted}'"""
    python = f"""\
import os
from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key=os.environ["OSTIARY_API_KEY"])
answer = client.chat.completions.create(
    model={name},
    messages=[{{"role": "user", "content": "hi"}}],
)
print(answer.choices[0].message.content)"""
    typescript = f"""\
import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{url}/v1", apiKey: process.env.OSTIARY_API_KEY }});
const answer = await client.chat.completions.create({{
  model: {name},
  messages: [{{ role: "user", content: "hi" }}],
}});
console.log(answer.choices[0].message.content);"""
    return (
        Snippet("curl", "curl", curl),
        Snippet("python", "Python", python),
        Snippet("typescript", "TypeScript", typescript),
    )
