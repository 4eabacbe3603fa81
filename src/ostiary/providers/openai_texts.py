"""What is asked for in texts, beside chats: completions, responses, embeddings, moderations, rerank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from ostiary.errors import Refusal
from ostiary.providers.dialect import Ask
from ostiary.providers.openai_fields import (
    BYTES_PER_TOKEN,
    MOST_CHOICES,
    MOST_OUTPUT,
    NULL,
    fields_of,
    find_escape,
    outside,
    within,
)
from ostiary.providers.tokens import Tokens

_RUN_BY_THE_CALLER: Final = frozenset(
    {b'"function"', b'"custom"', b'"local_shell"', b'"apply_patch"', b'"computer"', b'"computer_use_preview"'}
)
"""Tools of responses that cost nothing but tokens: the caller runs them. The others are services with a price."""
_USUAL_MODERATION: Final = "omni-moderation-latest"
_DOCUMENTS_PER_SEARCH: Final = 100
_TOKENS_PER_DOCUMENT: Final = 500
"""A search takes a hundred documents of 500 tokens; longer ones are cut up. The query counts in each piece anew."""
_MOST_ITEMS: Final = 10_000
"""Of the input of a response; far more than any conversation has."""
_OWN_CONTENT: Final = ("content", "output", "arguments")
_OWN_CONTENT_OF_TYPES: Final = (*_OWN_CONTENT, "input", "action", "operation", "encrypted_content")
"""What an item has where it is all there; an item with an id and none of it stands for one that the provider keeps."""


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Completion(msgspec.Struct):
    model: str
    prompt: str | list[msgspec.Raw] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    n: int | None = None
    best_of: int | None = None


class _Response(msgspec.Struct):
    model: str
    input: str | list[dict[str, msgspec.Raw]] | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    previous_response_id: str | None = None
    conversation: msgspec.Raw = NULL
    prompt: msgspec.Raw = NULL
    tools: list[dict[str, msgspec.Raw]] | None = None
    store: bool | None = None
    background: bool | None = None


class _Embeddings(msgspec.Struct):
    model: str
    input: str | list[msgspec.Raw]


class _Moderation(msgspec.Struct):
    input: str | list[msgspec.Raw]
    model: str = _USUAL_MODERATION


class _Rerank(msgspec.Struct):
    model: str
    query: str
    documents: list[msgspec.Raw]
    top_n: int | None = None
    max_tokens_per_doc: int | None = None


_completion: Final = msgspec.json.Decoder(_Completion).decode
_response: Final = msgspec.json.Decoder(_Response).decode
_embeddings: Final = msgspec.json.Decoder(_Embeddings).decode
_moderation: Final = msgspec.json.Decoder(_Moderation).decode
_rerank: Final = msgspec.json.Decoder(_Rerank).decode


def ask_completion(body: bytes) -> Ask:
    """`POST /completions`: one answer or more to each prompt; with `best_of` more are made than given."""
    asked = _completion(body)
    fields = fields_of(body)
    prompts = _many(asked.prompt)
    each = max(within(name, value or 1, MOST_CHOICES) for name, value in (("n", asked.n), ("best_of", asked.best_of)))
    choices = each * prompts
    fixed = None if asked.max_tokens is None else within("max_tokens", asked.max_tokens, MOST_OUTPUT)
    return Ask(
        model=asked.model,
        stream=bool(asked.stream),
        wants_usage=bool(asked.stream_options and asked.stream_options.include_usage),
        output_tokens=None if fixed is None else fixed * choices,
        choices=choices,
        messages=prompts,
        media=0,
        reaches_out=False,
        escape=find_escape(fields),
        size=len(body),
        fields=fields,
        operation="completions",
    )


def ask_response(body: bytes) -> Ask:
    """`POST /responses`: what the model reads may be kept by the provider, from a response before or a prompt."""
    asked = _response(body)
    if isinstance(asked.input, list) and len(asked.input) > _MOST_ITEMS:  # each is looked at while nobody is served
        raise Refusal("invalid_request", f"`input` has more than {_MOST_ITEMS} items.", param="input")
    fields = fields_of(body)
    found = outside(body)
    tools = asked.tools or ()
    escape = find_escape(fields, tools, _RUN_BY_THE_CALLER)
    has_prompt, is_going_on = bytes(asked.prompt) != b"null", bytes(asked.conversation) != b"null"
    if has_prompt:  # it may name a model and tools of its own
        escape = escape or "prompt"
    limit = asked.max_output_tokens
    return Ask(
        model=asked.model,
        stream=bool(asked.stream),
        wants_usage=True,
        output_tokens=None if limit is None else within("max_output_tokens", limit, MOST_OUTPUT),
        choices=1,
        messages=(len(asked.input) if isinstance(asked.input, list) else 1) + len(tools),
        media=found.media,
        reaches_out=found.reaches_out
        or has_prompt
        or is_going_on
        or asked.previous_response_id is not None
        or (isinstance(asked.input, list) and any(map(_is_kept_elsewhere, asked.input))),
        escape=escape,
        size=len(body),
        fields=fields,
        operation="responses",
        is_stored=asked.store is not False,
        is_deferred=bool(asked.background),
        audio_rates=found.audio_rates,
        previous_response_id=asked.previous_response_id,
    )


def ask_embeddings(body: bytes) -> Ask:
    """`POST /embeddings`: paid by the input alone."""
    asked = _embeddings(body)
    return _without_output(body, asked.model, "embeddings", len(asked.input) if isinstance(asked.input, list) else 1)


def ask_moderation(body: bytes) -> Ask:
    """`POST /moderations`: a model that is not named is OpenAI's usual one."""
    asked = _moderation(body)
    ask = _without_output(body, asked.model, "moderations", len(asked.input) if isinstance(asked.input, list) else 1)
    ask.media = outside(body).media
    return ask


