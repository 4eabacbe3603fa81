"""The providers we can speak to and the models they are known to serve, read from `catalog.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from ostiary.errors import Refusal
from ostiary.providers import published
from ostiary.providers.spelling import Speller

CATEGORIES: Final = ("popular", "llm", "enterprise", "media", "local")
_FREE_KINDS: Final = frozenset({"recurring", "local"})


@dataclass(frozen=True, slots=True)
class Field:
    """Something to fill in beside the key; `header` is the request header that carries it."""

    name: str
    label: str
    header: str | None = None
    required: bool = False
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """The cheapest call that tests a key. `path` is appended to the base URL.

    `proves` is false where any key gets a 200, so that only a refusal says something. `bad_key` are the statuses of a
    key that is not valid.
    """

    path: str
    method: str = "GET"
    proves: bool = True
    bad_key: tuple[int, ...] = (401,)


@dataclass(frozen=True, slots=True)
class FreeTier:
    """What a provider gives for nothing; `as_of` because it changes monthly."""

    kind: Literal["recurring", "trial", "trial_credit", "local", "none"]
    limits: str = ""
    as_of: str = "2026-11-20"


@dataclass(frozen=True, slots=True)
class Provider:
    """One row. Facts nobody has looked up are named in `unverified`; `base_url` None must be given with the key.

    `key_shape` hints at a pasted mistake and never refuses. `tokens_per_byte` is the most tokens in 100 bytes of body,
    `message_overhead` the most a provider adds for each message and tool. `free_models` are names, `*`, or `*suffix`.
    """

    id: str
    name: str
    categories: tuple[str, ...]
    base_url: str | None
    test: Probe
    dialect: str = "openai"
    operations: frozenset[str] = frozenset({"chat"})
    auth_header: str = "authorization"
    auth_format: str = "Bearer {key}"
    key_optional: bool = False
    fields: tuple[Field, ...] = ()
    signup_url: str | None = None
    docs_url: str | None = None
    free_tier: FreeTier | None = None
    free_models: tuple[str, ...] = ()
    trains_on_data: bool | None = None
    key_shape: str | None = None
    prices: str | None = None
    stream_usage: Literal["ask", "always", "never"] = "ask"
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
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
        return bool(self.free_models) or (self.free_tier is not None and self.free_tier.kind in _FREE_KINDS)


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a provider. `context` and `max_output` in tokens, None when not published."""

    provider: str
    id: str
    free: bool
    context: int | None = None
    max_output: int | None = None

    @property
    def key(self) -> str:
        """The name that means this model at this provider and nothing else."""
        return f"{self.provider}/{self.id}"


class Catalog:
    """The rows in order, and the models. The models are read at first use, which takes half a second."""

    def __init__(self, providers: Iterable[Provider], own: Iterable[Model] = (), extra: Iterable[Model] = ()) -> None:
        self.providers: Mapping[str, Provider] = MappingProxyType({each.id: each for each in providers})
        self._own = tuple(own)
        self._extra = tuple(extra)
        self._listed: Mapping[str, tuple[published.Listed, ...]] | None = None

    def with_models(self, extra: Iterable[Model]) -> Catalog:
        """The same catalogue knowing more models, or more of a model; what was read is shared."""
        grown = Catalog(self.providers.values(), self._own, (*self._extra, *extra))
        grown._listed = self._listed
        return grown

    def find(self, id: str) -> Provider | None:
        """The row, or None."""
        return self.providers.get(id)

    def get(self, id: str) -> Provider:
        """The row, or a refusal that names near ones."""
        provider = self.providers.get(id)
        if provider is None:
            near = Speller(self.providers).near(id) or tuple(self.providers)
            raise Refusal("invalid_field", f"There is no provider {id!r}. Near: {', '.join(near)}.", param="provider")
        return provider

    def search(self, text: str = "", category: str | None = None, *, free_only: bool = False) -> list[Provider]:
        """Rows for people, in order: those hidden are found only by their id."""
        wanted = text.strip().casefold()
        shelf = category.strip().casefold() if category else None
        return [
            each
            for each in self.providers.values()
            if not each.hidden
            and (not wanted or wanted in each.id.casefold() or wanted in each.name.casefold())
            and (shelf is None or shelf in each.categories)
            and (not free_only or each.has_free)
        ]

    @cached_property
    def models(self) -> Mapping[str, Model]:
        """Every known model by `provider/model`, in the order of the rows."""
        known: dict[str, Model] = {}
        for provider in self.providers.values():
            for listed in self._published.get(provider.id, ()):
                model = Model(provider.id, listed.id, provider.is_free(listed.id), listed.context)
                known[model.key] = model
        for more in (*self._own, *self._extra):
            before = known.get(more.key)
            known[more.key] = _joined(before, more) if before else more
        return MappingProxyType(known)

    def served_by(self, bare: str) -> tuple[str, ...]:
        """The providers known to serve a model under this very name, in the order of the rows."""
        return self._servers.get(bare, ())

    def near(self, name: str, n: int = 3) -> tuple[str, ...]:
        """Names of models like this one: bare names for a bare name, `provider/model` for the like."""
        return self._speller.near(name, n)

    @cached_property
    def _published(self) -> Mapping[str, tuple[published.Listed, ...]]:
        if self._listed is None:
            self._listed = {
                each.id: tuple(published.list_models(each.prices)) for each in self.providers.values() if each.prices
            }
        return self._listed

    @cached_property
    def _servers(self) -> Mapping[str, tuple[str, ...]]:
        servers: dict[str, dict[str, None]] = {}
        for provider in self.providers:
            for listed in self._published.get(provider, ()):
                for name in listed.names:
                    servers.setdefault(name, {})[provider] = None
        for model in self.models.values():
            servers.setdefault(model.id, {})[model.provider] = None
        order = {provider: number for number, provider in enumerate(self.providers)}
        return {name: tuple(sorted(of, key=lambda each: order.get(each, len(order)))) for name, of in servers.items()}

    @cached_property
    def _speller(self) -> Speller:
        return Speller([*(model.id for model in self.models.values()), *self.models])


def _joined(before: Model, more: Model) -> Model:
    return replace(more, context=more.context or before.context, max_output=more.max_output or before.max_output)


def load(path: Path | None = None) -> Catalog:
    """The catalogue of this version. Raises TypeError or ValueError on a row that is not understood."""
    text = (path or Path(__file__).with_name("catalog.toml")).read_text("utf-8")
    rows: list[dict[str, Any]] = tomllib.loads(text)["provider"]
    ids = [row["id"] for row in rows]
    if len(ids) != len(set(ids)):
        raise ValueError("two rows of the catalogue have the same id")
    own = [Model(provider=row["id"], **model) for row in rows for model in row.pop("models", ())]
    return Catalog((_provider(row) for row in rows), own)


def _provider(row: dict[str, Any]) -> Provider:
    """A row of the file as a record; a key that is no field raises TypeError."""
    for name in ("categories", "free_models", "unverified"):
        row[name] = tuple(row.get(name, ()))
    if unknown := set(row["categories"]) - set(CATEGORIES):
        raise ValueError(f"{row['id']}: no such category: {', '.join(sorted(unknown))}")
    row["operations"] = frozenset(row.get("operations", ("chat",)))
    row["fields"] = tuple(Field(**field) for field in row.get("fields", ()))
    test = row.get("test", {})
    row["test"] = Probe(**{"path": "/models", **test, "bad_key": tuple(test.get("bad_key", (401,)))})
    if "free_tier" in row:
        row["free_tier"] = FreeTier(**row["free_tier"])
    row.setdefault("base_url", None)
    return Provider(**row)
