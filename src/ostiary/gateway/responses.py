"""Responses by their id: which provider key knows one, and what may be done with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qsl, urlencode

from ostiary.errors import Refusal
from ostiary.gateway.admit import SCOPE, admit_caller
from ostiary.gateway.caller import Caller, OpenKey
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.gate import Gate
from ostiary.gateway.identify import identify
from ostiary.gateway.known_responses import Bound
from ostiary.gateway.open_calls import OpenAnswer
from ostiary.gateway.pace import pace_lines, refused_lines
from ostiary.gateway.relay import say_stopped
from ostiary.gateway.response_answer import lost, refused, relay_kept
from ostiary.gateway.target import Target
from ostiary.ledger import store
from ostiary.limits.budgets import Bid
from ostiary.providers.address import url_of
from ostiary.providers.transport import Answer, TransportError

_STEM: Final = "/v1/responses/"
_CANCEL: Final = "/cancel"
_LOOK_AGAIN_S: Final = 0.3
"""In which another gateway has written down what it passed on."""
_ASKED: Final = frozenset({"include", "include[]", "stream", "starting_after", "include_obfuscation"})
"""What of a query is passed on."""
_FREE: Final = Bid(0, 0, 0, may_shrink=False, tokens=0)
_OK: Final = 200
Forget = Callable[[str], Awaitable[None]]


async def find(gate: Gate, organization_id: str, response_id: str) -> tuple[str, str] | None:
    """The provider key that gave an organization this response, and the model there; None for what nobody gave it.

    Looks into the ledger only for what this gateway does not remember.
    """
    bound = await _find(gate, organization_id, response_id)
    return None if bound is None else (bound.provider_key_id, bound.model)


async def keep_to(
    gate: Gate, organization_id: str, response_id: str, targets: tuple[Target, ...]
) -> tuple[Target, ...]:
    """Of these targets those of the one provider key that knows the response a call goes on from, or a refusal.

    What another organization was given is not found, as what nobody was.
    """
    bound = await _find(gate, organization_id, response_id)
    if bound is None:
        raise Refusal("not_found", "There is no such response.", param="previous_response_id")
    kept = tuple(target for target in targets if target.key.id == bound.provider_key_id)
    if not kept:
        raise Refusal(
            "no_usable_key",
            "The provider key that gave the response before cannot serve this call now.",
            param="previous_response_id",
        )
    return kept


async def _find(gate: Gate, organization_id: str, response_id: str) -> Bound | None:
    known = gate.responses.find(organization_id, response_id)
    now = gate.clock.monotonic
    if known is not None or not store.RESPONSE_ID.fullmatch(response_id):
        return known
    if gate.responses.is_missed(organization_id, response_id, now()):
        return None
    for is_last in (False, True):
        async with gate.database.read() as tx:
            row = await store.find_response(tx, organization_id, response_id)
        if row is not None:
            bound = Bound(row.provider_key_id, row.provider, row.model)
            gate.responses.note(organization_id, response_id, bound)
            return bound
        if not is_last:
            await gate.clock.sleep(_LOOK_AGAIN_S)
    gate.responses.miss(organization_id, response_id, now())
    return None


async def retrieve(gate: Gate, exchange: Exchange) -> None:
    """`GET /v1/responses/{id}`, whole or streamed."""
    await _pass_on(gate, exchange, "GET", exchange.path.removeprefix(_STEM))


async def delete(gate: Gate, exchange: Exchange) -> None:
    """`DELETE /v1/responses/{id}`: what the provider has deleted is forgotten here too."""
    response_id = exchange.path.removeprefix(_STEM)

    async def remove(organization_id: str) -> None:
        gate.responses.forget(organization_id, response_id)
        await gate.writer.flush()  # its event may be on its way still
        async with gate.database.transaction() as tx:
            await store.remove_response(tx, organization_id, response_id)

    async def forget(organization_id: str) -> None:
        await gate.database.to_the_end(remove(organization_id))

    await _pass_on(gate, exchange, "DELETE", response_id, forget=forget)


async def cancel(gate: Gate, exchange: Exchange) -> None:
    """`POST /v1/responses/{id}/cancel`: ends one that is made in the background."""
    await _pass_on(gate, exchange, "POST", exchange.path.removeprefix(_STEM).removesuffix(_CANCEL), _CANCEL)


async def _pass_on(
    gate: Gate, exchange: Exchange, method: str, response_id: str, tail: str = "", *, forget: Forget | None = None
) -> None:
    """Ask the one provider key that knows it. It costs nothing, but counts as a request, as any call does.

    So does asking for what nobody was given. A key that is stopped ends what it has open here too.
    """
    caller = await identify(exchange, gate.directory)
    admit_caller(caller, gate.clock.now(), SCOPE, exchange.address)
    try:
        hold = await gate.reserve.take(caller.allowance, _FREE)
    except Refusal:
        exchange.told = refused_lines(gate.counters, caller.allowance, gate.clock)
        raise
    exchange.told = pace_lines(hold, gate.clock)
    opened = OpenAnswer(caller, exchange)
    gate.books.add(opened)
    try:
        bound = await _find(gate, caller.organization_id, response_id)
        if bound is None:
            raise Refusal("not_found", "There is no such response.", param="response_id")
        key = _key_of(gate, caller, bound)
        url = _url_of(exchange, key, bound, f"/responses/{response_id}{tail}")
        answer = await _send(gate, key, method, url)
        if answer.status != _OK:
            raise await refused(answer, key)
        try:
            headers = [(b"x-ostiary-provider", key.provider.id.encode())]
            if forget is not None:
                await forget(caller.organization_id)
            exchange.watch()
            await relay_kept(exchange, answer, key, headers)
        except BaseException:
            answer.abort()
            raise
    except asyncio.CancelledError:
        exchange.unwatch()
        if not opened.is_stopped:
            raise
        await _say_stopped(exchange)
    finally:
        gate.books.discard(opened)
        hold.settle(0, 0)


async def _send(gate: Gate, key: OpenKey, method: str, url: str) -> Answer:
    try:
        body = b"" if method == "POST" else None
        return await gate.transport.send(method, url, key.headers, body, gate.patience.provider)
    except TransportError as error:
        raise lost(error, key) from None


async def _say_stopped(exchange: Exchange) -> None:
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
    if not exchange.is_started:
        raise Refusal("invalid_api_key")
    if not exchange.is_ended:
        await say_stopped(exchange)


def _key_of(gate: Gate, caller: Caller, bound: Bound) -> OpenKey:
    for key in gate.directory.keys_for(caller.organization_id, bound.provider):
        if key.id == bound.provider_key_id:
            return key
    raise Refusal("not_found", "The provider key that gave this response is gone.", param="response_id")


def _url_of(exchange: Exchange, key: OpenKey, bound: Bound, path: str) -> str:
    """Where the provider keeps it, with what of the query is passed on."""
    url = url_of(key.provider, key.base_url, key.fields, "responses", path, bound.model)
    pairs = [pair for pair in parse_qsl(exchange.query.decode("latin-1")) if pair[0] in _ASKED]
    return f"{url}{'&' if '?' in url else '?'}{urlencode(pairs)}" if pairs else url
