"""Mail as far as no server is needed: what a URL means, which addresses there are, and that no fact breaks out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostiary.errors import CannotStart
from ostiary.mail import Letter, Mailer, Server, Template, Unsent, may_be_mailed, one_line
from ostiary.secret import Secret
from ostiary.settings import Settings

CANARY = "canary-8d2b6c1f"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.example.org", ("mail.example.org", 587, "starttls")),
        ("smtp://mail.example.org:2525", ("mail.example.org", 2525, "starttls")),
        ("smtp://mail.example.org:25?tls=none", ("mail.example.org", 25, "none")),
        ("smtps://mail.example.org", ("mail.example.org", 465, "tls")),
        ("smtp://127.0.0.1:1025", ("127.0.0.1", 1025, "none")),
        ("smtp://[::1]:1025", ("::1", 1025, "none")),
        ("smtp://localhost", ("localhost", 25, "none")),
        ("smtp://localhost?tls=starttls", ("localhost", 587, "starttls")),
        ("smtp://localhost.example.org", ("localhost.example.org", 587, "starttls")),
    ],
)
def test_a_url_says_where_and_how_safely(url: str, expected: tuple[str, int, str]) -> None:
    server = Server.parse(Secret(url))
    assert (server.host, server.port, server.security) == expected


def test_user_and_password_may_hold_anything() -> None:
    server = Server.parse(Secret("smtp://alice%40example.org:p%2Fw%3A%40d@mail.example.org"))
    assert (server.user, server.password.reveal()) == ("alice@example.org", "p/w:@d")
    assert "p/w" not in repr(server)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{CANARY}@mail.example.org",
        f"mail.example.org:{CANARY}",
        f"smtp://user:{CANARY}@",
        f"smtp://user:{CANARY}@mail.example.org:99999",
        f"smtp://user:{CANARY}@mail.example.org/inbox",
        f"smtp://user:{CANARY}@mail.example.org#part",
        f"smtp://{CANARY}@mail.example.org",
        f"smtp://:{CANARY}@mail.example.org",
        f"smtp://user:{CANARY}@mail.example.org?tls=maybe",
        f"smtp://user:{CANARY}@mail.example.org?verify=no",
        f"smtps://user:{CANARY}@mail.example.org?tls=none",
        f"smtp://user:{CANARY}@[::1",
    ],
)
def test_a_url_that_is_none_is_refused_and_never_quoted(url: str) -> None:
    with pytest.raises(CannotStart) as caught:
        Server.parse(Secret(url))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["bob@example.org", "b.o+b@mail.example.org", "o'neil@example.org", "a@[192.0.2.1]"]
)
def test_addresses(address: str) -> None:
    assert may_be_mailed(address) == ("[" not in address)


@pytest.mark.parametrize(
    "address",
    [
        *("", "@", "bob", "bob@", "@example.org", "bob@@example.org"),
        *("bob@example.org,eve@example.net", "bob@example.org, eve@example.net", "bob@example.org;eve@example.net"),
        *(
            "bob@example.org\r\nBcc: eve@example.net",
            "bob@example.org\nRCPT TO:<eve@example.net>",
            "bob@example.org\x00",
        ),
        *("<bob@example.org>", "Bob <bob@example.org>", '"bob"@example.org', "bob@example.org (Bob)"),
        *("bob@example.org\u2028x@y.z", "bob@example.org\u202e", "bob..b@example.org", "bob@example..org", "bö b@x.de"),
        "a" * 320 + "@example.org",
    ],
)
def test_what_is_not_exactly_one_address_is_sent_nothing(address: str) -> None:
    assert not may_be_mailed(address)
    mailer = Mailer(Server("192.0.2.1", 25, "none"), "ostiary@example.org")
    with pytest.raises(Unsent) as caught:
        mailer._message(Letter("dlv_1", address, "Subject", "Text", 0))
    assert caught.value.is_final


@pytest.mark.parametrize("sender", ["", "Ostiary", "ostiary@", "a@b.c, d@e.f", "x\r\nBcc: eve@example.net"])
def test_who_mails_are_from_must_be_an_address(sender: str) -> None:
    with pytest.raises(CannotStart):
        Mailer(Server("192.0.2.1", 25, "none"), sender)


@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\x1c"])
def test_no_fact_becomes_a_header_or_a_paragraph(line_end: str) -> None:
    name = f"ci{line_end}Bcc: eve@example.net{line_end}{line_end}Pay here"
    subject, text = Template("Key $name", "The key $name is spent.\n").write({"name": name})
    assert len(text.splitlines()) == 1
    message = Mailer(Server("192.0.2.1", 25, "none"), "ostiary@example.org")._message(
        Letter("dlv_1", "bob@example.org", subject + line_end + "Bcc: eve@example.net", text, 0)
    )
    assert message["Bcc"] is None
    heads = bytes(message).split(b"\r\n\r\n", 1)[0].lower()
    assert b"\nbcc:" not in heads
    assert set(message.keys()) >= {"From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted"}


def test_a_dollar_in_a_fact_stands_for_nothing() -> None:
    assert Template("$name", "$name").write({"name": "$secret ${secret} $$"}) == ("$secret ${secret} $$",) * 2


def test_a_text_keeps_its_letters() -> None:
    assert one_line("  größe\t→ 鍵\u202e ") == "größe → 鍵"


def test_the_url_is_a_secret_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"smtp://user:{CANARY}@mail.example.org\n")
    file.chmod(0o600)
    for environment in ({"OSTIARY_SMTP_URL": file.read_text()}, {"OSTIARY_SMTP_URL_FILE": str(file)}):
        settings = Settings.load(environment=environment)
        assert settings.smtp_url is not None
        assert Server.parse(settings.smtp_url).password.reveal() == CANARY
        assert CANARY not in repr(settings)
