"""What one row of the catalogue says of a provider: addresses, sign-in, fields, the call that tests a key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

_FREE_KINDS: Final = frozenset({"recurring", "local"})

Operation = Literal[
    "chat",
    "completions",
    "responses",
    "embeddings",
    "images.generations",
    "images.edits",
    "audio.speech",
    "audio.transcriptions",
    "audio.translations",
    "moderations",
    "rerank",
]
FreeKind = Literal["recurring", "trial", "trial_credit", "local", "none"]
StreamUsage = Literal["ask", "always", "never"]
MaxTokensField = Literal["max_tokens", "max_completion_tokens"]


@dataclass(frozen=True, slots=True)
class Field:
    """Something to fill in beside the key; `header` is the request header that carries it.

    `pattern` is what it must look like where it becomes a part of an address. `env` are the variables it is known by.
    """

    name: str
    label: str
    header: str | None = None
    required: bool = False
    default: str | None = None
    pattern: str | None = None
    env: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuthMethod:
    """One way to sign in: `format` is what `header` says, `{key}` in it is the secret.

    `headers` are sent beside it, `fields` are asked for beside the row's own. A method that is not `callable` is only
    shown, with the `reason`.
    """

    id: str = "api-key"
    label: str = "API key"
    header: str = "authorization"
    format: str = "Bearer {key}"
    headers: tuple[tuple[str, str], ...] = ()
    fields: tuple[Field, ...] = ()
    callable: bool = True
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """The cheapest call that tests a key. `path` is an address template as in `Provider.paths`, `body` its JSON.

    `proves` is false where any key gets a 200, so that only a refusal says something. `bad_key` are the statuses of a
    key that is not valid; a 400 counts only when its words say so. `auth` is how the test signs in where that is not as
    calls do.
    """

    path: str
    method: str = "GET"
    proves: bool = True
    bad_key: tuple[int, ...] = (401,)
    body: bytes | None = None
    auth: AuthMethod | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """Another spelling of the provider's addresses, for keys whose field `when` is filled in."""

    when: str
    test: str
    paths: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True)
class FreeTier:
    """What a provider gives for nothing; `as_of` is the day somebody last looked, because it changes monthly."""

    kind: FreeKind
    limits: str = ""
    as_of: str | None = None


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Provider:
    """One row. Facts nobody has looked up are named in `unverified`; `base_url` None must be given with the key.

    `base_url` may hold fields in braces, which are filled in when a key is added; `regions` are other addresses of the
    provider's own, by name. `paths` are the addresses of operations that are not where the dialect has them (see
    `address.py`), `*` is any other operation. `headers` go with every call.
    `key_shape` hints at a pasted mistake and never refuses. `tokens_per_byte` is the most tokens in 100 bytes of body,
    `message_overhead` the most a provider adds for each message and tool. `free_models` are names, `*`, or `*suffix`.
    `env` are the variables a key is known by, `env_url` those of its base URL.
    """

    id: str
    name: str
    categories: tuple[str, ...]
    base_url: str | None
    test: Probe
    dialect: str = "openai"
    operations: frozenset[str] = frozenset({"chat"})
    auth: tuple[AuthMethod, ...] = (AuthMethod(),)
    key_optional: bool = False
    fields: tuple[Field, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    paths: Mapping[str, str] = field(default_factory=_nothing, hash=False)
    styles: tuple[Style, ...] = ()
    regions: Mapping[str, str] = field(default_factory=_nothing, hash=False)
    signup_url: str | None = None
    docs_url: str | None = None
    free_tier: FreeTier | None = None
    free_models: tuple[str, ...] = ()
    trains_on_data: bool | None = None
    key_shape: str | None = None
    env: tuple[str, ...] = ()
    env_url: tuple[str, ...] = ()
    prices: str | None = None
    stream_usage: StreamUsage = "ask"
    max_tokens_field: MaxTokensField = "max_tokens"
    tokens_per_byte: int = 100
    message_overhead: int = 64
    callable: bool = True
    reason: str = ""
    hidden: bool = False
    unverified: tuple[str, ...] = ()

    def is_free(self, model: str) -> bool:
        """Whether the provider serves this model for nothing, to everyone."""
        return any(
            model.endswith(pattern[1:]) if pattern.startswith("*") else model == pattern for pattern in self.free_models
        )

    @property
    def has_free(self) -> bool:
        """Whether something can be used for nothing: free models, or a free tier that renews itself."""
        if self.free_tier is None:
            return bool(self.free_models)
        return self.free_tier.kind in _FREE_KINDS or (bool(self.free_models) and self.free_tier.kind != "none")

    def find_auth(self, id: str | None) -> AuthMethod | None:
        """A method by its id; the first one for None."""
        return self.auth[0] if id is None else next((one for one in self.auth if one.id == id), None)

    def fields_of(self, auth: str | None = None) -> tuple[Field, ...]:
        """What is asked for beside the key by whoever signs in so."""
        method = self.find_auth(auth)
        return self.fields + (method.fields if method else ())

    def templates(self) -> Iterator[str]:
        """Every address of the row, in which fields may stand in braces."""
        yield from filter(None, (self.base_url, self.test.path))
        yield from self.regions.values()
        yield from self.paths.values()
        for style in self.styles:
            yield style.test
            yield from style.paths.values()
