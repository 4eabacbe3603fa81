"""Where a call goes: the addresses of a row, with its fields, the model and the operation filled in (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Final
from urllib.parse import quote

from ostiary.errors import Refusal
from ostiary.providers.provider import Field, Provider

# A template that starts with `/` is put behind the base URL, one with `{origin}` behind the scheme and host of that.
# In braces stand fields of the provider key, `{model}`, and `{path}`: where the dialect has the operation.

_PLACE: Final = re.compile(r"\{([a-z_]+)\}")
_OURS: Final = frozenset({"origin", "model", "path"})
_PLAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,254}[A-Za-z0-9_])?")
"""A field that becomes a part of a host or a path."""
_LABEL: Final = "[A-Za-z0-9_-]+"
_UNFIT: Final = re.compile(r"[/\\\x00-\x1f\x7f]|\.{1,2}\Z")
"""A model that no path can name: escaped or not, such a part is read in two ways."""
_FIXED_TAIL: Final = re.compile(r"[a-z0-9-]*\.[a-z0-9.-]*[a-z0-9-]\.[a-z0-9-]+")
_ANY: Final = "*"


def url_of(provider: Provider, base_url: str, fields: Mapping[str, str], operation: str, path: str, model: str) -> str:
    """Where an operation is called. `path` is the dialect's, and `base_url` has no slash at its end.

    Refusal(model_not_found) when the address has the model in it and cannot have this one.
    """
    template = _template(provider, fields, operation)
    return base_url + path if template is None else _filled(template, base_url, fields, path, model)


def probe_url_of(provider: Provider, base_url: str, fields: Mapping[str, str]) -> str:
    """Where a key is tested; always at the origin of the base URL."""
    style = next((one for one in provider.styles if fields.get(one.when)), None)
    return _filled(style.test if style else provider.test.path, base_url.rstrip("/"), fields, "", "")


def _template(provider: Provider, fields: Mapping[str, str], operation: str) -> str | None:
    if provider.styles:
        for style in provider.styles:
            if fields.get(style.when):
                return style.paths.get(operation) or style.paths.get(_ANY)
    if provider.paths:
        return provider.paths.get(operation) or provider.paths.get(_ANY)
    return None


def _filled(template: str, base_url: str, fields: Mapping[str, str], path: str, model: str) -> str:
    """In one pass, so that nothing that was filled in is read as a template itself."""
    parts = list(_parts(template))
    for place in range(1, len(parts), 2):
        name = parts[place]
        if name == "path":
            parts[place] = path
        elif name == "model":
            parts[place] = _model(model)
        elif name == "origin":
            parts[place] = origin_of(base_url)
        else:
            parts[place] = quote(fields.get(name, ""), safe="")
    url = "".join(parts)
    return url if template.startswith("{origin}") else base_url + url


@cache
def _parts(template: str) -> tuple[str, ...]:
    """Texts, and between them names in braces. There are as many templates as the catalogue has."""
    return tuple(_PLACE.split(template))


def _model(model: str) -> str:
    if not model or _UNFIT.search(model):
        raise Refusal("model_not_found", f"No deployment can be named {model[:200]!r}.", param="model")
    return quote(model, safe="")


# ---- base URLs --------------------------------------------------------------------------------------------------


def places_in(template: str) -> tuple[str, ...]:
    """The fields that stand in an address."""
    return tuple(dict.fromkeys(name for name in _PLACE.findall(template) if name not in _OURS))


def base_url_of(template: str, fields: Mapping[str, str]) -> str:
    """The address with its fields filled in; KeyError names one that is missing."""
    return _PLACE.sub(lambda place: fields[place[1]], template)


def is_fit(field: Field, value: str) -> bool:
    """Whether a value can be a part of an address and lead nowhere else."""
    fits = _PLAIN.fullmatch(value) is not None and ".." not in value
    return fits and (field.pattern is None or re.fullmatch(field.pattern, value) is not None)


def origin_of(url: str) -> str:
    """Scheme, host and port."""
    end = url.find("/", len("https://"))
    return url if end < 0 else url[:end]


def own_address(provider: Provider, origin: str) -> str | None:
    """The row's own base URL at this origin, None where the provider is not at home there.

    A field that is the whole of a host, or all of its domain, says nothing of whose it is.
    """
    for template in filter(None, (provider.base_url, *provider.regions.values())):
        pattern = _host_pattern(provider, origin_of(template))
        if pattern is not None and re.fullmatch(pattern, origin, re.IGNORECASE):
            return template
    return None


def is_fixed(provider: Provider, origin: str) -> bool:
    """Whether the row names this very origin, with no field in it."""
    return any(origin_of(one) == origin for one in (provider.base_url, *provider.regions.values()) if one is not None)


def _host_pattern(provider: Provider, origin: str) -> str | None:
    if not _PLACE.search(origin):
        return re.escape(origin)
    if not _FIXED_TAIL.fullmatch(origin.rpartition("}")[2]):
        return None
    known = {one.name: one.pattern for one in provider.fields}
    parts = _PLACE.split(origin)
    return "".join(
        f"(?:{known.get(part) or _LABEL})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
