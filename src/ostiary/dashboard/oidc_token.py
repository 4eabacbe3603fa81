"""One sign-in at the OpenID provider as Authlib speaks it: PKCE, the code, and the signed token of identity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from authlib.integrations.base_client.async_openid import AsyncOpenIDMixin  # type: ignore[import-untyped]
from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]
from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]

from ostiary.clock import SECOND_MS
from ostiary.dashboard.oidc_provider import Oidc
from ostiary.errors import Refusal
from ostiary.logs import get

_LATEST_S: Final = 1 << 40
_SCOPE: Final = "openid email profile"
_LEEWAY_S: Final = 60
_WAYS: Final = ("client_secret_basic", "client_secret_post")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What binds an answer of the provider to the browser that was sent there: all told from its cookie."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the provider says has signed in."""

    issuer: str
    subject: str
    email: str | None
    is_verified: bool
    name: str | None
    proved_at: int
    """When they last proved to the provider who they are, in milliseconds; 0 where it does not say."""


async def address(oidc: Oidc, attempt: Attempt, *, is_proof: bool) -> str:
    """Where to send the browser; `is_proof` has the provider ask again who it is."""
    metadata = await oidc.metadata()
    more = {"prompt": "login", "max_age": "0"} if is_proof else {}  # with a max_age it must say when (auth_time)
    url: str = prepare_grant_uri(
        metadata["authorization_endpoint"],
        oidc.client_id,
        "code",
        redirect_uri=attempt.redirect_uri,
        scope=_SCOPE,
        state=attempt.state,
        nonce=attempt.nonce,
        code_challenge=create_s256_code_challenge(attempt.verifier),
        code_challenge_method="S256",
        **more,
    )
    return url


async def identify(oidc: Oidc, attempt: Attempt, code: str) -> Identity:
    """Exchange a code and read who it is for; refuses what the provider has not signed for us and for this browser."""
    metadata = await oidc.metadata()
    given = await _redeem(oidc, metadata, attempt, code)
    claims = await _claims(oidc, metadata, given, attempt.nonce)
    told = dict(claims)
    if told.get("email") is None and isinstance(given.get("access_token"), str):
        more = await oidc.userinfo(given["access_token"])
        if more and more.get("sub") != claims["sub"]:
            raise _refused("the page about the user is about another one")
        told = {**more, **told}
    return Identity(
        metadata["issuer"],
        str(claims["sub"]),
        _text(told, "email"),
        told.get("email_verified") is True,
        _text(told, "name"),
        _moment(claims.get("auth_time")),
    )


def _moment(told: object) -> int:
    return told * 1_000 if isinstance(told, int) and not isinstance(told, bool) and 0 < told < _LATEST_S else 0


async def _redeem(oidc: Oidc, metadata: dict[str, Any], attempt: Attempt, code: str) -> dict[str, Any]:
    known = metadata.get("token_endpoint_auth_methods_supported") or _WAYS
    way = next((one for one in _WAYS if one in known), _WAYS[0])
    auth = ClientAuth(oidc.client_id, oidc.client_secret.reveal(), way)
    _, headers, body = auth.prepare("POST", metadata["token_endpoint"], {}, "")
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": attempt.redirect_uri,
        "code_verifier": attempt.verifier,
    }
    named = {name.lower(): value for name, value in headers.items() if name.lower() == "authorization"}
    return await oidc.redeem(form, named, body or "")


class _Token(CodeIDToken):  # type: ignore[misc]
    """Judged by our own clock."""

    def __init__(self, now_s: int, *parts: Any) -> None:  # noqa: ANN401 - Authlib's
        super().__init__(*parts)
        self._now_s = now_s

    def validate(self, now: int | None = None, leeway: int = 0) -> None:
        super().validate(self._now_s if now is None else now, leeway)


class _Reader(AsyncOpenIDMixin):  # type: ignore[misc]
    """Reads tokens of identity; what it needs to know comes through the egress guard."""

    def __init__(self, oidc: Oidc, metadata: dict[str, Any]) -> None:
        self.client_id = oidc.client_id
        self._oidc = oidc
        self._metadata = metadata

    async def load_server_metadata(self) -> dict[str, Any]:
        return self._metadata

    async def fetch_jwk_set(self, force: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - as Authlib calls it
        return await self._oidc.keys(anew=force)


async def _claims(oidc: Oidc, metadata: dict[str, Any], given: dict[str, Any], nonce: str) -> dict[str, Any]:
    wanted = {
        "iss": {"essential": True, "value": metadata["issuer"]},
        "aud": {"essential": True, "value": oidc.client_id},
        "sub": {"essential": True},
        "exp": {"essential": True},
        "nonce": {"essential": True, "value": nonce},
    }
    judged = partial(_Token, oidc.clock.now() // SECOND_MS)
    try:
        found = await _Reader(oidc, metadata).parse_id_token(given, nonce, wanted, judged, _LEEWAY_S)
    except Refusal:
        raise
    except Exception as error:  # noqa: BLE001 - whatever an unsound token does to its reader, nobody is let in
        raise _refused(f"{type(error).__name__}: {str(error)[:200]}") from None
    if found is None:
        raise _refused("no token of identity was given")
    return dict(found)


def _text(claims: dict[str, Any], name: str) -> str | None:
    found = claims.get(name)
    return found if isinstance(found, str) and found else None


def _refused(why: str) -> Refusal:
    get("dashboard").warning("oidc.refused", reason=why)
    said = "What the OpenID provider answered cannot be trusted. Try again; the log of the gateway says why."
    return Refusal("invalid_request", said)
