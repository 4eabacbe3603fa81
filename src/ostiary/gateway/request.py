"""One request as it comes in: its head, its body, and whether its caller is still there."""

from __future__ import annotations

import asyncio

from ostiary.gateway.incoming import MAX_BODY, Headers, Incoming, Wire
from ostiary.providers.upload import Upload

__all__ = ["MAX_BODY", "Headers", "Request", "Wire"]


class Request(Incoming):
    """What the steps read of a request.

    `repeated` holds the headers that came a second time. `peer` is who connected, `address` who is meant by it.
    """

    __slots__ = (
        "_is_watched",
        "address",
        "is_file",
        "is_started",
        "keep_alive",
        "method",
        "path",
        "peer",
        "query",
        "repeated",
        "request_id",
        "task",
        "told",
        "upload",
        "version",
    )

    def __init__(  # noqa: PLR0913 - one argument a part of the head
        self,
        wire: Wire,
        method: str,
        path: str,
        query: bytes,
        headers: dict[bytes, bytes],
        repeated: Headers,
        *,
        version: str = "1.1",
        keep_alive: bool = True,
        peer: str | None = None,
    ) -> None:
        super().__init__(wire, headers)
        self.method = method
        self.path = path
        self.query = query
        self.repeated = repeated
        self.version = version
        self.keep_alive = keep_alive
        self.peer = peer
        self.address = peer
        self.request_id = ""
        self.told = b""
        """Header lines of ours that the answer's head will have: numbers, which need not be looked at again."""
        self.is_started = False
        self.is_file = False
        """Whether what goes out is no text: then no words can be put behind it."""
        self._is_watched = False
        self.upload: Upload | None = None
        """Where a body that is too large for memory lies, until the answer is over."""
        self.task: asyncio.Task[None] | None = None

    def all_of(self, name: bytes) -> list[bytes]:
        """Every value of a header, in the order they came."""
        first = self.headers.get(name)
        return [] if first is None else [first, *(value for other, value in self.repeated if other == name)]

    def lose(self) -> None:
        """The caller's connection is gone."""
        self.is_gone = True
        self._wake()
        if self._is_watched and not self.is_ended and self.task is not None:
            self.task.cancel()
        self._is_watched = False

    def watch(self) -> None:
        """Have the task of this request cancelled when the caller's connection goes before the answer has ended.

        Raises CancelledError when it has gone already.
        """
        if self.is_gone and not self.is_ended:
            raise asyncio.CancelledError
        self._is_watched = True

    def unwatch(self) -> None:
        """From here on the task ends by itself."""
        self._is_watched = False
