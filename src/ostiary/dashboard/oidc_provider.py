"""The OpenID provider that the operator has named: what it says of itself, its keys, and what it gives for a code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from ostiary.clock import SECOND_MS, Clock
from ostiary.errors import CannotStart, Refusal
from ostiary.logs import get
from ostiary.providers.egress import Blocked, Egress
from ostiary.providers.transport import Transport, TransportError, Waits
from ostiary.secret import Secret
from ostiary.settings import Settings

_DISCOVERY: Final = "/.well-known/openid-configuration"
_WAITS: Final = Waits(connect_s=5, first_byte_s=10, idle_s=5, total_s=15)
_LONGEST: Final = 256 * 1024
_KEPT_MS: Final = 3_600 * SECOND_MS
_SOONEST_MS: Final = 60 * SECOND_MS
"""How soon keys are asked for again: whoever makes up key ids must not make us ask at each."""
_NEEDED: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_SIGNED_BY: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"})
"""Signatures by a key that only the provider has."""
_OK: Final = 200


@dataclass(slots=True)
class Oidc:
    """Asks the provider, through the egress guard, and keeps what seldom changes for an hour."""

    issuer: str
    client_id: str
    client_secret: Secret
    name: str
    domains: tuple[str, ...]
    transport: Transport
    egress: Egress
    clock: Clock
    _metadata: tuple[int, dict[str, Any]] | None = field(default=None, repr=False)
    _keys: tuple[int, dict[str, Any]] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings, transport: Transport, egress: Egress, clock: Clock) -> Oidc | None:
        """As the settings name it; None where they name none. Raises CannotStart on half a setting."""
        issuer, id_, secret = settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret
        if issuer is None and id_ is None and secret is None:
            return None
        if issuer is None or id_ is None or secret is None:
            raise CannotStart("OSTIARY_OIDC_ISSUER, OSTIARY_OIDC_CLIENT_ID and OSTIARY_OIDC_CLIENT_SECRET go together.")
        try:
            egress.check_url(issuer)
        except Blocked as blocked:
            raise CannotStart(f"OSTIARY_OIDC_ISSUER cannot be used: {blocked.reason}") from None
        return cls(issuer, id_, secret, settings.oidc_name, settings.oidc_domains, transport, egress, clock)

    async def metadata(self) -> dict[str, Any]:
        """What the provider says of itself. It must be who it was named as, and lead to where we may connect."""
        now = self.clock.now()
        if self._metadata is not None and 0 <= now - self._metadata[0] < _KEPT_MS:
            return self._metadata[1]
        found = await self._get(self.issuer.rstrip("/") + _DISCOVERY, {})
        if found.get("issuer") != self.issuer:
            raise _unfit("it names another issuer than OSTIARY_OIDC_ISSUER")
        for name in _NEEDED:
            try:
                self.egress.check_url(str(found.get(name)))
            except Blocked as blocked:
                raise _unfit(f"its {name} cannot be used: {blocked.reason}") from None
        if "S256" not in (found.get("code_challenge_methods_supported") or ["S256"]):
            raise _unfit("it does not know PKCE with S256")
        said = found.get("id_token_signing_alg_values_supported")
        known = [one for one in said if one in _SIGNED_BY] if isinstance(said, list) else ["RS256"]
        if not known:
            raise _unfit("it signs tokens in no way that only it could")
        found["id_token_signing_alg_values_supported"] = known
        self._metadata = (now, found)
        return found

    async def keys(self, *, anew: bool = False) -> dict[str, Any]:
        """Its public keys; `anew` for when a token names one that is not among them."""
        now = self.clock.now()
        if self._keys is not None and 0 <= now - self._keys[0] < (_SOONEST_MS if anew else _KEPT_MS):
            return self._keys[1]
        found = await self._get((await self.metadata())["jwks_uri"], {})
        self._keys = (now, found)
        return found

    async def redeem(self, form: Mapping[str, str], headers: Mapping[str, str], body: str) -> dict[str, Any]:
        """What the provider gives for a code; `headers` and `body` say who we are."""
        url = (await self.metadata())["token_endpoint"]
        sent = urlencode(form) + (f"&{body}" if body else "")
        kind = {"content-type": "application/x-www-form-urlencoded", **headers}
        return await self._ask("POST", url, kind, sent.encode())

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """What it tells of who has signed in, where the token of identity does not; empty where it has no such page."""
        url = (await self.metadata()).get("userinfo_endpoint")
        return await self._get(url, {"authorization": f"Bearer {access_token}"}) if isinstance(url, str) else {}

    async def _get(self, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        return await self._ask("GET", url, headers, None)

    async def _ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> dict[str, Any]:
        named = [("accept", "application/json"), ("user-agent", "ostiary"), *headers.items()]
        try:
            answer = await self.transport.send(method, url, named, body, _WAITS)
            text = await answer.read(_LONGEST)
        except TransportError as error:
            raise _unfit(f"it was not reached: {error.text}") from None
        try:
            found = msgspec.json.decode(text)
        except msgspec.DecodeError:
            found = None
        if answer.status != _OK or not isinstance(found, dict):
            code = found.get("error") if isinstance(found, dict) else None
            raise _unfit(f"it answered {answer.status}{f' ({str(code)[:50]})' if code else ''}")
        return found


def _unfit(why: str) -> Refusal:
    """For the log in full: who signs in cannot mend it."""
    get("dashboard").warning("oidc.failed", reason=why)
    said = "Signing in by the OpenID provider does not work now. Tell the operator; the log says why."
    return Refusal("service_unavailable", said)
