"""A provider that is wrong: broken, stalled, oversized or poisoned answers."""

from __future__ import annotations

import gzip
import json
from typing import Final

from tests.servers.answers import answer
from tests.servers.upstream import Exchange
from tests.servers.wire import (
    CACHED_TOKENS,
    DONE,
    LAST,
    ORGANIZATION,
    REASONING_TOKENS,
    compact,
    completion,
    event,
    events,
    framed,
    head,
    stream_head,
    usage,
    whole,
)

_BOMB_BYTES: Final = 64 << 20
_GIGANTIC_BYTES: Final = 64 << 20
_BLOCK: Final = b"x" * (1 << 16)


async def no_end(exchange: Exchange) -> None:
    """A stream that ends well for HTTP, but without [DONE]."""
    await exchange.send(stream_head(), *map(framed, events(exchange.request, usage())[:-1]), LAST)


async def no_end_no_usage(exchange: Exchange) -> None:
    """The same without usage: words came, nobody knows what they cost."""
    await exchange.send(stream_head(), *map(framed, events(exchange.request, None)[:-2]), LAST)


async def truncated(exchange: Exchange) -> None:
    """A stream cut in the middle of an event."""
    first, second, third, *_ = events(exchange.request, usage())
    exchange.cut()
    await exchange.send(stream_head(), framed(first), framed(second), framed(third[: len(third) // 2]))


async def cut_between(exchange: Exchange) -> None:
    """A stream cut cleanly after an event, without HTTP's own end."""
    exchange.cut()
    await exchange.send(stream_head(), *map(framed, events(exchange.request, usage())[:3]))


async def cut_before_content(exchange: Exchange) -> None:
    """A stream cut before its first word."""
    exchange.cut()
    await exchange.send(stream_head())


async def error_in_stream(exchange: Exchange) -> None:
    """A 200 whose stream turns into an error after two words."""
    parts = events(exchange.request, None)[:3]
    fault = event({"error": {"message": f"The server had an error, {ORGANIZATION}", "type": "server_error"}})
    await exchange.send(stream_head(), *map(framed, [*parts, fault]), LAST)


async def error_first_in_stream(exchange: Exchange) -> None:
    """A 200 whose stream is nothing but an error."""
    fault = event({"error": {"message": "Overloaded", "type": "server_error", "code": "overloaded"}})
    await exchange.send(stream_head(), framed(fault), LAST)


async def malformed_event(exchange: Exchange) -> None:
    """An event that is no JSON, among right ones."""
    first, second, *rest = events(exchange.request, usage())
    await exchange.send(stream_head(), *map(framed, [first, second, b'data: {"choices": [\n\n', *rest]), LAST)


async def giganticcompact(exchange: Exchange) -> None:
    """A line of 64 MB in a stream."""
    await exchange.send(stream_head(), framed(b"data: "))
    for _ in range(_GIGANTIC_BYTES // len(_BLOCK)):
        await exchange.send(framed(_BLOCK))
    await exchange.send(framed(b"\n\n"), framed(DONE), LAST)


async def gigantic_body(exchange: Exchange) -> None:
    """A JSON string of 64 MB."""
    await exchange.send(head(200, b"content-length: %d" % (_GIGANTIC_BYTES + 2)), b'"')
    for _ in range(_GIGANTIC_BYTES // len(_BLOCK)):
        await exchange.send(_BLOCK)
    await exchange.send(b'"')


async def stall_first_byte(exchange: Exchange) -> None:
    """Takes the request and says nothing."""
    await exchange.stall()


async def stall_head(exchange: Exchange) -> None:
    """Begins a head and does not end it."""
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: app")
    await exchange.stall()


async def stall_body(exchange: Exchange) -> None:
    """A head, half a body, then nothing."""
    body = compact(completion(exchange.request, usage()))
    await exchange.send(whole(200, body)[: -len(body) // 2])
    await exchange.stall()


async def stall_stream(exchange: Exchange) -> None:
    """Three events, then nothing."""
    await exchange.send(stream_head(), *map(framed, events(exchange.request, usage())[:3]))
    await exchange.stall()


async def drip(exchange: Exchange) -> None:
    """Comments for ever, a few every second: alive, but never done."""
    await exchange.send(stream_head())
    while True:
        await exchange.send(framed(b": still here\n\n"))
        await exchange.pause(0.2)


async def malformed_json(exchange: Exchange) -> None:
    """A 200 whose body stops in the middle of JSON."""
    await exchange.send(whole(200, b'{"id": "chatcmpl-1", "choices": [{"mess'))


async def wrong_shape(exchange: Exchange) -> None:
    """A 200 with JSON of another kind."""
    await exchange.send(whole(200, b'["unexpected", null]'))


async def html(exchange: Exchange) -> None:
    """A 200 that is a web page, as captive portals and proxies give."""
    await exchange.send(whole(200, b"<!doctype html><title>Sign in</title>", kind=b"text/html"))


async def empty(exchange: Exchange) -> None:
    """A 200 with nothing in it."""
    await exchange.send(whole(200, b""))


async def drop(exchange: Exchange) -> None:
    """Closes without a byte."""
    exchange.cut()


async def reset(exchange: Exchange) -> None:
    """Resets the connection without a byte."""
    exchange.reset()


async def short_body(exchange: Exchange) -> None:
    """Promises more bytes than come."""
    exchange.cut()
    await exchange.send(head(200, b"content-length: 1000"), b'{"id":')


async def second_answer(exchange: Exchange) -> None:
    """A right answer with a second one stuck to it: what the next caller must not get."""
    poison = json.dumps(completion(exchange.request, usage(), "POISON")).encode()
    await answer()(exchange)
    await exchange.send(whole(200, poison))


async def bad_chunk(exchange: Exchange) -> None:
    """A chunk size that is none."""
    exchange.cut()
    await exchange.send(stream_head(), b"zz\r\nnope\r\n")


async def not_http(exchange: Exchange) -> None:
    """Another protocol."""
    exchange.cut()
    await exchange.send(b"SSH-2.0-OpenSSH_9.9\r\n")


async def huge_head(exchange: Exchange) -> None:
    """A header of 1 MB."""
    await exchange.send(head(200, b"x-filler: " + b"y" * (1 << 20), b"content-length: 2"), b"{}")


async def gzipped(exchange: Exchange) -> None:
    """Compressed although identity was asked for."""
    body = gzip.compress(compact(completion(exchange.request, usage())))
    await exchange.send(whole(200, body, b"content-encoding: gzip"))


async def bomb(exchange: Exchange) -> None:
    """64 MB of zeros in 64 KB of gzip."""
    await exchange.send(whole(200, gzip.compress(bytes(_BOMB_BYTES)), b"content-encoding: gzip"))


async def redirect(exchange: Exchange) -> None:
    """Sends the client, and its credential, elsewhere on this server."""
    await exchange.send(whole(307, b"", b"location: " + exchange.upstream.origin.encode() + b"/v1/elsewhere"))


async def over_usage(exchange: Exchange) -> None:
    """A short answer that claims a million tokens: more than any hold."""
    await answer(usage(completion_tokens=1_000_000, total_tokens=1_000_011))(exchange)


async def odd_usage(exchange: Exchange) -> None:
    """Usage figures that are no figures."""
    await answer({"prompt_tokens": -5, "completion_tokens": "7", "total_tokens": None})(exchange)


async def cached(exchange: Exchange) -> None:
    """Usage with cached input and reasoning output."""
    details = {
        "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
    }
    await answer(usage(**details))(exchange)
