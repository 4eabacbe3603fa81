"""Keeps what was asked and answered, sealed, for keys whose owner wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ostiary.gateway.directory import Directory
from ostiary.ledger.events import Event

_MOST: Final = 262_144
"""Bytes of an answer that are looked at; less of it is kept."""


def note(said: bytearray, data: bytes) -> None:
    """Remember a piece of an answer on its way, as long as there is room."""
    if len(said) < _MOST:
        said += data


def capture(directory: Directory, event: Event, fields: Mapping[str, Any], said: bytearray) -> None:
    """Seal it into the event, which carries it through the spool to the ledger, once.

    Nothing is kept where the organization's data key is not at hand: what was said must never lie open. Nor where the
    organization has come to forbid it since the call began.
    """
    sealer, whole = directory.sealers.get(event.organization_id), directory.organizations.get(event.organization_id)
    if sealer is not None and not (whole is not None and whole.capture_is_forbidden):
        request = msgspec.json.encode(fields)
        event.content = sealer.seal(event.request_id, event.attempt, request, bytes(said))
        event.content_version = sealer.version
