"""Sends one plain e-mail from a template; knows no organizations."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from email.utils import format_datetime, getaddresses
from ipaddress import ip_address
from string import Template as Text
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from aiosmtplib import SMTP, SMTPException, SMTPRecipientsRefused, SMTPResponseException

from ostiary.clock import moment
from ostiary.errors import CannotStart
from ostiary.secret import Secret

Security = Literal["tls", "starttls", "none"]

_STEP_S: Final = 20.0
"""For one command and its reply."""
_TOTAL_S: Final = 45.0
_FAREWELL_S: Final = 2.0
_PORTS: Final[Mapping[Security, int]] = {"tls": 465, "starttls": 587, "none": 25}
_LONGEST_ADDRESS: Final = 320
_LONGEST_SUBJECT: Final = 250
_LONGEST_REPLY: Final = 300
_BAD_IN_ADDRESS: Final = re.compile(r"[\s<>()\[\]\\,;:\"]")
_PERMANENT: Final = range(500, 600)

_NO_ADDRESS: Final = "This is not an address that mail can be sent to."
_HOW: Final = "Write smtp://USER:PASSWORD@HOST:587 (STARTTLS) or smtps://USER:PASSWORD@HOST:465, escaping with %."


class Unsent(Exception):  # noqa: N818 - what came of a letter, for whoever may try again
    """The letter was not taken. `text` holds no secret of ours; `is_final`: trying again will not help."""

    def __init__(self, text: str, *, is_final: bool = False) -> None:
        self.text = text
        self.is_final = is_final
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Template:
    """A subject and a text with `$names` for facts."""

    subject: str
    text: str

    def write(self, facts: Mapping[str, object]) -> tuple[str, str]:
        """Subject and text with the facts in place, each of them one visible line; raises KeyError without one."""
        lines = {name: one_line(str(value)) for name, value in facts.items()}
        return Text(self.subject).substitute(lines), Text(self.text).substitute(lines)


@dataclass(frozen=True, slots=True)
class Letter:
    """One plain e-mail. `id` is the same when it is sent again, so that a mailbox can tell."""

    id: str
    to: str
    subject: str
    text: str
    at: int


@dataclass(frozen=True, slots=True)
class Server:
    """Where letters are handed in."""

    host: str
    port: int
    security: Security
    user: str | None = None
    password: Secret = field(default_factory=lambda: Secret(""))

    @classmethod
    def parse(cls, url: Secret) -> Server:
        """Read OSTIARY_SMTP_URL; raises CannotStart, and never quotes it.

        `smtp://` means STARTTLS, without which nothing is sent, unless the host is this machine or `?tls=none` says so.
        """
        try:
            parts = urlsplit(url.reveal().strip())
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise CannotStart(f"OSTIARY_SMTP_URL is not understood. {_HOW}") from None
        if parts.scheme not in {"smtp", "smtps"} or not _is_host(host) or parts.path not in {"", "/"} or parts.fragment:
            raise CannotStart(f"OSTIARY_SMTP_URL is not understood. {_HOW}")
        security = _security(parts, host)
        user, password = (unquote(part) if part else None for part in (parts.username, parts.password))
        if (user is None) != (password is None):
            raise CannotStart(f"OSTIARY_SMTP_URL has only one of user and password. {_HOW}")
        return cls(host, port or _PORTS[security], security, user, Secret(password or ""))


def _security(parts: SplitResult, host: str) -> Security:
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    tls = asked.pop("tls", None)
    if asked or tls not in {None, "none", "starttls"} or (tls and parts.scheme == "smtps"):
        raise CannotStart("OSTIARY_SMTP_URL may only say ?tls=none or ?tls=starttls behind an smtp:// address.")
    if parts.scheme == "smtps":
        return "tls"
    if tls is None:
        return "none" if _is_this_machine(host) else "starttls"
    return "none" if tls == "none" else "starttls"


def _is_host(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Mailer:
    """Hands letters to one server, on a connection of its own for each."""

    def __init__(self, server: Server, sender: str, trust: ssl.SSLContext | None = None) -> None:
        """`sender` is `ostiary@example.org` or `Ostiary <ostiary@example.org>`; `trust` replaces the system's CAs."""
        found = getaddresses([sender])
        name, address = found[0] if len(found) == 1 and sender.isprintable() else ("", "")
        if not may_be_mailed(address):
            raise CannotStart("OSTIARY_MAIL_FROM must be an address such as ostiary@example.org.")
        self._server = server
        self._sender = Address(one_line(name), addr_spec=address)
        self._trust = trust

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be in any message about a failure."""
        return (self._server.password.reveal(),) if self._server.password else ()

    async def send(self, letter: Letter) -> None:
        """Hand one letter in. Raises Unsent with what the server said, or why there was none."""
        message = self._message(letter)
        to = message["To"].addresses[0].addr_spec
        client = self._client()
        try:
            async with asyncio.timeout(_TOTAL_S):
                await client.connect()
                await client.send_message(message, sender=self._sender.addr_spec, recipients=[to])
            with suppress(SMTPException, OSError):  # it was taken: how the server says goodbye is its own affair
                await client.quit(timeout=_FAREWELL_S)
        except SMTPRecipientsRefused as error:
            refused = error.recipients[0]
            raise Unsent(_said(refused.code, refused.message), is_final=refused.code in _PERMANENT) from None
        except SMTPResponseException as error:
            raise Unsent(_said(error.code, error.message)) from None
        except TimeoutError:
            raise Unsent("The mail server did not answer in time.") from None
        except (SMTPException, OSError) as error:
            raise Unsent(f"The mail was not handed in: {one_line(str(error))[:_LONGEST_REPLY]}") from None
        except (ValueError, MessageError):
            raise Unsent(_NO_ADDRESS, is_final=True) from None
        finally:
            client.close()

    def _client(self) -> SMTP:
        server = self._server
        return SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password.reveal() if server.user is not None else None,
            local_hostname=_greeting(self._sender.domain),
            timeout=_STEP_S,
            use_tls=server.security == "tls",
            start_tls=server.security == "starttls",
            tls_context=self._trust,
        )

    def _message(self, letter: Letter) -> EmailMessage:
        if not may_be_mailed(letter.to):
            raise Unsent(_NO_ADDRESS, is_final=True)
        message = EmailMessage(WIRE)
        message["From"] = self._sender
        message["To"] = Address(addr_spec=_in_ascii(letter.to))
        message["Subject"] = one_line(letter.subject)[:_LONGEST_SUBJECT]
        message["Date"] = format_datetime(moment(letter.at))
        message["Message-ID"] = f"<{letter.id}@{_greeting(self._sender.domain)}>"
        message["Auto-Submitted"] = "auto-generated"  # so that nobody's holiday notice answers
        message.set_content(letter.text, cte="quoted-printable")
        return message


def may_be_mailed(address: str) -> bool:
    """Whether this is exactly one address, of a shape that can stand in a header and an SMTP command."""
    user, at, host = address.rpartition("@")
    is_plain = address.isprintable() and not _BAD_IN_ADDRESS.search(address) and "@" not in user
    if not (user and at and host and is_plain and len(address) <= _LONGEST_ADDRESS):
        return False
    try:
        return Address(addr_spec=address).addr_spec == address and bool(_in_ascii(address))
    except (ValueError, IndexError, MessageError):  # what its parser raises on things such as `a..b@c`
        return False


def _in_ascii(address: str) -> str:
    """The address with its domain as DNS has it, since few servers take another; ValueError where that is in doubt."""
    user, _, domain = address.rpartition("@")
    if domain.isascii():
        return address
    written = domain.encode("idna")
    if written.decode("idna") != domain.lower():
        raise ValueError("read by another standard, it is another domain")  # such as ß for ss
    return f"{user}@{written.decode()}"


def one_line(text: str) -> str:
    """A text without line ends, and without characters that show nothing or turn its direction."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _greeting(domain: str) -> str:
    """What to call ourselves: the machine's own name may be private, and asking for it may take seconds."""
    return domain if domain.isascii() else "localhost"


def _said(code: int, message: str) -> str:
    return f"The mail server said {code}: {one_line(message)[:_LONGEST_REPLY]}"
