"""What browsers load beside the pages: built from frontend/, kept in memory, cached for good as long as they stay."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Final

from ostiary.dashboard.answers import Answer
from ostiary.errors import CannotStart, Refusal

PREFIX: Final = "/dashboard/static/"
_FOLDER: Final = Path(__file__).with_name("static")
_KINDS: Final = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
}
_DIGITS: Final = 12


class Assets:
    """Read once, at the first page that is asked for."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        files = sorted(path for path in folder.glob("*") if path.suffix in _KINDS) if folder.is_dir() else []
        if not files:
            raise CannotStart(
                "The dashboard's assets are not built. 'uv sync --reinstall-package ostiary' builds them."
            )
        self._files = {path.name: path.read_bytes() for path in files}
        self._packed = {
            name: gzip.compress(body, 9, mtime=0) for name, body in self._files.items() if not name.endswith(".woff2")
        }
        self._marks = {name: hashlib.sha256(body).hexdigest()[:_DIGITS] for name, body in self._files.items()}

    def url(self, name: str) -> str:
        """Where a file is found, as it is now."""
        return f"{PREFIX}{name}?v={self._marks[name]}"

    def answer(self, path: str, query: bytes, accepted: bytes) -> Answer:
        """A file by its path; who asks for it as it is now keeps it for a year."""
        name = path.removeprefix(PREFIX)
        if name not in self._files:
            raise Refusal("not_found")
        is_current = query == f"v={self._marks[name]}".encode()
        keeps = b"public, max-age=31536000, immutable" if is_current else b"public, max-age=3600"
        headers = [
            (b"content-type", _KINDS[Path(name).suffix].encode()),
            (b"cache-control", keeps),
            (b"vary", b"accept-encoding"),
        ]
        packed = self._packed.get(name)
        if packed is None or b"gzip" not in accepted:
            return Answer(200, self._files[name], headers)
        return Answer(200, packed, [*headers, (b"content-encoding", b"gzip")])
