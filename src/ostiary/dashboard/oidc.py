"""Signing in at the OpenID provider: there by a link, back with a code, and only in the browser that went."""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import quote, unquote

from ostiary.clock import SECOND_MS
from ostiary.dashboard import entrance, sign_in
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.oidc_provider import Oidc
from ostiary.dashboard.oidc_token import Attempt, Identity, address, identify
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.orgs import link_store, tokens
from ostiary.orgs import oidc as people
from ostiary.orgs import sign_in as entry
from ostiary.secret import Secret

_COOKIE: Final = "ostiary_oidc"
_VALID_S: Final = 600
_KIND: Final = "oidc"
_CALLBACK: Final = f"{HOME}/oidc/callback"
_LONGEST_NEXT: Final = 1_000
_GONE: Final = "This way back was not begun in this browser, or was used already. Sign in anew."


async def start(visit: Visit) -> Answer:
    """To the provider. What comes back is bound to this browser by a cookie that lives for ten minutes.

    Nothing is kept here: anybody may ask, as often as they like.
    """
    oidc = _oidc(visit)
    token = f"{tokens.mint().reveal()}.{visit.at}"
    wanted = visit.query.text("next")[:_LONGEST_NEXT]
    is_proof = visit.query.text("why") == "proof"
    try:
        where = await address(oidc, _attempt(visit, token), is_proof=is_proof)
    except Refusal as refusal:
        return sign_in.form(visit, refusal)
    visit.cookies.append(_cookie(visit, f"{token}.{quote(wanted, safe='')}"))
    return Answer(303, b"", [(b"location", where.encode("ascii")), (b"cache-control", b"no-store")])


async def callback(visit: Visit) -> Answer:
    """Back from the provider: each way back can be gone once."""
    oidc = _oidc(visit)
    minted, _, rest = _sent(visit).partition(".")
    begun, _, wanted = rest.partition(".")
    visit.cookies.append(_cookie(visit, ""))
    try:
        attempt = _begun(visit, minted, begun)
        async with visit.reading() as tx:
            if await link_store.was_spent(tx, tokens.kept(Secret(minted)), _KIND):
                raise Refusal("invalid_request", _GONE)  # noqa: TRY301 - answered like every other refusal
        identity = await identify(oidc, attempt, await _code(visit, oidc))
        done = await _let_in(visit, oidc, identity, tokens.kept(Secret(minted)))
    except Refusal as refusal:
        return sign_in.form(visit, refusal, wanted=unquote(wanted))
    visit.cookies.append(entrance.cookie(visit.hall, done.token))
    return visit.go(unquote(wanted) or HOME)


async def _code(visit: Visit, oidc: Oidc) -> str:
    """What the provider gave, if it is the one that was asked (RFC 9207), and gave it."""
    query = visit.query
    if query.text("iss") not in ("", (await oidc.metadata())["issuer"]):
        raise Refusal("invalid_request", "The answer is not from the OpenID provider that you were sent to.")
    if query.has("error") or not query.text("code"):
        raise Refusal("invalid_request", f"The OpenID provider did not sign you in: {_why(visit)}.")
    return query.text("code")


def _begun(visit: Visit, minted: str, begun: str) -> Attempt:
    """What this browser was sent away with, and when: the state that comes back was derived from both."""
    attempt = _attempt(visit, f"{minted}.{begun}")
    is_ours = hmac.compare_digest(visit.query.text("state").encode(), attempt.state.encode())
    is_token = tokens.digest(minted) is not None and begun.isascii() and begun.isdigit()
    if is_ours and is_token and abs(visit.at - int(begun[:15])) < _VALID_S * SECOND_MS:
        return attempt
    raise Refusal("invalid_request", _GONE)


async def _let_in(visit: Visit, oidc: Oidc, identity: Identity, digest: bytes) -> entry.SignedIn:
    async with visit.writing() as tx:
        until = visit.at + _VALID_S * SECOND_MS
        if not await link_store.spend_new(tx, digest, _KIND, at=visit.at, expires_at=until):
            raise Refusal("invalid_request", _GONE)
        user = await people.find_or_link(
            tx,
            identity.issuer,
            identity.subject,
            identity.email,
            identity.is_verified,
            identity.name,
            visit.at,
            domains=oidc.domains,
        )
        await sign_in.end_old(tx, visit)
        return await entry.let_in(
            tx,
            user,
            visit.at,
            address=visit.address,
            agent=visit.agent,
            how="oidc",
            proved_at=identity.proved_at,
        )


def _attempt(visit: Visit, token: str) -> Attempt:
    """State, nonce and verifier are told from the cookie: there is nothing else to keep, or to mix up."""
    state, nonce, verifier = (tokens.derived(token, f"oidc {part}") for part in ("state", "nonce", "verifier"))
    return Attempt(state, nonce, verifier, _origin(visit) + _CALLBACK)


def _origin(visit: Visit) -> str:
    """As people reach us; where nobody has said how, as this request did: the provider takes what it knows alone."""
    public = visit.hall.settings.public_url
    return public or f"http://{visit.line.headers.get(b'host', b'').decode('latin-1')}"


def _oidc(visit: Visit) -> Oidc:
    if visit.hall.oidc is None:
        raise Refusal("not_found", "There is no such page.")
    return visit.hall.oidc


def _why(visit: Visit) -> str:
    said = visit.query.text("error_description") or visit.query.text("error") or "it gave no code"
    return said[:200].rstrip(".")


def _name(visit: Visit) -> str:
    return f"__Host-{_COOKIE}" if visit.hall.is_https else _COOKIE


def _sent(visit: Visit) -> str:
    pairs = b"; ".join(visit.line.all_of(b"cookie")).decode("latin-1").split(";")
    found = [
        value.strip() for name, _, value in (pair.partition("=") for pair in pairs) if name.strip() == _name(visit)
    ]
    return found[-1] if found else ""


def _cookie(visit: Visit, value: str) -> str:
    tail = "; Secure" if visit.hall.is_https else ""
    return f"{_name(visit)}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={_VALID_S if value else 0}{tail}"
