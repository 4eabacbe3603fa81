"""What each field of a provider key may hold (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ostiary.actor import Actor
from ostiary.errors import Refusal
from ostiary.providers.address import base_url_of, is_fit, origin_of, own_address, places_in
from ostiary.providers.catalog import Provider
from ostiary.providers.egress import Blocked, Egress, Target
from ostiary.secret import Secret

_LONGEST_SECRET: Final = 16_384
_LONGEST_FIELD: Final = 512


def checked_auth(provider: Provider, auth: str | None) -> str | None:
    """How a key signs in: a method of the row that is built; None is its first."""
    method = provider.find_auth(auth)
    if method is None:
        known = ", ".join(one.id for one in provider.auth)
        raise wrong("auth", f"{provider.name} has no sign-in {str(auth)[:50]!r}; it has {known}.")
    if not method.callable:
        raise wrong("auth", f"The sign-in {method.label!r} of {provider.name} {method.reason}.")
    return auth


def checked_target(
    base_url: str | None, provider: Provider, egress: Egress, fields: Mapping[str, str] | None = None
) -> Target:
    """Where a key goes: the address that is given, or the row's with its fields filled in, judged as one to connect to.

    A region of the row is an address, too. The provider's own host without a path means the row's path on it.
    """
    given = (base_url or provider.base_url or "").strip()
    if not given:
        raise wrong("base_url", f"{provider.name} has no address of its own: give one by --base-url.")
    if "?" in given:
        raise wrong("base_url", "A base URL has no query: paths are put behind it.")
    known = _fit_for_address(provider, fields or {})
    target = _judged(_filled(provider, provider.regions.get(given, given), known), egress)
    own = own_address(provider, target.origin) if target.url.rstrip("/") == target.origin else None
    return target if own is None else _judged(target.origin + _filled(provider, _path_of(own), known), egress)


def moved_target(
    provider: Provider, base_url: str, before: Mapping[str, str], after: Mapping[str, str], egress: Egress
) -> Target | None:
    """Where a key goes once its fields have changed; None when its address was not made of them, or stays."""
    for template in (provider.base_url, *provider.regions.values()):
        if template and places_in(template) and _is_made_of(template, provider, before, base_url, egress):
            target = checked_target(template, provider, egress, after)
            return None if target.url == base_url else target
    return None


def _is_made_of(template: str, provider: Provider, fields: Mapping[str, str], base_url: str, egress: Egress) -> bool:
    try:
        return checked_target(template, provider, egress, fields).url == base_url
    except Refusal:  # a field of it is not there, so it was not made of them
        return False


def _fit_for_address(provider: Provider, fields: Mapping[str, str]) -> dict[str, str]:
    """The fields that may become a part of an address, checked."""
    wanted = {name for template in provider.templates() for name in places_in(template)}
    found = {one.name: fields[one.name] for one in provider.fields if one.name in wanted and fields.get(one.name)}
    for one in provider.fields:
        if one.name in found and not is_fit(one, found[one.name]):
            raise wrong("fields", f"The field {one.name!r} ({one.label}) cannot be a part of an address.")
    return found


def _filled(provider: Provider, template: str, fields: Mapping[str, str]) -> str:
    try:
        return base_url_of(template, fields)
    except KeyError as error:
        name = str(error.args[0])
        label = next((f" ({one.label})" for one in provider.fields if one.name == name), "")
        raise wrong(
            "fields", f"{provider.name} needs the field {name!r}{label}, or its whole address by --base-url."
        ) from None


def _judged(url: str, egress: Egress) -> Target:
    try:
        return egress.check_url(url.rstrip("/"))
    except Blocked as blocked:
        raise wrong("base_url", f"This base URL cannot be used: {blocked.reason}") from None


def _path_of(url: str) -> str:
    return url.removeprefix(origin_of(url))


def require_own_door(
    by: Actor,
    provider: Provider,
    origin: str,
    *,
    shared: bool,
    egress: Egress,  # noqa: ARG001 - what is at home is a matter of the row; who asks hands over what it was judged by
) -> None:
    """A shared key gets other organizations' prompts, so only the operator may point one elsewhere.

    At home a provider is on its own host, or on those that differ only by a field of the row, such as a region.
    """
    if not shared or by.organization_id is None:
        return
    if own_address(provider, origin) is None:
        raise wrong("shared", f"A key that is shared goes to {provider.name}'s own address. Keep this one private.")


def checked_secret(secret: Secret, provider: Provider) -> Secret:
    """The secret without blanks around it. It goes into a header, so it is one word of plain characters."""
    text = secret.reveal().strip()
    if not text and not provider.key_optional:
        raise wrong("secret", "The secret is empty.")
    if len(text) > _LONGEST_SECRET or not all("!" <= letter <= "~" for letter in text):
        raise wrong("secret", "The secret has blanks, line ends or characters that no API key has. Copy it again.")
    return Secret(text)


def checked_fields(
    provider: Provider, given: Mapping[str, str], auth: str | None = None, base_url: str | None = None
) -> dict[str, str]:
    """The fields of the row and of the method, with their defaults; refused: what it has not, or needs and misses.

    Fields that only stand in the row's address are not needed where another `base_url` is given.
    """
    known = {one.name: one for one in provider.fields_of(auth)}
    for name, value in given.items():
        if name not in known:
            fields = ", ".join(known) or "none"
            raise wrong("fields", f"{provider.name} has no field {name!r}; it has {fields}.")
        if len(value) > _LONGEST_FIELD or not all(" " <= letter <= "~" for letter in value):
            raise wrong("fields", f"The field {name!r} must be plain text in one line.")
    values = {name: (given.get(name) or one.default or "").strip() for name, one in known.items()}
    _fit_for_address(provider, values)
    spared = _only_in_address(provider) if base_url and base_url not in provider.regions else frozenset()
    for name, one in known.items():
        if one.required and not values[name] and name not in spared:
            raise wrong("fields", f"{provider.name} needs the field {name!r} ({one.label}).")
    return {name: value for name, value in values.items() if value}


def _only_in_address(provider: Provider) -> frozenset[str]:
    addresses = [text for text in (provider.base_url, *provider.regions.values()) if text]
    elsewhere = [provider.test.path, *provider.paths.values()]
    inside = {name for template in addresses for name in places_in(template)}
    return frozenset(inside - {name for template in elsewhere for name in places_in(template)})


def preview(secret: Secret) -> str:
    """What may be shown of it."""
    return secret.preview() if secret else ""


def wrong(param: str, message: str) -> Refusal:
    """The refusal that names a field."""
    return Refusal("invalid_field", message, param=param)
