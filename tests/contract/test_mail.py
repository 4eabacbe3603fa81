"""Letters are handed in to a real SMTP server: in the clear only where that was said, once, and to one address."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from email.utils import parsedate_to_datetime

import pytest
import trustme

from ostiary.clock import moment
from ostiary.mail import Letter, Mailer, Server, Unsent
from ostiary.secret import Secret
from tests.people import NOW
from tests.servers.smtp import Smtp
from tests.servers.waiting import free_port

LETTER = Letter("dlv_1", "bob@example.org", "80 % – größe 鍵", "Line one\n\n.\n..dots\nGrüße, 鍵\n" + "x" * 2_000, NOW)
SENDER = "Ostiary Türsteher <ostiary@example.org>"


class Authority:
    """A certificate authority of the test's, and what trusts it."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.trust = ssl.create_default_context()
        self._ca.configure_trust(self.trust)

    def server(self, name: str = "127.0.0.1") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def mailer(url: str, trust: ssl.SSLContext | None = None) -> Mailer:
    return Mailer(Server.parse(Secret(url)), SENDER, trust)


async def failure(of: Mailer, letter: Letter = LETTER) -> Unsent:
    with pytest.raises(Unsent) as caught:
        await of.send(letter)
    return caught.value


async def test_a_letter_arrives_as_it_was_written(smtp: Smtp) -> None:
    await mailer(smtp.url).send(LETTER)
    [mail] = smtp.mails
    assert (mail.sender, mail.to) == ("ostiary@example.org", ("bob@example.org",))
    message = mail.message
    assert str(message["Subject"]) == LETTER.subject
    assert str(message["From"]) == SENDER
    assert str(message["To"]) == "bob@example.org"
    assert message["Message-ID"] == "<dlv_1@example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert parsedate_to_datetime(str(message["Date"])) == moment(NOW).replace(microsecond=0)
    assert mail.text.replace("\r\n", "\n").rstrip("\n") == LETTER.text.rstrip("\n")
    assert message.get_content_type() == "text/plain"


async def test_an_international_domain_is_written_in_ascii(smtp: Smtp) -> None:
    await mailer(smtp.url).send(replace(LETTER, to="bob@bücher.example"))
    assert smtp.mails[0].to == ("bob@xn--bcher-kva.example",)


@pytest.mark.parametrize("address", ["böb@example.org", "bob@straße.example"])
async def test_an_address_that_smtp_cannot_say_is_given_up(smtp: Smtp, address: str) -> None:
    """In the older of two standards the second one is strasse.example, somebody else's."""
    assert (await failure(mailer(smtp.url), replace(LETTER, to=address))).is_final
    assert smtp.mails == []


async def test_starttls_with_sign_in(authority: Authority) -> None:
    with Smtp(tls=authority.server(), user="u@ser", password="p:w").running() as server:
        url = f"smtp://u%40ser:p%3Aw@127.0.0.1:{server.port}?tls=starttls"
        await mailer(url, authority.trust).send(LETTER)
        assert (len(server.mails), server.logins) == (1, [True])


async def test_implicit_tls(authority: Authority) -> None:
    server = Smtp(tls=authority.server(), is_implicit=True)
    with server.running():
        await mailer(server.url, authority.trust).send(LETTER)
        assert len(server.mails) == 1


async def test_no_starttls_no_mail_and_no_password(smtp: Smtp) -> None:
    """As when somebody in between takes the offer out of the server's answer."""
    url = f"smtp://user:password-1234@127.0.0.1:{smtp.port}?tls=starttls"
    unsent = await failure(mailer(url))
    assert "STARTTLS" in unsent.text
    assert not unsent.is_final
    assert smtp.mails == []
    assert smtp.logins == []


@pytest.mark.parametrize("name", ["127.0.0.1", "192.0.2.1"])
async def test_a_certificate_of_somebody_else_is_not_taken(authority: Authority, name: str) -> None:
    trust = None if name == "127.0.0.1" else authority.trust  # an unknown authority; another host's name
    with Smtp(tls=authority.server(name)).running() as server:
        unsent = await failure(mailer(f"smtp://127.0.0.1:{server.port}?tls=starttls", trust))
        assert "certificate" in unsent.text.lower()
        assert server.mails == []


async def test_a_wrong_password_is_said_without_it() -> None:
    with Smtp(user="user", password="right-password-1").running() as server:
        unsent = await failure(mailer(f"smtp://user:wrong-password-1@127.0.0.1:{server.port}"))
        assert "535" in unsent.text
        assert "wrong-password-1" not in unsent.text
        assert not unsent.is_final, "the operator may set it right"
        assert server.mails == []


@pytest.mark.parametrize("said", ["550 no such user", "451 try later"])
async def test_a_refused_recipient(smtp: Smtp, said: str) -> None:
    smtp.refusal = said
    unsent = await failure(mailer(smtp.url))
    assert unsent.is_final == said.startswith("5")
    assert f"said {said.replace(' ', ': ', 1)}" in unsent.text


async def test_nobody_there() -> None:
    unsent = await failure(mailer(f"smtp://127.0.0.1:{free_port()}"))
    assert not unsent.is_final
    assert "not handed in" in unsent.text


async def test_a_server_that_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ostiary.mail._TOTAL_S", 0.3)
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(15):  # less than any of the waits that were not made shorter
        unsent = await failure(mailer(f"smtp://127.0.0.1:{port}"))
        assert "in time" in unsent.text
        await gone.wait()
    server.close()
