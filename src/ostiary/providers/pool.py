"""Connections to providers, kept alive by origin."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from functools import cache
from typing import Final

from ostiary.providers.connection import Connection, Failure, TransportError
from ostiary.providers.egress import Blocked, Egress, Target

_KEEP_ALIVE_S: Final = 30
_DNS_S: Final = 30
_HOSTS_KEPT: Final = 1_024
_MOST_ADDRESSES: Final = 8
_FRESH_S: Final = 0.5
"""So short a time after a call its connection is not looked at before it is used again."""
_SWEEP_S: Final = 0.25
"""How late a wait may end. One look at every connection costs less than a timer for every wait."""


class Pool:
    """Belongs to the running loop. A connection taken from it is either given back or aborted."""

    def __init__(self, egress: Egress, trust: ssl.SSLContext | None) -> None:
        """`trust` replaces the system's certificate authorities."""
        self._egress = egress
        self._trust = trust or _system_trust()
        self._loop = asyncio.get_running_loop()
        self._idle: dict[str, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._hosts: dict[tuple[str, int], _Host] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def take(self, origin: str) -> Connection | None:
        """The connection that was used last, if one is still open."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_open and not self._is_stale(connection):
                self._busy.add(connection)
                return connection
        return None

    def _is_stale(self, connection: Connection) -> bool:
        """Whether the server has closed it, or said something, and the loop has not come to tell."""
        if self._loop.time() - connection.idle_at < _FRESH_S or _is_silent(connection):
            return False
        connection.abort()
        return True

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next call, or close it when it cannot serve one."""
        self._busy.discard(connection)
        if not connection.is_reusable or self._is_closed:
            connection.abort()
            return
        connection.idle_at = self._loop.time()
        idle = self._idle.get(connection.origin)
        if idle is None:
            idle = self._idle[connection.origin] = []
        idle.append(connection)

    async def connect(self, target: Target, patience_s: float) -> Connection | TransportError:
        """A new connection, or why there is none. The error is not raised, so that nothing hangs on to it."""
        until = self._loop.time() + patience_s
        addresses = await self._resolve(target, patience_s)
        if isinstance(addresses, TransportError):
            return addresses
        tried = addresses[:_MOST_ADDRESSES]
        outcome: Connection | TransportError = _failed("dns", "the host name could not be resolved")
        for left, address in zip(range(len(tried), 0, -1), tried, strict=True):
            try:
                # Where a socket is made its address is looked at once more: nothing upstream of here can slip past.
                self._egress.check_socket(address, target.port)
            except Blocked as error:
                return _failed("blocked", error.reason)
            outcome = await self._open(target, address, (until - self._loop.time()) / left)
            if isinstance(outcome, Connection):
                self._prefer(target, address)
                return self._admit(outcome)
        return outcome

    def close(self) -> None:
        """Abort every connection; calls under way end as `broken`."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in [*self._busy, *(one for idle in self._idle.values() for one in idle)]:
            connection.abort("broken", "the client was closed")
        self._busy.clear()
        self._idle.clear()

    # ---- making connections -----------------------------------------------------------------------------------------

    async def _resolve(self, target: Target, patience_s: float) -> Sequence[str] | TransportError:
        key = target.host, target.port
        host = self._hosts.get(key)
        if host is None:
            if len(self._hosts) >= _HOSTS_KEPT:
                self._hosts.clear()
            host = self._hosts[key] = _Host()
        try:
            async with asyncio.timeout(patience_s), host.lock:
                if not host.addresses or host.until < self._loop.time():
                    host.addresses = list(await self._egress.resolve(target.host, target.port))
                    host.until = self._loop.time() + _DNS_S
        except Blocked as error:
            return _failed("blocked", error.reason)
        except TimeoutError:
            return _failed("connect_timeout", "no connection in time")
        except OSError as error:
            return _failed("dns", "the host name could not be resolved", error)
        return host.addresses

    def _prefer(self, target: Target, address: str) -> None:
        """Try first what worked: a family of addresses that leads nowhere does so every time."""
        host = self._hosts.get((target.host, target.port))
        if host is not None and address in host.addresses[1:]:
            host.addresses = [address, *(one for one in host.addresses if one != address)]

    async def _open(self, target: Target, address: str, patience_s: float) -> Connection | TransportError:
        """Connect to this very address; a name is only what the certificate must be for."""
        is_secure = target.scheme == "https"
        raw: socket.socket | None = None
        try:
            async with asyncio.timeout(patience_s):
                raw = opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
                raw.setblocking(False)
                await self._loop.sock_connect(raw, (address, target.port))
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop, target.origin, opened),
                    sock=raw,
                    ssl=self._trust if is_secure else None,
                    server_hostname=target.host if is_secure else None,
                )
                raw = None
                return connection
        except OSError as error:
            return _refused(error)
        finally:
            if raw is not None:
                raw.close()

    def _admit(self, connection: Connection) -> Connection | TransportError:
        if self._is_closed or not connection.is_open:
            connection.abort()
            return _failed("broken", "the connection was closed before it was used")
        self._busy.add(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(_SWEEP_S, self._sweep)
        return connection

    # ---- waits ------------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """End waits that are over, close what has been idle for long, forget what is closed."""
        now = self._loop.time()
        for connection in [one for one in self._busy if now >= one.due_at or not one.is_open]:
            if connection.is_open:
                # A process that stood still has not read yet what came in time: that is not the provider's fault.
                connection.expire(now, is_silent=_is_silent(connection))
            if not connection.is_open:
                self._busy.discard(connection)
        for origin, idle in list(self._idle.items()):
            for connection in idle:
                if connection.idle_at + _KEEP_ALIVE_S <= now:
                    connection.abort()
            idle[:] = [one for one in idle if one.is_open]
            if not idle:
                del self._idle[origin]
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep) if self._busy or self._idle else None


class _Host:
    """What a name was last found to lead to; asked for by one call at a time."""

    __slots__ = ("addresses", "lock", "until")

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.lock = asyncio.Lock()
        self.until = 0.0


def _is_silent(connection: Connection) -> bool:
    """Whether its server has neither said anything that the loop has not told, nor hung up."""
    try:
        connection.socket.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _refused(error: OSError) -> TransportError:
    """What to tell of a connection that did not come about."""
    if isinstance(error, TimeoutError):
        return _failed("connect_timeout", "no connection in time")
    if isinstance(error, ssl.SSLCertVerificationError):
        return _failed("tls", f"the certificate is not trusted ({error.verify_message})")
    if isinstance(error, ssl.SSLError):
        return _failed("tls", "TLS could not be agreed on", error)
    return _failed("refused", "the connection was refused", error)


def _failed(
    kind: Failure,
    text: str,
    error: OSError | None = None,
) -> TransportError:
    # What the system itself says of it: "Connection refused". None of it is the request's.
    detail = getattr(error, "strerror", None)
    return TransportError(kind, sent=False, text=f"{text} ({detail})" if detail else text)


@cache
def _system_trust() -> ssl.SSLContext:
    """Read once for all pools of the process: the authorities are a hundred and forty certificates."""
    trust = ssl.create_default_context()
    trust.set_alpn_protocols(["http/1.1"])
    return trust
