"""The options that say where an endpoint or alias leads, and how both are printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from ostiary.cli import show, targets, words
from ostiary.cli.options import reader
from ostiary.vault.endpoint_fields import MOST_RETRIES, USUAL_RETRIES
from ostiary.vault.endpoints import Endpoint, EndpointTarget, View

Noun = Literal["endpoint", "alias"]
Strategy = Literal["first", "split"]

_SPELLING: Final = "PROVIDER[@KEY]/MODEL[:weight=N]"

Targets = Annotated[
    list[EndpointTarget] | None,
    typer.Option(
        "--target",
        parser=reader(targets.target),
        metavar=_SPELLING,
        help="A model to lead to, by any key or by the one named; given again for more, in order.",
    ),
]
Fallbacks = Annotated[
    list[EndpointTarget] | None,
    typer.Option(
        "--fallback",
        parser=reader(targets.target),
        metavar=_SPELLING,
        help="Tried only after all targets; given again for more, in order.",
    ),
]
NoFallback = Annotated[bool, typer.Option("--no-fallback", help="Take all fallbacks away.")]
HowTo = Annotated[
    Strategy | None,
    typer.Option("--strategy", help="The first healthy target in order (usual), or a split by weight."),
]
Retries = Annotated[
    int | None,
    typer.Option("--retries", min=0, max=MOST_RETRIES, help=f"Further attempts; usual: {USUAL_RETRIES}."),
]
Timeout = Annotated[
    words.Given[int] | None,
    typer.Option(
        "--timeout",
        parser=reader(targets.timeout),
        metavar="30s",
        help="For each attempt: 100ms to 10m; 'none' for the gateway's own.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Also while agent keys name it in their allowed models.")]


@dataclass(frozen=True, slots=True)
class Wish:
    """What was given on the command line; None is what was not."""

    targets: Sequence[EndpointTarget] | None
    fallbacks: Sequence[EndpointTarget] | None
    strategy: Strategy | None
    retries: int | None
    timeout: words.Given[int] | None
    name: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was."""
        return all(getattr(self, name) is None for name in Wish.__slots__)

    def edit(self, before: Sequence[EndpointTarget] = ()) -> dict[str, Any]:
        """The fields to write. Targets and fallbacks that were not given stay as they were."""
        values: dict[str, Any] = {name: getattr(self, name) for name in ("name", "strategy", "retries")}
        found = {name: value for name, value in values.items() if value is not None}
        if self.timeout is not None:
            found["timeout_ms"] = self.timeout.value
        if self.targets is not None or self.fallbacks is not None:
            plain = [one for one in before if not one.is_fallback] if self.targets is None else self.targets
            others = [one for one in before if one.is_fallback] if self.fallbacks is None else self.fallbacks
            found["targets"] = [*plain, *(replace(one, is_fallback=True) for one in others)]
        return found


def described(one: Endpoint) -> dict[str, Any]:
    """One as JSON, and as a table has it."""
    return {
        "id": one.id,
        "name": one.name,
        "strategy": one.strategy,
        "retries": one.retries,
        "timeout_ms": one.timeout_ms,
        "targets": msgspec.to_builtins(one.targets),
        "created_at": show.when(one.created_at),
        "updated_at": show.when(one.updated_at),
    }


def described_view(view: View) -> dict[str, Any]:
    """One with what is around it."""
    users = [
        {
            "id": user.agent_key_id,
            "name": user.name,
            "organization_id": user.organization_id,
            "last_used_at": show.when(user.last_used_at),
            "is_named": user.is_named,
        }
        for user in view.users or ()
    ]
    keys = [msgspec.to_builtins(key) for key in view.keys]
    return {**described(view.endpoint), "provider_keys": keys, "used_by": {"agent_keys": users}}


def print_list(found: Iterable[Endpoint], empty: str, *, json: bool) -> None:
    """All of them."""
    if json:
        show.print_json([described(one) for one in found])
        return
    show.print_table(
        ["name", "strategy", "targets", "fallbacks", "retries", "timeout", "id"],
        [
            [
                one.name,
                one.strategy,
                [targets.written(target) for target in one.targets if not target.is_fallback],
                [targets.written(target) for target in one.targets if target.is_fallback],
                one.retries,
                targets.shown_timeout(one.timeout_ms),
                one.id,
            ]
            for one in found
        ],
        empty,
    )


def print_view(view: View, *, json: bool) -> None:
    """One with its targets and users."""
    if json:
        show.print_json(described_view(view))
        return
    one, keys = view.endpoint, {key.id: key for key in view.keys}
    show.print_fields(
        {
            "name": one.name,
            "id": one.id,
            "strategy": "split by weight" if one.strategy == "split" else "the first healthy target, in order",
            "retries": one.retries,
            "timeout": targets.shown_timeout(one.timeout_ms) or "the gateway's own",
            "created_at": show.when(one.created_at),
            "updated_at": show.when(one.updated_at),
        }
    )
    show.say()
    rows = [
        [number, target.provider, target.model, _key(target, keys), target.weight, target.is_fallback]
        for number, target in enumerate(one.targets, 1)
    ]
    show.print_table(["#", "provider", "model", "key", "weight", "fallback"], rows, "It leads nowhere.")
    show.say()
    show.print_table(
        ["agent key", "last used", "named in its allowed models"],
        [[user.name, show.when(user.last_used_at), user.is_named] for user in view.users or ()],
        "No agent key has used it in the last 30 days, and none names it.",
    )


def print_changed(one: Endpoint, hints: Iterable[str], noun: Noun, done: str, *, json: bool) -> None:
    """What was made or edited, and what its maker should know."""
    told = list(hints)
    if json:
        show.print_json({**described(one), "hints": told})
        return
    ways = f"{len(one.targets)} target{'' if len(one.targets) == 1 else 's'}"
    show.say(
        f"The {noun} {one.name!r} {done}: {ways}, {one.retries} retries. Callers ask for it as model {one.name!r}."
    )
    for hint in told:
        show.say(f"Note: {hint}")


def print_deleted(one: Endpoint, noun: Noun, *, json: bool) -> None:
    """What is no more."""
    if json:
        show.print_json({"id": one.id, "name": one.name, "deleted": True})
    else:
        show.say(f"The {noun} {one.name!r} is deleted.")


def _key(target: EndpointTarget, keys: Mapping[str, Any]) -> str:
    if target.provider_key_id is None:
        return "any"
    key = keys[target.provider_key_id]
    return (key.name or key.id) if key.is_usable else f"{key.id} (gone)"
