"""The OpenID provider is real: it says what it can, signs in who gives a name, and takes nothing but PKCE."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.servers.browser import Window
from tests.servers.oidc import OidcMaker
from tests.servers.upstream import Upstream

_REDIRECT = "http://127.0.0.1:9/callback"


@pytest.fixture
def http() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=20) as client:
        yield client


def challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def test_oidc_signs_in_with_pkce(window: Window, oidc: OidcMaker, upstream: Upstream, http: httpx2.Client) -> None:
    redirect = f"{upstream.origin}/models"
    made = oidc(redirect, accounts={"Mallory": {"sub": "m-1", "email": "alice@example.org", "email_verified": False}})
    known = http.get(made.discovery).raise_for_status().json()
    assert known["issuer"] == made.issuer
    assert "S256" in known["code_challenge_methods_supported"]
    for claims in (
        {"sub": "bob", "name": "Bob", "email": "bob@example.org", "email_verified": True},
        {"sub": "m-1", "name": "Mallory", "email": "alice@example.org", "email_verified": False},
    ):
        window.context.clear_cookies()
        verifier, state, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(), secrets.token_urlsafe()
        asked = {
            "client_id": made.client_id,
            "response_type": "code",
            "redirect_uri": redirect,
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge(verifier),
            "code_challenge_method": "S256",
        }
        window.allow(upstream.origin)
        page = window.open(str(httpx2.URL(known["authorization_endpoint"], params=asked)))
        page.get_by_label("Name").fill(str(claims["name"]))
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{redirect}?**")
        came = httpx2.URL(page.url).params
        assert (came["state"], came["iss"]) == (state, made.issuer)
        form = {"grant_type": "authorization_code", "code": came["code"], "redirect_uri": redirect}
        client = (made.client_id, made.client_secret)
        wrong = http.post(known["token_endpoint"], data=form | {"code_verifier": "x" * 43}, auth=(client[0], "no"))
        assert wrong.status_code == 401
        token = http.post(known["token_endpoint"], data=form | {"code_verifier": verifier}, auth=client).json()
        keys = KeySet.import_key_set(http.get(known["jwks_uri"]).json())
        signed = jwt.decode(token["id_token"], keys).claims
        assert (signed["iss"], signed["aud"], signed["nonce"]) == (made.issuer, made.client_id, nonce)
        assert signed["sub"] == claims["sub"]
        bearer = {"authorization": f"Bearer {token['access_token']}"}
        assert http.get(known["userinfo_endpoint"], headers=bearer).json() == claims


def test_oidc_takes_one_redirect_and_only_pkce(oidc: OidcMaker, http: httpx2.Client) -> None:
    made = oidc(_REDIRECT, client_id="gate", client_secret="gate-secret-of-a-test")
    asked = {"client_id": "gate", "response_type": "code", "redirect_uri": _REDIRECT, "scope": "openid", "state": "s"}
    without = http.get(f"{made.issuer}/auth", params=asked)
    assert "PKCE" in httpx2.URL(without.headers["location"]).params["error_description"]
    elsewhere = http.get(f"{made.issuer}/auth", params=asked | {"redirect_uri": "http://127.0.0.1:9/other"})
    assert elsewhere.status_code == 400


def test_oidc_refuses(window: Window, oidc: OidcMaker, upstream: Upstream) -> None:
    redirect = f"{upstream.origin}/models"
    made = oidc(redirect)
    window.allow(upstream.origin)
    asked = {
        "client_id": made.client_id,
        "response_type": "code",
        "redirect_uri": redirect,
        "scope": "openid",
        "code_challenge": challenge("v" * 43),
        "code_challenge_method": "S256",
    }
    page = window.open(str(httpx2.URL(f"{made.issuer}/auth", params=asked)))
    page.get_by_role("button", name="Refuse").click()
    page.wait_for_url(f"{redirect}?**")
    assert httpx2.URL(page.url).params["error"] == "access_denied"
