"""What people may call things: one rule for every noun."""

from __future__ import annotations

import unicodedata
from typing import Final

from ostiary.errors import Refusal

LONGEST_NAME: Final = 200
_LONGEST_EMAIL: Final = 320


def checked_name(text: str, param: str = "name") -> str:
    """The name as it is stored, or a refusal: one line of visible characters, composed, without spaces at the ends.

    Control and direction-changing characters, lone surrogates and NUL (which PostgreSQL refuses) do not pass.
    """
    name = unicodedata.normalize("NFC", text.strip())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise Refusal("invalid_field", f"{param} must be 1 to {LONGEST_NAME} visible characters.", param=param)
    return name


def sought_name(text: str) -> str | None:
    """What to look for when asked for `text`; None when nothing can be called so."""
    try:
        return checked_name(text)
    except Refusal:
        return None


def checked_email(text: str) -> str:
    """An e-mail address as it is stored and compared: in lower case. Only its outline is checked."""
    email = unicodedata.normalize("NFC", text.strip()).lower()
    user, at, host = email.rpartition("@")
    if len(email) > _LONGEST_EMAIL or not (user and at and host) or " " in email or not email.isprintable():
        raise Refusal("invalid_field", "email must be an address such as alice@example.org.", param="email")
    return email
