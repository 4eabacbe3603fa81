"""Credentials: their shape, their checksum, what is shown of them, and what is kept."""

from __future__ import annotations

import hmac
import re

import pytest

from ostiary.agents import credential
from ostiary.secret import Secret
from tests.servers.canaries import Canaries

CLIENT_ID = "org_0123456789abcdefABCDEF"
KINDS: tuple[credential.Kind, ...] = ("pat", "eph", "ck", "cs", "inv")


@pytest.mark.parametrize("kind", KINDS)
def test_a_minted_credential_has_the_shape_of_its_kind(kind: credential.Kind) -> None:
    text = credential.mint(kind).reveal()
    assert re.fullmatch(rf"ost_{kind}_[0-9A-Za-z]{{49}}", text)
    assert credential.parse(text) == credential.Parsed(kind, text)


def test_no_two_are_alike() -> None:
    assert len({credential.mint("pat").reveal() for _ in range(1_000)}) == 1_000


def test_the_checksum_is_a_published_one() -> None:
    """CRC-32 of everything before it, in base 62: other programs can check a key they find."""
    text = "ost_pat_" + "0" * 42 + "1"
    assert credential.parse(text + "2AByL2") is None
    assert credential.parse(text + "2AByL1") == credential.Parsed("pat", text + "2AByL1")


def test_a_triple_is_one_credential() -> None:
    text = credential.mint_triple(CLIENT_ID).reveal()
    client_id, api_key, api_secret = text.split(":")
    assert client_id == CLIENT_ID
    assert credential.parse(text) == credential.Parsed("client", text)
    assert credential.parse(api_key) == credential.Parsed("ck", api_key)
    assert credential.parse(api_secret) == credential.Parsed("cs", api_secret)
    assert len(credential.preview(text)) <= 160  # the column's width


@pytest.mark.parametrize("change", ["", " ", "\n", "0", "\0", "é"])
def test_what_is_not_copied_exactly_is_none_of_ours(change: str) -> None:
    text = credential.mint("pat").reveal()
    if change:
        assert credential.parse(text + change) is None
        assert credential.parse(change + text) is None
    assert credential.parse(text[:-1]) is None
    assert credential.parse(text[1:]) is None
    assert credential.parse(text.swapcase()) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ost_",
        "ost_pat_",
        "ost_pat_" + "0" * 49,
        "ost_xyz_" + "0" * 49,
        "ost_pat_" + "é" * 49,
        "ost_pat_" + "٣" * 49,  # digits, but not ours
        "sk-proj-abcdef",
        "Bearer ost_pat_x",
        "org_x:ost_ck_x:ost_cs_x",
        "a" * 1_000_000,
        "ost_pat_" + "a" * 1_000_000,
    ],
)
def test_other_texts_are_none_of_ours(text: str) -> None:
    assert credential.parse(text) is None


def test_a_part_in_the_place_of_another_is_none_of_ours() -> None:
    client_id, api_key, api_secret = credential.mint_triple(CLIENT_ID).reveal().split(":")
    assert credential.parse(f"{client_id}:{api_secret}:{api_key}") is None
    assert credential.parse(f"{client_id}:{api_key}") is None
    assert credential.parse(f"{client_id}:{api_key}:{api_secret}:{api_secret}") is None
    assert credential.parse(f"{client_id[:-1]}:{api_key}:{api_secret}") is None


def test_one_kind_does_not_pass_for_another() -> None:
    """The checksum covers the prefix: `eph` written over `pat` is seen."""
    assert credential.parse(credential.mint("pat").reveal().replace("_pat_", "_eph_")) is None


def test_the_preview_shows_four_and_four() -> None:
    text = credential.mint("pat").reveal()
    assert credential.preview(text) == f"ost_pat_{text[8:12]}…{text[-4:]}"


def test_the_preview_of_a_triple_shows_nothing_of_its_secret() -> None:
    text = credential.mint_triple(CLIENT_ID).reveal()
    _, api_key, api_secret = text.split(":")
    assert credential.preview(text) == f"{CLIENT_ID}:{credential.preview(api_key)}:…"
    assert api_secret[7:11] not in credential.preview(text)


def test_the_digest_depends_on_pepper_and_text(canaries: Canaries) -> None:
    one, other = Secret(canaries.plant()), Secret(canaries.plant())
    text = credential.mint("pat").reveal()
    assert credential.digest(one, text) == credential.digest(one, text)
    assert credential.digest(one, text) != credential.digest(other, text)
    assert credential.digest(one, text) != credential.digest(one, text[:-1])
    assert len(credential.digest(one, text)) == 32


@pytest.mark.parametrize("pepper", ["p", "x" * 64, "y" * 65, "pépper" * 40])
def test_the_digest_is_hmac_sha256(pepper: str) -> None:
    expected = hmac.digest(pepper.encode(), b"ost_pat_any", "sha256")
    assert credential.digest(Secret(pepper), "ost_pat_any") == expected