def ask_rerank(body: bytes) -> Ask:
    """`POST /rerank`: paid by tokens, or by searches of a hundred documents."""
    asked = _rerank(body)
    ask = _without_output(body, asked.model, "rerank", len(asked.documents))
    if asked.top_n is not None:
        within("top_n", asked.top_n, MOST_OUTPUT)
    ask.units = Tokens(searches=-(-_most_pieces(asked, len(body)) // _DOCUMENTS_PER_SEARCH))
    likely = max(-(-len(asked.documents) // _DOCUMENTS_PER_SEARCH), 1)
    ask.guess = Tokens(input=len(body) // BYTES_PER_TOKEN, searches=likely)
    ask.is_guess_exact = ask.units.searches == likely
    return ask


def _most_pieces(asked: _Rerank, size: int) -> int:
    """The most pieces that the documents can be cut into: no token is less than a byte, of the query and of them."""
    room = max(_TOKENS_PER_DOCUMENT - len(asked.query.encode()), 1)
    documents, longest = len(asked.documents), asked.max_tokens_per_doc
    by_size = documents + size // room
    if longest is None:
        return by_size
    return min(by_size, documents * -(-within("max_tokens_per_doc", longest, MOST_OUTPUT) // room))


def _is_kept_elsewhere(fields: Mapping[str, msgspec.Raw]) -> bool:
    """Whether an item of the input only names what the provider keeps."""
    kind = bytes(fields.get("type", NULL))
    content = _OWN_CONTENT if kind == b"null" else _OWN_CONTENT_OF_TYPES
    if kind != b"null" and msgspec.json.decode(kind) == "item_reference":
        return True
    has_content = any(bytes(fields.get(name, NULL)) != b"null" for name in content)
    return bytes(fields.get("id", NULL)) != b"null" and not has_content


def _without_output(body: bytes, model: str, operation: str, messages: int) -> Ask:
    return Ask(
        model=model,
        stream=False,
        wants_usage=True,
        output_tokens=0,
        choices=1,
        messages=messages,
        media=0,
        reaches_out=False,
        escape=None,
        size=len(body),
        fields=fields_of(body),
        operation=operation,
    )


def _many(prompt: str | list[msgspec.Raw] | None) -> int:
    """How many prompts there are: a list of numbers is one, as tokens."""
    if not isinstance(prompt, list) or not prompt or bytes(prompt[0])[:1] not in b'"[':
        return 1
    return len(prompt)
