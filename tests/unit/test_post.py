"""Letters that pages send beside their answers: what is on its way at the end may arrive, and keeps nobody for long."""

from __future__ import annotations

import asyncio

import pytest

from ostiary.dashboard.letters import Post

pytestmark = pytest.mark.anyio


async def test_what_is_on_its_way_ends_before_the_post_is_closed() -> None:
    post, goes_on, arrived = Post(), asyncio.Event(), list[int]()

    async def hand_in() -> None:
        await goes_on.wait()
        arrived.append(1)

    post.later(hand_in)
    post.later(hand_in)
    closing = asyncio.ensure_future(post.close())
    asyncio.get_running_loop().call_soon(goes_on.set)
    await closing
    assert arrived == [1, 1]
    await post.close()


async def test_a_server_that_never_answers_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.dashboard.letters._LAST_S", 0.01)
    post, begun, left = Post(), asyncio.Event(), list[int]()

    async def hand_in() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.append(1)

    post.later(hand_in)
    await begun.wait()
    await post.close()
    assert left == [1], "it was ended, and reaches for nothing that is closed"
