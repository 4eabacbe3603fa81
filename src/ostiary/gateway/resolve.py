"""What a model name stands for: an endpoint, an alias, a model at a provider, or a model at whoever serves it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ostiary.errors import Refusal
from ostiary.gateway.directory import Directory
from ostiary.vault.endpoint_store import Endpoint

_LONGEST_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Leg:
    """A model at a provider: by that provider key, or by any that may be used."""

    provider_id: str
    model: str
    key_id: str | None = None
    weight: int = 1
    is_fallback: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name stands for: the legs in order, and the endpoint or alias that has it."""

    legs: tuple[Leg, ...]
    endpoint: Endpoint | None = None


def resolve(model: str, organization_id: str, operation: str, directory: Directory) -> Resolved:
    """The legs that serve this operation; Refusal(model_not_found) names near ones where there are none.

    In this order: the organization's own endpoint, the operator's alias, `provider/model`, and else a bare name, which
    goes to every provider whose catalogue has it.
    """
    endpoint = directory.find_endpoint(organization_id, model)
    if endpoint is not None:
        legs = tuple(
            Leg(one.provider, one.model, one.provider_key_id, one.weight, one.is_fallback) for one in endpoint.targets
        )
    else:
        legs = _legs_of_name(model, organization_id, directory)
    catalog = directory.catalog
    rows = {leg.provider_id: catalog.find(leg.provider_id) for leg in legs}
    serving = []
    for leg in legs:
        row = rows[leg.provider_id]
        if row is not None and row.callable and operation in row.operations:
            serving.append(leg)
    if not serving:
        raise Refusal("model_not_found", f"{model[:_LONGEST_SHOWN]!r} does not serve {operation}.", param="model")
    return Resolved(tuple(serving), endpoint)


def _legs_of_name(model: str, organization_id: str, directory: Directory) -> tuple[Leg, ...]:
    catalog = directory.catalog
    provider, slash, bare = model.partition("/")
    if slash and bare and catalog.find(provider) is not None:
        return (Leg(provider, bare),)
    serving = catalog.served_by(model)
    if serving:
        return tuple(Leg(each, model) for each in serving)
    near = (*directory.near_endpoints(organization_id, model), *catalog.near(model))[:3]
    hint = f" Did you mean {' or '.join(near)}?" if near else " GET /v1/models lists what there is."
    shown = model[:_LONGEST_SHOWN]
    raise Refusal("model_not_found", f"There is no model {shown!r}.{hint}", param="model", near=list(near))
