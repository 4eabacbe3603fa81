"""What is read out of a file of variables: keys by their names, whatever editor or shell has written it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostiary.errors import Refusal
from ostiary.providers.catalog import Field, Provider, load
from ostiary.vault.imports import LARGEST, EnvFile, KeyLine, read, text_of

CATALOG = load()
OPENAI = replace(CATALOG.get("openai"), env=("OPENAI_API_KEY",), env_url=("OPENAI_BASE_URL",))
CLOUDY = replace(
    CATALOG.get("groq"),
    id="cloudy",
    env=("CLOUDY_TOKEN", "CLOUDY_KEY"),
    fields=(Field("account", "Account", env=("CLOUDY_ACCOUNT", "CLOUDY_ACCOUNT_ID")), Field("region", "Region")),
)
TWIN = replace(CATALOG.get("mistral"), id="twin", env=("CLOUDY_KEY",))
ROWS: tuple[Provider, ...] = (OPENAI, CLOUDY, TWIN)


def parsed(text: str) -> EnvFile:
    return read(text, ROWS)


def only(text: str) -> KeyLine:
    (key,) = parsed(text).keys
    return key


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("OPENAI_API_KEY=sk-1", "sk-1"),
        ("export OPENAI_API_KEY=sk-1", "sk-1"),
        ("export\tOPENAI_API_KEY = sk-1 ", "sk-1"),
        ("  OPENAI_API_KEY=  sk-1", "sk-1"),
        ('OPENAI_API_KEY="sk-1"', "sk-1"),
        ("OPENAI_API_KEY='sk-1'", "sk-1"),
        ("OPENAI_API_KEY='sk-$1${x}'", "sk-$1${x}"),
        ('OPENAI_API_KEY="sk-\\"1"', 'sk-"1'),
        ('OPENAI_API_KEY="sk-1" # work', "sk-1"),
        ("OPENAI_API_KEY=sk-1 # work", "sk-1"),
        ("OPENAI_API_KEY=sk-1#2", "sk-1#2"),
        ("OPENAI_API_KEY=sk=1==", "sk=1=="),
        ("OPENAI_API_KEY=sk-1\r\n", "sk-1"),
        ("OPENAI_API_KEY_2=sk-1", "sk-1"),
        ("OPENAI_API_KEY=$1", "$1"),
    ],
)
def test_a_value_is_what_a_shell_would_make_of_it(line: str, secret: str) -> None:
    key = only(line)
    assert (key.provider.id, key.secret.reveal(), key.number) == ("openai", secret, 1)


@pytest.mark.parametrize(
    ("line", "variable", "note"),
    [
        ("OPENAI_API_KEY=${OTHER}", "OPENAI_API_KEY", "refers to"),
        ("OPENAI_API_KEY=$OTHER", "OPENAI_API_KEY", "refers to"),
        ('OPENAI_API_KEY="$(cat key)"', "OPENAI_API_KEY", "refers to"),
        ("OPENAI_API_KEY=`cat key`", "OPENAI_API_KEY", "refers to"),
        ("OPENAI_API_KEY=", "OPENAI_API_KEY", "empty"),
        ('OPENAI_API_KEY=""', "OPENAI_API_KEY", "empty"),
        ("OPENAI_API_KEY= # none yet", "OPENAI_API_KEY", "empty"),
        ('OPENAI_API_KEY="sk-1', "OPENAI_API_KEY", "quotes"),
        ("OPENAI_API_KEY='sk-1' x", "OPENAI_API_KEY", "quotes"),
        ("STRIPE_KEY=sk_live_1", "STRIPE_KEY", "no provider's key"),
        ("STRIPE_KEY=${X}", "STRIPE_KEY", "no provider's key"),
        ("OPENAI_API_KEY_FILE=/run/key", "OPENAI_API_KEY_FILE", "no provider's key"),
        ("OPENAI_BASE_URL=https://api.example.org", "OPENAI_BASE_URL", "no provider's key"),
        ("sk-this-is-a-secret-all-alone", "", "not of the form"),
        ("OPENAI_API_KEY sk-1", "", "not of the form"),
        ("öpenai=1", "", "not of the form"),
    ],
)
def test_what_holds_no_key_is_named_and_never_quoted(line: str, variable: str, note: str) -> None:
    found = parsed(line)
    (other,) = found.others
    assert (found.keys, other.number, other.variable) == ((), 1, variable)
    assert note in other.note
    value = line.partition("=")[2] or line
    assert not value or value not in other.note


def test_blank_lines_and_comments_say_nothing() -> None:
    assert parsed("\n\r\n # OPENAI_API_KEY=sk-1\n\t\n#\n") == EnvFile((), ())


def test_the_last_of_two_counts() -> None:
    found = parsed("OPENAI_API_KEY=sk-old\nX=1\nOPENAI_API_KEY=sk-new\n")
    assert [(key.number, key.secret.reveal()) for key in found.keys] == [(3, "sk-new")]
    assert [(one.number, one.note) for one in found.others] == [
        (1, "stands again on line 3, which counts"),
        (2, "no provider's key is called so"),
    ]
    assert parsed("OPENAI_API_KEY=sk-old\nOPENAI_API_KEY=\n").keys == ()


def test_addresses_and_fields_go_with_their_keys() -> None:
    text = "CLOUDY_ACCOUNT_ID=acc\nCLOUDY_TOKEN=t1\nCLOUDY_TOKEN_2=t2\nOPENAI_BASE_URL=https://x.example/v1\nOPENAI_API_KEY=sk"
    found = parsed(text)
    assert [(key.variable, key.base_url, dict(key.fields)) for key in found.keys] == [
        ("CLOUDY_TOKEN", None, {"account": "acc"}),
        ("CLOUDY_TOKEN_2", None, {"account": "acc"}),
        ("OPENAI_API_KEY", "https://x.example/v1", {}),
    ]
    assert found.others == ()
    referring = parsed("OPENAI_BASE_URL=${HOST}/v1\nOPENAI_API_KEY=sk")
    assert referring.keys[0].base_url is None
    assert [one.variable for one in referring.others] == ["OPENAI_BASE_URL"]


def test_a_name_that_two_providers_claim_is_the_first_ones() -> None:
    assert only("CLOUDY_KEY=x").provider.id == "cloudy"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_other_editors_are_read(encoding: str) -> None:
    text = "# schlüssel\r\nOPENAI_API_KEY=sk-1\r\n"
    assert only(text_of(text.encode(encoding))).secret.reveal() == "sk-1"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("OPENAI_API_KEY=sk-schlüssel".encode("latin-1"), "not UTF-8"),
        (b"SQLite format 3\0OPENAI_API_KEY=sk-secret", "no text"),
        (b"\xff\xfeO\0x", "not UTF-8"),
        (b"x" * (LARGEST + 1), "larger than"),
    ],
)
def test_what_is_no_text_is_refused_without_being_quoted(content: bytes, why: str) -> None:
    with pytest.raises(Refusal, match=why) as caught:
        text_of(content)
    assert "sk-" not in caught.value.message


@given(st.text(max_size=400))
def test_no_file_makes_it_stumble(text: str) -> None:
    """Each line is a key, is told of, goes with a key, or says nothing; and no secret is in what is told."""
    found = parsed(text)
    numbers = [key.number for key in found.keys] + [one.number for one in found.others]
    assert len(numbers) == len(set(numbers))
    assert all(key.secret for key in found.keys)
