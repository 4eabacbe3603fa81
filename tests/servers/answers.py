"""A provider that is right, in all the ways there are."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from tests.servers import operations
from tests.servers.upstream import Behaviour, Exchange
from tests.servers.wire import (
    DONE,
    LAST,
    chunk,
    compact,
    completion,
    embeddings,
    event,
    events,
    framed,
    head,
    stream_head,
    streams,
    usage,
    whole,
)

_SLOW_S: Final = 0.05


def answer(figures: Any = None) -> Behaviour:
    """A right answer, streamed when asked, with these usage figures."""
    figures = figures or usage()

    async def speak(exchange: Exchange) -> None:
        request = exchange.request
        if await operations.served(exchange):
            return
        if "/embeddings" in request.target:
            await exchange.send(whole(200, json.dumps(embeddings(request)).encode()))
        elif streams(request):
            await exchange.send(stream_head(), *map(framed, events(request, figures)), LAST)
        else:
            await exchange.send(whole(200, json.dumps(completion(request, figures), ensure_ascii=False).encode()))

    return speak


async def always_usage(exchange: Exchange) -> None:
    """Usage in the stream although nobody asked, as some providers do."""
    request = exchange.request
    parts = events(request, None)[:-1]
    await exchange.send(stream_head(), *map(framed, [*parts, event(chunk(request, None, usage=usage())), DONE]), LAST)


async def usage_in_last_chunk(exchange: Exchange) -> None:
    """Usage beside the last choice instead of in a chunk of its own."""
    request = exchange.request
    parts = events(request, None)[:-2]
    last = event(chunk(request, {}, "stop", usage=usage()))
    await exchange.send(stream_head(), *map(framed, [*parts, last, DONE]), LAST)


async def no_usage(exchange: Exchange) -> None:
    """No usage, not even when asked."""
    request = exchange.request
    if streams(request):
        await exchange.send(stream_head(), *map(framed, events(request, None)), LAST)
    else:
        await exchange.send(whole(200, json.dumps(completion(request, None)).encode()))


async def slow_stream(exchange: Exchange) -> None:
    """A right stream, an event every 50 ms."""
    await exchange.send(stream_head())
    for part in events(exchange.request, usage()):
        await exchange.send(framed(part))
        await exchange.pause(_SLOW_S)
    await exchange.send(LAST)


async def byte_by_byte(exchange: Exchange) -> None:
    """A right stream that comes one byte a chunk: events and UTF-8 characters are split everywhere."""
    await exchange.send(stream_head())
    for part in events(exchange.request, usage()):
        for i in range(len(part)):
            await exchange.send(framed(part[i : i + 1]))
            await asyncio.sleep(0)
    await exchange.send(LAST)


async def odd_events(exchange: Exchange) -> None:
    """A right stream in the odd forms the standard allows: CRLF, comments, ids, no space, data over two lines."""
    request = exchange.request
    texts = [json.loads(part[6:]) for part in events(request, usage())[:-1]]
    parts = [b": ping\r\n\r\n", b"id: 7\r\nevent: message\r\nretry: 10\r\ndata:" + compact(texts[0]) + b"\r\n\r\n"]
    parts += [b"data:" + compact(text) + b"\r\n\r\n" for text in texts[1:-1]]
    first, rest = compact(texts[-1]).split(b",", 1)
    parts += [b"data: " + first + b",\r\ndata: " + rest + b"\r\n\r\n", b"data:[DONE]\r\n\r\n"]
    await exchange.send(stream_head(), *map(framed, parts), LAST)


async def gated(exchange: Exchange) -> None:
    """A right answer once the test opens `upstream.gate`; in a stream the first words come before."""
    request = exchange.request
    if not streams(request):
        await exchange.gate()
        await answer()(exchange)
        return
    first, second, *rest = events(request, usage())
    await exchange.send(stream_head(), framed(first), framed(second))
    await exchange.gate()
    await exchange.send(*map(framed, rest), LAST)


async def continued(exchange: Exchange) -> None:
    """Two interim answers before the right one."""
    await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
    await answer()(exchange)


async def closes_idle(exchange: Exchange) -> None:
    """A right answer on a connection that is then closed without having said so: the pool holds a dead one."""
    await answer()(exchange)
    exchange.cut()


async def echo(exchange: Exchange) -> None:
    """Answers with the body it received as the text."""
    request = exchange.request
    await exchange.send(whole(200, json.dumps(completion(request, usage(), request.body.decode())).encode()))


async def no_length(exchange: Exchange) -> None:
    """A right answer that ends where the connection does."""
    exchange.cut()
    await exchange.send(head(200, b"connection: close"), compact(completion(exchange.request, usage())))
