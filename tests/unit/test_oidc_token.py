"""What an OpenID provider may answer, and what of it lets somebody in."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from ostiary.dashboard.oidc_provider import Oidc
from ostiary.dashboard.oidc_token import Attempt, address, identify
from ostiary.errors import Refusal
from ostiary.providers.egress import Egress
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from tests.fakes import SetClock
from tests.people import NOW

ISSUER = "https://login.example.org"
SECRET = "a client secret that is long enough to sign with"
OURS, ANOTHERS = RSAKey.generate_key(2048, {"kid": "1"}), RSAKey.generate_key(2048, {"kid": "1"})
ATTEMPT = Attempt("state", "nonce", "v" * 64, "https://gate.example.org/dashboard/oidc/callback")
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/auth",
    "token_endpoint": f"{ISSUER}/token",
    "jwks_uri": f"{ISSUER}/keys",
    "userinfo_endpoint": f"{ISSUER}/me",
    "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
}
CLAIMS = {"iss": ISSUER, "sub": "bob", "aud": "ostiary", "exp": NOW // 1000 + 60, "iat": NOW // 1000, "nonce": "nonce"}


@dataclass
class Answered:
    """What the transport gives."""

    body: bytes
    status: int = 200

    async def read(self, _limit: int) -> bytes:
        return self.body


@dataclass
class Wire:
    """A transport that leads to a provider in this process."""

    metadata: dict[str, Any] = field(default_factory=lambda: dict(METADATA))
    token: str = ""
    user: dict[str, Any] = field(default_factory=lambda: {"sub": "bob", "email": "bob@example.org"})
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def send(self, _method: str, url: str, headers: list[tuple[str, str]], body: bytes, _waits: Any) -> Answered:
        self.asked.append((url, dict(headers), body))
        answers = {
            f"{ISSUER}/.well-known/openid-configuration": self.metadata,
            f"{ISSUER}/keys": {"keys": [OURS.as_dict(private=False)]},
            f"{ISSUER}/token": {"access_token": "opaque", "token_type": "Bearer", "id_token": self.token},
            f"{ISSUER}/me": self.user,
        }
        return Answered(json.dumps(answers[url]).encode())


def oidc(wire: Wire) -> Oidc:
    clock = SetClock(NOW)
    transport = cast("Transport", wire)
    return Oidc(ISSUER, "ostiary", Secret(SECRET), "Acme", (), transport, Egress(()), clock)


def signed(key: Any = OURS, alg: str = "RS256", **changed: Any) -> str:
    claims = {name: value for name, value in {**CLAIMS, **changed}.items() if value is not None}
    return jwt.encode({"alg": alg, "kid": "1"}, claims, key, algorithms=[alg])


async def test_who_is_signed_in_is_told_by_the_token_and_the_page_about_the_user() -> None:
    wire = Wire(token=signed())
    wire.user |= {"email_verified": True, "name": "Bob"}
    found = await identify(oidc(wire), ATTEMPT, "code")
    assert (found.issuer, found.subject, found.email, found.is_verified, found.name) == (
        *(ISSUER, "bob", "bob@example.org"),
        *(True, "Bob"),
    )
    sent = next(body for url, _, body in wire.asked if url.endswith("/token"))
    form = {name: values[0] for name, values in parse_qs(sent.decode()).items()}
    assert form["code_verifier"] == ATTEMPT.verifier
    assert form["redirect_uri"] == ATTEMPT.redirect_uri
    assert SECRET not in sent.decode()


async def test_a_browser_is_sent_with_a_challenge_and_without_the_verifier() -> None:
    url = await address(oidc(Wire()), ATTEMPT, is_proof=True)
    asked = parse_qs(url.partition("?")[2])
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["prompt"] == ["login"]
    assert ATTEMPT.verifier not in url


def unsigned() -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, CLAIMS)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: signed(nonce="another"), id="another browser's"),
        pytest.param(lambda: signed(nonce=None), id="without a nonce"),
        pytest.param(lambda: signed(aud="another"), id="for another client"),
        pytest.param(lambda: signed(aud=None), id="for nobody"),
        pytest.param(lambda: signed(iss="https://evil.example"), id="of another issuer"),
        pytest.param(lambda: signed(exp=NOW // 1000 - 3600), id="expired"),
        pytest.param(lambda: signed(exp=None), id="for ever"),
        pytest.param(lambda: signed(sub=None), id="of nobody"),
        pytest.param(lambda: signed(key=ANOTHERS), id="signed by another"),
        pytest.param(lambda: signed(key=OctKey.import_key(SECRET), alg="HS256"), id="signed by what we know"),
        pytest.param(unsigned, id="not signed"),
        pytest.param(lambda: "no.token.atall", id="no token"),
    ],
)
async def test_a_token_that_is_not_for_us_lets_nobody_in(token: Any) -> None:
    with pytest.raises(Refusal) as caught:
        await identify(oidc(Wire(token=token())), ATTEMPT, "code")
    assert caught.value.code == "invalid_request"
    assert SECRET not in str(caught.value)


async def test_a_page_about_another_user_is_not_believed() -> None:
    with pytest.raises(Refusal, match="cannot be trusted"):
        await identify(oidc(Wire(token=signed(), user={"sub": "eve", "email": "bob@example.org"})), ATTEMPT, "code")


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "http://169.254.169.254/token"},
        {"jwks_uri": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"code_challenge_methods_supported": ["plain"]},
        {"id_token_signing_alg_values_supported": ["none", "HS256"]},
    ],
    ids=str,
)
async def test_a_provider_that_says_something_unsound_is_not_used(changed: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        await oidc(Wire(metadata=METADATA | changed)).metadata()
    assert caught.value.code == "service_unavailable"


async def test_keys_are_not_asked_for_at_every_made_up_id() -> None:
    wire = Wire(token=signed())
    known = oidc(wire)
    for _ in range(5):
        await known.keys(anew=True)
    assert [url for url, _, _ in wire.asked].count(f"{ISSUER}/keys") == 1
