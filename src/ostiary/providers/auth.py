"""What a call carries of a provider key: the credential, the fields that are headers, and the row's own (pure)."""

from __future__ import annotations

from collections.abc import Mapping

from ostiary.providers.provider import AuthMethod, Provider
from ostiary.secret import Secret


def headers(
    provider: Provider, fields: Mapping[str, str], secret: Secret, auth: str | None = None
) -> list[tuple[str, str]]:
    """What a call to the provider carries of a key that signs in by `auth`: the first method of the row for None.

    A method that the row has no more is taken for its first: the provider says then what it thinks of it.
    """
    method = provider.find_auth(auth) or provider.auth[0]
    return _signed(provider, fields, secret, method)


def probe_headers(
    provider: Provider, fields: Mapping[str, str], secret: Secret, auth: str | None = None
) -> list[tuple[str, str]]:
    """As `headers`, for the test of a key, which may sign in in a way of its own."""
    if provider.test.auth is None:
        return headers(provider, fields, secret, auth)
    return _signed(provider, fields, secret, provider.test.auth)


def _signed(provider: Provider, fields: Mapping[str, str], secret: Secret, method: AuthMethod) -> list[tuple[str, str]]:
    asked = provider.fields + method.fields
    sent = [*provider.headers, *method.headers]
    sent += [(one.header, fields[one.name]) for one in asked if one.header and fields.get(one.name)]
    if secret:
        sent.append((method.header, method.format.replace("{key}", secret.reveal())))
    return sent
