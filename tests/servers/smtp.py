"""A real SMTP server, which keeps what it takes and refuses what a test tells it to."""

from __future__ import annotations

import asyncio
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from tests.servers.waiting import free_port, until


@dataclass(frozen=True, slots=True)
class Mail:
    """One letter: the addresses of its envelope, and itself."""

    sender: str
    to: tuple[str, ...]
    message: EmailMessage

    @property
    def text(self) -> str:
        """Its body."""
        return str(self.message.get_content())


@dataclass  # aiosmtpd reads all attributes: of a class with slots one cannot be read up to Python 3.11.2
class Smtp:
    """The server; with a `user` it wants to be signed in to, over TLS if it has any."""

    port: int = field(default_factory=free_port)
    tls: ssl.SSLContext | None = None
    is_implicit: bool = False
    user: str | None = None
    password: str | None = None
    refusal: str | None = None
    """What it says to every recipient, such as `550 no such user`."""
    mails: list[Mail] = field(default_factory=list)
    logins: list[bool] = field(default_factory=list)
    """Whether each sign-in had the right password."""
    _sessions: list[SMTP] = field(default_factory=list)
    _stop: Callable[[], object] = object

    @property
    def url(self) -> str:
        """As OSTIARY_SMTP_URL."""
        who = f"{self.user}:{self.password}@" if self.user else ""
        return f"{'smtps' if self.is_implicit else 'smtp'}://{who}127.0.0.1:{self.port}"

    def wait_for(self, mails: int, timeout_s: float = 30) -> Mail:
        """Block until so many have come; the last of them."""
        until(lambda: len(self.mails) >= mails, f"{mails} mails", timeout_s)
        return self.mails[mails - 1]

    # ---- what aiosmtpd calls ------------------------------------------------------------------------------------

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Envelope, address: str, options: Any) -> str:  # noqa: N802 - the library's name
        if self.refusal is not None:
            return self.refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:  # noqa: N802 - as above
        content = envelope.original_content
        assert content is not None
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.mails.append(Mail(envelope.mail_from or "", tuple(envelope.rcpt_tos), message))
        return "250 OK"

    def _judge(self, _server: Any, _session: Any, _envelope: Any, _how: str, given: Any) -> AuthResult:
        assert isinstance(given, LoginPassword)
        fits = (given.login, given.password) == ((self.user or "").encode(), (self.password or "").encode())
        self.logins.append(fits)
        return AuthResult(success=fits, handled=False)

    def _session(self) -> SMTP:
        options: dict[str, Any] = {"hostname": "mail.test", "enable_SMTPUTF8": True}
        if self.user is not None:
            options |= {"authenticator": self._judge, "auth_required": True}
            options |= {"auth_require_tls": self.tls is not None and not self.is_implicit}
        if self.tls is not None and not self.is_implicit:
            options["tls_context"] = self.tls
        with warnings.catch_warnings(action="ignore"):  # about sign-in without TLS
            session = SMTP(self, **options, loop=asyncio.get_running_loop())
        self._sessions.append(session)
        return session

    async def _serve(self, ready: threading.Event) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        tls = self.tls if self.is_implicit else None
        server = await loop.create_server(self._session, "127.0.0.1", self.port, ssl=tls)
        ready.set()
        await stop.wait()
        server.close()
        for session in self._sessions:
            if isinstance(session.transport, asyncio.Transport):
                with suppress(AttributeError):  # one of TLS that is closed already, up to Python 3.11.2
                    session.transport.abort()
        await asyncio.sleep(0.01)  # sockets are closed, and TLS is torn down, in the next rounds of the loop
        self._sessions.clear()

    @contextmanager
    def running(self) -> Iterator[Smtp]:
        """Serve while the block runs; a second block is the same server come back."""
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), name="smtp", daemon=True)
        thread.start()
        assert ready.wait(30), "the SMTP server does not start"
        try:
            yield self
        finally:
            self._stop()
            thread.join(30)
            assert not thread.is_alive(), "the SMTP server does not stop"
