"""Every setting in one frozen record; the only reader of the environment."""

from __future__ import annotations

import difflib
import os
import re
import socket
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal

import platformdirs

from ostiary.errors import CannotStart
from ostiary.readers import (
    Network,
    UnfitError,
    a_path,
    a_secret,
    a_switch,
    a_text,
    a_token,
    a_url,
    a_whole,
    an_issuer,
    domains,
    networks,
    one_of,
    origins,
)
from ostiary.secret import Secret

_PREFIX: Final = "OSTIARY_"
_FILE: Final = "_FILE"
_CONFIG: Final = "OSTIARY_CONFIG"
_DOCKER_SECRETS: Final = Path("/run/secrets")
_MAX_PORT: Final = 65_535
_MAX_DRAIN_S: Final = 30
_MAX_FILE_BYTES: Final = 100_000
_SERVICE_LINK: Final = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)")


# ---- the record ---------------------------------------------------------------------------------------------------


def _as(read: Callable[[object], object], says: str) -> dict[str, object]:
    return {"read": read, "says": says}


def _user_data_dir() -> Path:
    return Path(platformdirs.user_data_dir("ostiary", appauthor=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a person can choose about one process. Made by `load`; directly only in tests."""

    host: str = field(default="127.0.0.1", metadata=_as(a_text, "The address to listen on."))
    port: int = field(default=8420, metadata=_as(a_whole(0, _MAX_PORT), "The port to listen on; 0 takes a free one."))
    data_dir: Path = field(
        default_factory=_user_data_dir,
        metadata=_as(
            a_path, "The folder for the embedded database, its master key file and the spool; one `serve` per folder."
        ),
    )
    database_url: str | None = field(
        default=None,
        repr=False,
        metadata=_as(
            a_text,
            "Where the database is: `postgresql://USER@HOST/NAME` or `sqlite:///PATH`. "
            "Default: SQLite in the data folder.",
        ),
    )
    master_key: Secret | None = field(
        default=None,
        repr=False,
        metadata=_as(
            a_secret,
            "The master keys of the vault, comma-separated; the first one seals, all of them open. "
            "Default, only with the embedded database: a key file in the data folder, made at the first start.",
        ),
    )
    egress_allow: tuple[str, ...] = field(
        default=(),
        metadata=_as(
            origins, "Origins that may be private or plain http, comma-separated, such as `http://127.0.0.1:9000`."
        ),
    )
    public_url: str | None = field(
        default=None, metadata=_as(a_url, "The URL under which people and agents reach this gateway.")
    )
    trusted_proxies: tuple[Network, ...] = field(
        default=(), metadata=_as(networks, "Networks whose `X-Forwarded-For` is believed, comma-separated CIDRs.")
    )
    smtp_url: Secret | None = field(
        default=None,
        repr=False,
        metadata=_as(
            a_secret,
            "The mail server for notifications: `smtp://USER:PASSWORD@HOST:587` (with STARTTLS, unless the host is "
            "this machine or `?tls=none` follows) or `smtps://USER:PASSWORD@HOST:465`. Without it no mail is sent.",
        ),
    )
    mail_from: str | None = field(
        default=None,
        metadata=_as(a_text, "Who mails are from, such as `Ostiary <ostiary@example.org>`; needed with a mail server."),
    )
    oidc_issuer: str | None = field(
        default=None,
        metadata=_as(
            an_issuer, "The OpenID provider at which people may sign in to the dashboard, as it names itself."
        ),
    )
    oidc_client_id: str | None = field(
        default=None,
        metadata=_as(a_text, "As what it knows us, with the redirect `PUBLIC_URL/dashboard/oidc/callback`."),
    )
    oidc_client_secret: Secret | None = field(
        default=None, repr=False, metadata=_as(a_secret, "The secret of this client at the OpenID provider.")
    )
    oidc_name: str = field(default="single sign-on", metadata=_as(a_text, "What the button says that leads there."))
    oidc_domains: tuple[str, ...] = field(
        default=(), metadata=_as(domains, "Domains whose verified addresses are made users who see nothing as yet.")
    )
    operator_token: Secret | None = field(
        default=None,
        repr=False,
        metadata=_as(
            a_token,
            "What a monitor sends as `Authorization: Bearer …` to read `/metrics` and `/health/details`: 32 characters "
            "or more, such as `openssl rand -hex 32` makes. Without it there are no such pages.",
        ),
    )
    otlp_endpoint: str | None = field(
        default=None,
        metadata=_as(
            a_url,
            "The OpenTelemetry collector that gets spans of calls by OTLP/HTTP, such as `http://127.0.0.1:4318`; "
            "`/v1/traces` is appended. Needs `ostiary[otel]` to be installed.",
        ),
    )
    otlp_headers: Secret | None = field(
        default=None,
        repr=False,
        metadata=_as(
            a_secret,
            "Headers that it wants, such as a credential: `name=value`, comma-separated, escaped with %.",
        ),
    )
    spool_sync: Literal["normal", "full"] = field(
        default="normal",
        metadata=_as(
            one_of("normal", "full"),
            "What a settled call survives: `normal` the death of the process, `full` a power cut too, more slowly.",
        ),
    )
    public_catalog: bool = field(
        default=True,
        metadata=_as(a_switch, "Whether models and providers are listed to callers without a credential."),
    )
    catalog_file: Path | None = field(
        default=None,
        metadata=_as(a_path, "A TOML file of further providers, in rows like those of the catalogue; they come last."),
    )
    log_format: Literal["console", "json"] = field(
        default="console", metadata=_as(one_of("console", "json"), "Log lines for people or for machines.")
    )
    log_level: Literal["debug", "info", "warning", "error"] = field(
        default="info", metadata=_as(one_of("debug", "info", "warning", "error"), "The least that is logged.")
    )
    drain_s: int = field(
        default=_MAX_DRAIN_S,
        metadata=_as(a_whole(0, _MAX_DRAIN_S), "How many seconds open calls may take to end after SIGTERM."),
    )
    name: str = field(
        default_factory=socket.gethostname,
        metadata=_as(a_text, "The name of this gateway, where several share a database."),
    )
    config: Path | None = None  # no setting: the file that the rest came from, to be read again

    @property
    def is_embedded(self) -> bool:
        """Whether the database is the one in the data folder; only then is a master key file made."""
        return self.database_url is None

    def sqlite_url(self) -> str:
        """The URL of the embedded database."""
        return f"sqlite:///{self.data_dir / 'ostiary.db'}"

    @classmethod
    def load(
        cls, config: Path | None = None, *, environment: Mapping[str, str] | None = None, **given: object
    ) -> Settings:
        """What was given, else the environment, else the TOML file, else the default; a `given` None is not given.

        Raises CannotStart on an unknown name and on a value that cannot be used, without showing the value of a secret.
        """
        env = {k: v for k, v in (os.environ if environment is None else environment).items() if k.startswith(_PREFIX)}
        from_env = {name: value for name, value in env.items() if value.strip() and name != _CONFIG}
        _refuse_unknown(from_env)
        file = config or (Path(env[_CONFIG]) if env.get(_CONFIG) else None)
        found: dict[str, tuple[str, object]] = {}
        layers: tuple[dict[str, tuple[str, object]], ...] = (
            _from_toml(file) if file else {},
            {name.removeprefix(_PREFIX).lower(): (name, value) for name, value in from_env.items()},
            {name: (f"--{name.replace('_', '-')}", value) for name, value in given.items() if value is not None},
        )
        for layer in layers:
            found |= _with_secret_files(layer)
        values: dict[str, Any] = {name: _read(name, source, value) for name, (source, value) in found.items()}
        return cls(**values, config=file)


@dataclass(frozen=True, slots=True)
class Described:
    """One setting as the documentation shows it. `default` is None where there is none or it depends on the machine."""

    name: str
    variable: str
    says: str
    default: str | None
    is_secret: bool


def describe() -> tuple[Described, ...]:
    """Every setting, in order; the page `docs/reference/settings.md` is made of it."""
    return tuple(
        Described(
            f.name,
            _PREFIX + f.name.upper(),
            f.metadata["says"],
            str(f.default) if isinstance(f.default, str | int) else None,
            not f.repr,
        )
        for f in _FIELDS.values()
    )


_FIELDS: Final = {f.name: f for f in fields(Settings) if f.metadata}
_SECRETS: Final = frozenset(name for name, f in _FIELDS.items() if not f.repr)
_TWINS: Final = frozenset(name + _FILE.lower() for name in _SECRETS)
_NAMES: Final = frozenset(_FIELDS) | _TWINS


def _refuse_unknown(env: Mapping[str, str]) -> None:
    for name, value in sorted(env.items()):
        known = name.removeprefix(_PREFIX).lower() in _NAMES
        if (name == "OSTIARY_PORT" and "://" in value) or (not known and _SERVICE_LINK.search(name)):
            raise CannotStart(
                f"{name} looks like one that Kubernetes sets for a service named 'ostiary'. "
                "Set enableServiceLinks: false on the pod, or rename the service."
            )
        if not known:
            names = [_PREFIX + known_name.upper() for known_name in sorted(_NAMES)] + [_CONFIG]
            raise CannotStart(f"{name} is not a setting. {_nearest(name, names)}")


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0)
    return f"The nearest one is {near[0]}."


def _from_toml(file: Path) -> dict[str, tuple[str, object]]:
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotStart(f"The configuration file {file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CannotStart(f"The configuration file {file} is not valid TOML: {error}.") from error
    for name in table:
        if name not in _NAMES:
            raise CannotStart(f"{name} in {file} is not a setting. {_nearest(name, sorted(_NAMES))}")
    return {name: (f"{name} in {file}", value) for name, value in table.items()}


def _with_secret_files(layer: dict[str, tuple[str, object]]) -> dict[str, tuple[str, object]]:
    """Puts what a `_FILE` twin points to in the place of the setting itself."""
    found = dict(layer)
    for name in _SECRETS:
        twin = found.pop(name + _FILE.lower(), None)
        if twin is None:
            continue
        source, path = twin
        if name in found:
            raise CannotStart(f"{found[name][0]} and {source} are both set. Give one of them.")
        found[name] = (source, _read_secret_file(source, a_path(path)))
    return found


def _read_secret_file(source: str, path: Path) -> str:
    """The text of a secret's file; what everybody on the machine can read is not a secret."""
    try:
        mode = path.stat().st_mode
        text = path.read_bytes()[:_MAX_FILE_BYTES].decode()
    except OSError as error:
        raise CannotStart(f"{source} names {path}, which cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CannotStart(f"{source} names {path}, which is not a text file.") from error
    # Docker mounts its secrets 0444 on a file system of the container's own, and lets nobody change that.
    if mode & stat.S_IRWXO and not path.resolve().is_relative_to(_DOCKER_SECRETS):
        raise CannotStart(f"{source} names {path}, which every user of this machine can read. Run: chmod 600 {path}")
    if not text.strip():
        raise CannotStart(f"{source} names {path}, which is empty.")
    return text.strip()


def _read(name: str, source: str, value: object) -> object:
    known = _FIELDS.get(name)
    if known is None:
        raise CannotStart(f"{source} is not a setting. {_nearest(name, sorted(_FIELDS))}")
    try:
        return known.metadata["read"](value)
    except ValueError as error:
        may_say = known.repr or isinstance(error, UnfitError)
        reason = str(error) if may_say else "cannot be used"
        raise CannotStart(f"{source}: {reason}.") from None
