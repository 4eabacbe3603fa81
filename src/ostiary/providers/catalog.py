"""The providers we can speak to and the models they are known to serve, read from `catalog.toml`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final

from ostiary.errors import CannotStart, Refusal
from ostiary.providers import published, rows
from ostiary.providers.provider import AuthMethod, Field, FreeTier, Operation, Probe, Provider
from ostiary.providers.rows import CATEGORIES
from ostiary.providers.spelling import Speller

__all__ = [
    "CATEGORIES",
    "AuthMethod",
    "Catalog",
    "Field",
    "FreeTier",
    "Model",
    "Operation",
    "Probe",
    "Provider",
    "load",
]

OURS: Final = Path(__file__).with_name("catalog.toml")


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

    def get(self, id: str, param: str = "provider") -> Provider:
        """The row, or a refusal that names near ones."""
        provider = self.providers.get(id)
        if provider is None:
            near = Speller(self.providers).near(id)
            hint = f"Near: {', '.join(near)}." if near else "'ostiary vault providers' lists what there is."
            raise Refusal("invalid_field", f"There is no provider {id!r}. {hint}", param=param)
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


def load(path: Path | None = None, more: Path | None = None) -> Catalog:
    """The catalogue of this version (or of `path`), and behind it the rows of the operator's own file, if there is one.

    Raises TypeError or ValueError on a row there that is not understood, CannotStart on one of the operator's.
    """
    found = [*(_ours() if path is None else rows.read(path))]
    if more is not None:
        found += _operators(more, {provider.id for provider, _ in found})
    own = [Model(provider=provider.id, **model) for provider, models in found for model in models]
    return Catalog((provider for provider, _ in found), own)


@cache
def _ours() -> tuple[rows.Row, ...]:
    return tuple(rows.read(OURS, is_ours=True))


def _operators(file: Path, ours: set[str]) -> list[rows.Row]:
    try:
        found = rows.read(file)
        for provider, models in found:
            for model in models:
                Model(provider=provider.id, **model)
    except OSError as error:
        raise CannotStart(f"The catalogue {file} cannot be read: {error.strerror}.") from error
    except (TypeError, ValueError) as error:
        raise CannotStart(f"The catalogue {file} is not understood. {error}.") from error
    for provider, _ in found:
        if provider.id in ours:
            raise CannotStart(
                f"The catalogue {file} has a row {provider.id!r}, which is a provider of Ostiary's own. "
                "Give yours another id."
            )
    return found
