"""Every route of /v1 on one page, and the door that serves them."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from ostiary.errors import CannotStart, Refusal
from ostiary.gateway import own, public, responses
from ostiary.gateway.address import address_of
from ostiary.gateway.details import details, require_operator
from ostiary.gateway.exchange import Exchange
from ostiary.gateway.explain import explain
from ostiary.gateway.gate import Gate
from ostiary.gateway.metrics import metrics
from ostiary.gateway.pipeline import answer_call
from ostiary.logs import about, get

Answerer = Callable[[Gate, Exchange], Awaitable[None]]
NEEDS: Final = frozenset({"nothing", "public_catalog", "gate:chat", "gate:usage", "operator"})


@dataclass(frozen=True, slots=True)
class Route:
    """One route. `needs` is what it takes to use it; a route that does not say stops the start."""

    method: str
    path: str
    needs: str
    answer: Answerer


def _call(operation: str) -> Answerer:
    async def answer(gate: Gate, exchange: Exchange) -> None:
        watch = gate.watch
        watch.open_calls += 1
        try:
            await answer_call(gate, exchange, operation)
        except Refusal as refusal:
            watch.answered(operation, refusal)
            raise
        except BaseException:
            watch.left(operation)
            raise
        else:
            watch.answered(operation, None)
        finally:
            watch.open_calls -= 1

    return answer


def _kept(answer_one: Answerer) -> Answerer:
    """What is done with a response that the provider keeps: watched as calls are."""

    async def answer(gate: Gate, exchange: Exchange) -> None:
        gate.watch.open_calls += 1
        try:
            await answer_one(gate, exchange)
        except Refusal as refusal:
            gate.watch.answered("responses", refusal)
            raise
        else:
            gate.watch.answered("responses", None)
        finally:
            gate.watch.open_calls -= 1

    return answer


def _for_operator(look: Answerer) -> Answerer:
    async def answer(gate: Gate, exchange: Exchange) -> None:
        require_operator(gate, exchange)
        await look(gate, exchange)

    return answer


ROUTES: Final = (
    Route("POST", "/v1/chat/completions", "gate:chat", _call("chat")),
    Route("POST", "/v1/completions", "gate:chat", _call("completions")),
    Route("POST", "/v1/responses", "gate:chat", _call("responses")),
    Route("GET", "/v1/responses/{id}", "gate:chat", _kept(responses.retrieve)),
    Route("DELETE", "/v1/responses/{id}", "gate:chat", _kept(responses.delete)),
    Route("POST", "/v1/responses/{id}/cancel", "gate:chat", _kept(responses.cancel)),
    Route("POST", "/v1/embeddings", "gate:chat", _call("embeddings")),
    Route("POST", "/v1/images/generations", "gate:chat", _call("images.generations")),
    Route("POST", "/v1/images/edits", "gate:chat", _call("images.edits")),
    Route("POST", "/v1/audio/speech", "gate:chat", _call("audio.speech")),
    Route("POST", "/v1/audio/transcriptions", "gate:chat", _call("audio.transcriptions")),
    Route("POST", "/v1/audio/translations", "gate:chat", _call("audio.translations")),
    Route("POST", "/v1/moderations", "gate:chat", _call("moderations")),
    Route("POST", "/v1/rerank", "gate:chat", _call("rerank")),
    Route("POST", "/v1/explain", "gate:chat", explain),
    Route("GET", "/health", "nothing", public.health),
    Route("GET", "/v1/health", "nothing", public.health),
    Route("GET", "/health/details", "operator", _for_operator(details)),
    Route("GET", "/metrics", "operator", _for_operator(metrics)),
    Route("GET", "/v1/models", "public_catalog", public.models),
    Route("GET", "/v1/models/{id}", "public_catalog", public.model),
    Route("GET", "/v1/aliases", "public_catalog", public.aliases),
    Route("GET", "/v1/providers", "public_catalog", public.providers),
    Route("GET", "/v1/key", "gate:usage", own.key),
    Route("GET", "/v1/usage", "gate:usage", own.usage),
)
_ID: Final = "{id}"


class Door:
    """Door one, without a framework: that would cost more than the whole way of a call."""

    def __init__(self, gate: Gate, routes: tuple[Route, ...] = ROUTES) -> None:
        for route in routes:
            if route.needs not in NEEDS:
                raise CannotStart(f"The route {route.method} {route.path} does not declare what it needs.")
        self._gate = gate
        self._log = get("gateway")
        self._exact: dict[str, dict[str, Route]] = {}
        self._around: dict[tuple[str, str], dict[str, Route]] = {}
        """By what stands before an id and behind it; the longest ending is looked at first."""
        for route in sorted(routes, key=lambda one: -len(one.path.partition(_ID)[2])):
            before, found, behind = route.path.partition(_ID)
            if found:
                self._around.setdefault((before, behind), {})[route.method] = route
            else:
                self._exact.setdefault(route.path, {})[route.method] = route
        self._stem = "req_" + os.urandom(8).hex()
        self._numbers = itertools.count(1)

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; every refusal is answered in the shape of `errors`, every fault is logged and a 503."""
        exchange.request_id = f"{self._stem}{next(self._numbers):08x}"
        trusted = self._gate.trusted_proxies
        if trusted:
            exchange.address = address_of(exchange.peer, exchange.all_of(b"x-forwarded-for"), trusted)
        try:
            await self._route(exchange).answer(self._gate, exchange)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except asyncio.CancelledError:
            # The caller hung up, or the drain is over. The book is closed; who still listens hears why.
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
            if not exchange.is_gone:
                await exchange.refuse(Refusal("service_unavailable", "The gateway is stopping. Try again."))
        except Exception:  # noqa: BLE001 - the last resort: logged with its trace, answered as a 503
            with about(exchange.request_id):
                self._log.exception("call.failed", path=exchange.path[:200])
            await exchange.refuse(Refusal("service_unavailable", "The gateway failed at this call; it is in the log."))
        finally:
            if exchange.upload is not None:
                exchange.upload.close()

    def _route(self, exchange: Exchange) -> Route:
        path = exchange.path
        by_method = self._exact.get(path)
        if by_method is None:
            by_method = next(
                (
                    table
                    for (before, behind), table in self._around.items()
                    if len(path) > len(before) + len(behind) and path.startswith(before) and path.endswith(behind)
                ),
                None,
            )
        if by_method is None:
            raise Refusal("not_found", f"There is no route {path[:200]}. The API begins at /v1.")
        method = exchange.method
        route = by_method.get("GET" if method == "HEAD" else method)
        if route is None:
            allowed = ", ".join(sorted(by_method.keys() | ({"HEAD"} if "GET" in by_method else set()))).encode()
            raise Refusal("method_not_allowed", headers=((b"allow", allowed),))
        return route
