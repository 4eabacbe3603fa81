"""Settings come from the environment, a TOML file and the command line, and refuse what they do not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostiary.errors import CannotStart
from ostiary.secret import Secret
from ostiary.settings import Settings, describe

CANARY = "canary-7d1f0e55b2"


def load(environment: dict[str, str] | None = None, config: Path | None = None, **given: object) -> Settings:
    return Settings.load(config, environment=environment or {}, **given)


def secret_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_defaults_are_the_embedded_database_on_loopback() -> None:
    settings = load()
    assert (settings.host, settings.port, settings.is_embedded) == ("127.0.0.1", 8420, True)
    assert settings.sqlite_url() == f"sqlite:///{settings.data_dir}/ostiary.db"
    assert settings.egress_allow == settings.trusted_proxies == ()
    assert settings.public_catalog


def test_every_setting_is_read_from_its_variable(tmp_path: Path) -> None:
    settings = load(
        {
            "OSTIARY_HOST": "::1",
            "OSTIARY_PORT": "0",
            "OSTIARY_DATA_DIR": str(tmp_path),
            "OSTIARY_DATABASE_URL": "postgresql://u@h/d",
            "OSTIARY_MASTER_KEY": "k1,k2",
            "OSTIARY_EGRESS_ALLOW": "http://127.0.0.1:9000, https://LLM.internal/ ,",
            "OSTIARY_PUBLIC_URL": "https://ai.example/",
            "OSTIARY_TRUSTED_PROXIES": "10.0.0.0/8,::1",
            "OSTIARY_SPOOL_SYNC": "full",
            "OSTIARY_PUBLIC_CATALOG": "no",
            "OSTIARY_LOG_FORMAT": "json",
            "OSTIARY_LOG_LEVEL": "debug",
            "OSTIARY_DRAIN_S": "5",
            "OSTIARY_NAME": "gate-1",
        }
    )
    assert (settings.host, settings.port, settings.data_dir, settings.name) == ("::1", 0, tmp_path, "gate-1")
    assert settings.database_url == "postgresql://u@h/d"
    assert not settings.is_embedded
    assert settings.master_key == Secret("k1,k2")
    assert settings.egress_allow == ("http://127.0.0.1:9000", "https://llm.internal")
    assert settings.public_url == "https://ai.example"
    assert [str(network) for network in settings.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert (settings.spool_sync, settings.public_catalog, settings.drain_s) == ("full", False, 5)
    assert (settings.log_format, settings.log_level) == ("json", "debug")


def test_what_is_given_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    config = tmp_path / "ostiary.toml"
    config.write_text('port = 1\nhost = "file"\nname = "file"\negress_allow = ["http://a:1"]\n')
    settings = load({"OSTIARY_PORT": "2", "OSTIARY_HOST": "env"}, config, port=3, host=None)
    assert (settings.port, settings.host, settings.name) == (3, "env", "file")
    assert settings.egress_allow == ("http://a:1",)


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    config = tmp_path / "ostiary.toml"
    config.write_text("port = 77\n")
    assert load({"OSTIARY_CONFIG": str(config)}).port == 77


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("OSTIARY_DATABSE_URL", "OSTIARY_DATABASE_URL"),
        ("OSTIARY_MASTER_KEYFILE", "OSTIARY_MASTER_KEY_FILE"),
        ("OSTIARY_EGRES", "OSTIARY_EGRESS_ALLOW"),
        ("OSTIARY_PORT_FILE", "OSTIARY_PORT"),
    ],
)
def test_an_unknown_variable_names_the_nearest_one(name: str, nearest: str) -> None:
    with pytest.raises(CannotStart, match=f"{name} is not a setting.*{nearest}"):
        load({name: "x"})


def test_variables_of_others_are_not_ours() -> None:
    assert load({"HOST": "x", "PORT": "x", "OPENAI_API_KEY": "x", "ostiary_port": "x"}) == load()


def test_an_empty_variable_is_not_set() -> None:
    assert load({"OSTIARY_MASTER_KEY": " ", "OSTIARY_PORT": "", "OSTIARY_CONFIG": ""}) == load()


@pytest.mark.parametrize(
    ("name", "value"), [("OSTIARY_PORT", "tcp://10.0.0.1:8420"), ("OSTIARY_PORT_8420_TCP_ADDR", "10.0.0.1")]
)
def test_service_links_of_kubernetes_are_explained(name: str, value: str) -> None:
    with pytest.raises(CannotStart, match="enableServiceLinks"):
        load({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("PORT", "8420.0"),
        ("PORT", "٨"),
        ("DRAIN_S", "31"),
        ("PUBLIC_CATALOG", "maybe"),
        ("SPOOL_SYNC", "NORMAL!"),
        ("LOG_LEVEL", "loud"),
        ("EGRESS_ALLOW", "127.0.0.1:9000"),
        ("EGRESS_ALLOW", "http://127.0.0.1:9000/v1"),
        ("EGRESS_ALLOW", "http://u:p@127.0.0.1"),
        ("EGRESS_ALLOW", "http://127.0.0.1:99999"),
        ("EGRESS_ALLOW", "ftp://127.0.0.1"),
        ("EGRESS_ALLOW", "http://[::1"),
        ("PUBLIC_URL", "ai.example"),
        ("TRUSTED_PROXIES", "10.0.0.1/8"),
        ("TRUSTED_PROXIES", "all"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(CannotStart, match=f"^OSTIARY_{name}: "):
        load({f"OSTIARY_{name}": value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "prot in .* is not a setting. The nearest one is port"),
        ('port = "x"', "port in .* must be a whole number"),
        ("port = true", "port in .* must be a whole number"),
        ("host = 1", "host in .* must be a text"),
        ("egress_allow = 1", "egress_allow in .* must be a comma-separated list"),
        ("port = ", "not valid TOML"),
        ("[server]\nport = 1", "server in .* is not a setting"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "ostiary.toml"
    config.write_text(text)
    with pytest.raises(CannotStart, match=message):
        load(config=config)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="cannot be read: No such file"):
        load(config=tmp_path / "none.toml")


def test_a_secret_is_read_from_its_file(tmp_path: Path) -> None:
    path = secret_file(tmp_path, f"{CANARY}\n")
    assert load({"OSTIARY_MASTER_KEY_FILE": str(path)}).master_key == Secret(CANARY)
    config = tmp_path / "ostiary.toml"
    config.write_text(f'database_url_file = "{path}"\n')
    assert load(config=config).database_url == CANARY


def test_a_secret_and_its_file_together_are_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path, CANARY)
    with pytest.raises(CannotStart, match="both set") as refused:
        load({"OSTIARY_MASTER_KEY": CANARY, "OSTIARY_MASTER_KEY_FILE": str(path)})
    assert CANARY not in str(refused.value)


def test_the_environments_secret_beats_the_file_named_in_the_configuration(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "from-file")
    config = tmp_path / "ostiary.toml"
    config.write_text(f'master_key_file = "{path}"\n')
    assert load({"OSTIARY_MASTER_KEY": CANARY}, config).master_key == Secret(CANARY)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o644])
def test_a_secret_file_everybody_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, CANARY, mode)
    with pytest.raises(CannotStart, match="chmod 600") as refused:
        load({"OSTIARY_MASTER_KEY_FILE": str(path)})
    assert CANARY not in str(refused.value)


def test_a_missing_empty_or_binary_secret_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="cannot be read"):
        load({"OSTIARY_MASTER_KEY_FILE": str(tmp_path / "none")})
    with pytest.raises(CannotStart, match="cannot be read"):
        load({"OSTIARY_MASTER_KEY_FILE": str(tmp_path)})
    with pytest.raises(CannotStart, match="is empty"):
        load({"OSTIARY_MASTER_KEY_FILE": str(secret_file(tmp_path, " \n"))})
    (tmp_path / "secret").write_bytes(b"\xff\xfe")
    with pytest.raises(CannotStart, match="not a text file"):
        load({"OSTIARY_MASTER_KEY_FILE": str(tmp_path / "secret")})


def test_settings_do_not_print_what_they_keep() -> None:
    settings = load({"OSTIARY_MASTER_KEY": CANARY, "OSTIARY_DATABASE_URL": f"postgresql://u:{CANARY}@h/d"})
    assert CANARY not in repr(settings)
    assert CANARY not in str(settings)


def test_every_setting_is_described() -> None:
    described = {setting.variable: setting for setting in describe()}
    assert described["OSTIARY_PORT"].default == "8420"
    assert described["OSTIARY_MASTER_KEY"].is_secret
    assert all(setting.says.endswith(".") for setting in describe())


@pytest.mark.parametrize(
    "text", ["short", "x" * 31, "with spaces in it and long enough by far", "ü" * 40, "x" * 40 + "\0"]
)
def test_a_weak_operator_token_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(CannotStart, match="OSTIARY_OPERATOR_TOKEN: must be 32") as caught:
        load({"OSTIARY_OPERATOR_TOKEN": text})
    assert text not in str(caught.value)
    assert load({"OSTIARY_OPERATOR_TOKEN": "x" * 32}).operator_token == Secret("x" * 32)
