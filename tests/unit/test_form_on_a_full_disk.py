"""A disk that is full when the last boundary is written refuses the form, as it does before."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostiary.errors import Refusal
from ostiary.gateway.form import _Reading
from ostiary.providers.upload import IN_MEMORY, Upload

MARK = "bound"


def fed(folder: Path, size: int) -> _Reading:
    """A form whose file has so many bytes, read to its end."""
    reading = _Reading(MARK, Upload(folder), ("file",))
    model = f'--{MARK}\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    file = f'--{MARK}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    reading.feed((model + file).encode() + bytes(size) + f"\r\n--{MARK}--\r\n".encode())
    return reading


def test_the_last_boundary_is_refused_as_any_other_piece(tmp_path: Path) -> None:
    folder = tmp_path / "file" / "uploads"  # cannot be made: nothing can be written
    folder.parent.write_bytes(b"")
    wrapping = fed(folder, 0).upload.size
    reading = fed(folder, IN_MEMORY - wrapping)
    assert (reading.upload.size, reading.upload.is_on_disk) == (IN_MEMORY, False)
    with pytest.raises(Refusal, match="disk") as late:
        reading.finish()
    with pytest.raises(Refusal, match="disk") as early:
        fed(folder, IN_MEMORY + 1)
    assert (late.value.code, late.value.status) == (early.value.code, early.value.status)
    assert late.value.code == "service_unavailable"
