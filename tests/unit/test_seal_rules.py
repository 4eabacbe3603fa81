"""Master keys and places: what is taken for a key, how its file is kept, and what a place is."""

from __future__ import annotations

import base64
import itertools
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet, InvalidToken

from ostiary.errors import CannotStart
from ostiary.secret import Secret
from ostiary.settings import Settings
from ostiary.vault.key_file import make_key_file, read_key_file, replace_key_file
from ostiary.vault.master_key import Keeper
from ostiary.vault.seal import MasterKeys, Place, Seal, Undecryptable, name_of, record_key

DATA_KEY = bytes(range(32))
PLACE = Place("orgn_1", "provider_keys", "pkey_1", "sealed", 1, "https://api.example.org")


def key(number: int = 1) -> str:
    return base64.urlsafe_b64encode(bytes([number]) * 32).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ,\n, ",
        "short",
        "password" * 6,
        key()[:-1],
        key() + "=",
        base64.b64encode(b"\xff" * 32).decode(),  # not the URL-safe alphabet
        base64.urlsafe_b64encode(b"k" * 16).decode(),
        key() + ",short",
        key() + "," + key()[:20] + "é" + key()[21:],
    ],
)
def test_what_is_no_master_key_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(CannotStart) as refused:
        MasterKeys.parse(Secret(text))
    assert "openssl rand" in str(refused.value)
    for part in filter(None, text.replace("\n", ",").split(",")):
        assert len(part) < 6 or part not in str(refused.value)


def test_it_says_which_of_several_is_wrong() -> None:
    with pytest.raises(CannotStart, match="Master key 2 of 3"):
        MasterKeys.parse(Secret(f"{key()},oops,{key()}"))


def test_keys_that_a_configuration_file_names_are_read_again(tmp_path: Path) -> None:
    held, config = tmp_path / "held", tmp_path / "ostiary.toml"
    config.write_text(f'database_url = "sqlite:///{tmp_path}/x.db"\nmaster_key_file = "{held}"\n')
    held.write_text(key(1))
    held.chmod(0o600)
    keeper = Keeper(Settings.load(config, data_dir=tmp_path, environment={}))
    assert keeper.read().reveal() == key(1)
    held.write_text(f"{key(2)}\n{key(1)}")
    assert keeper.read().reveal() == f"{key(2)}\n{key(1)}", "as the running gateway of a rotation needs it"
    held.unlink()
    with pytest.raises(CannotStart, match="held"):
        keeper.keys()


@pytest.mark.parametrize("between", [",", "\n", ", ", "\r\n", ",\n"])
def test_keys_are_separated_by_commas_or_lines(between: str) -> None:
    masters = MasterKeys.parse(Secret(f"{key(1)}{between}{key(2)}\n"))
    wrapped = MasterKeys.parse(Secret(key(2))).wrap("o", 1, DATA_KEY)
    assert masters.unwrap("o", 1, wrapped) == DATA_KEY


def test_the_first_key_wraps_and_each_opens() -> None:
    wrapped = MasterKeys.parse(Secret(f"{key(1)},{key(2)}")).wrap("o", 1, DATA_KEY)
    assert MasterKeys.parse(Secret(key(1))).unwrap("o", 1, wrapped) == DATA_KEY
    with pytest.raises(Undecryptable):
        MasterKeys.parse(Secret(key(2))).unwrap("o", 1, wrapped)


def test_a_named_key_wraps_where_it_is_asked_to() -> None:
    masters = MasterKeys.parse(Secret(f"{key(1)},{key(2)}"))
    assert masters.names == (name_of(key(1)), name_of(key(2)))
    wrapped = masters.wrap("o", 1, DATA_KEY, name_of(key(2)))
    assert masters.only(name_of(key(2))).unwrap("o", 1, wrapped) == DATA_KEY
    with pytest.raises(Undecryptable):
        masters.only(name_of(key(1))).unwrap("o", 1, wrapped)


def test_what_is_wrapped_passes_to_another_key_and_keeps_its_row() -> None:
    old, new = name_of(key(1)), name_of(key(2))
    masters = MasterKeys.parse(Secret(f"{key(2)},{key(1)}"))
    wrapped = MasterKeys.parse(Secret(key(1))).wrap("orgn_1", 1, DATA_KEY)
    passed = masters.rewrap(wrapped, new)
    assert passed is not None
    assert masters.only(new).unwrap("orgn_1", 1, passed) == DATA_KEY
    with pytest.raises(Undecryptable):
        masters.only(new).unwrap("orgn_2", 1, passed)
    with pytest.raises(Undecryptable):
        masters.only(old).unwrap("orgn_1", 1, passed)
    assert masters.rewrap(passed, new) == passed, "what has passed already stays as it is"
    assert masters.only(old).rewrap(passed, old) is None
    assert masters.rewrap("gAAAAA", new) is None


def test_a_data_key_belongs_to_its_row() -> None:
    masters = MasterKeys.parse(Secret(key()))
    wrapped = masters.wrap("orgn_1", 1, DATA_KEY)
    for organization_id, version in (("orgn_2", 1), ("orgn_1", 2), ("orgn_11", 1), ("", 1)):
        with pytest.raises(Undecryptable):
            masters.unwrap(organization_id, version, wrapped)


def test_what_wraps_nothing_does_not_open() -> None:
    for wrapped in ("", "x", "é", "gAAAAA==", Fernet(key()).encrypt(b"").decode()):
        with pytest.raises(Undecryptable):
            MasterKeys.parse(Secret(key())).unwrap("o", 1, wrapped)


def test_nothing_prints_a_key() -> None:
    masters = MasterKeys.parse(Secret(key()))
    assert key() not in f"{masters!r} {masters} {masters.names} {Seal(masters)!r} {vars(Seal(masters))}"


def test_a_place_is_all_of_its_parts() -> None:
    """Every single part matters, and no part can flow over into its neighbour."""
    places = [
        PLACE,
        replace(PLACE, organization_id="orgn_2"),
        replace(PLACE, table="other"),
        replace(PLACE, row="pkey_2"),
        replace(PLACE, field="other"),
        replace(PLACE, version=2),
        replace(PLACE, origin="https://evil.example.org"),
        replace(PLACE, organization_id="orgn_1provider_keys", table=""),
        replace(PLACE, row="pkey_1sealed", field=""),
        replace(PLACE, field="sealed1"),
    ]
    for one, other in itertools.combinations(places, 2):
        assert one.info() != other.info()


def test_the_pepper_is_not_there_before_the_master_key_is_proved() -> None:
    with pytest.raises(RuntimeError):
        _ = Seal(MasterKeys.parse(Secret(key()))).pepper


def test_a_record_key_is_not_the_data_key() -> None:
    token = record_key(DATA_KEY, PLACE).encrypt(b"x")
    with pytest.raises(InvalidToken):
        Fernet(base64.urlsafe_b64encode(DATA_KEY)).decrypt(token)


# ---- the key file -----------------------------------------------------------------------------------------------


def test_a_made_key_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "master.secret"
    old = os.umask(0)
    try:
        made = make_key_file(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key_file(path).reveal().strip() == made.reveal()
    MasterKeys.parse(read_key_file(path))


def test_no_two_made_keys_are_alike(tmp_path: Path) -> None:
    assert make_key_file(tmp_path / "1.secret") != make_key_file(tmp_path / "2.secret")


def test_an_existing_file_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "master.secret"
    path.write_text("precious")
    with pytest.raises(CannotStart, match="exists"):
        make_key_file(path)
    assert path.read_text() == "precious"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "master.secret"
    path.symlink_to(tmp_path / "elsewhere.secret")
    with pytest.raises(CannotStart, match="exists"):
        make_key_file(path)
    assert not (tmp_path / "elsewhere.secret").exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="none/master"):
        make_key_file(tmp_path / "none" / "master.secret")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.secret"
    path.write_text(key())
    path.chmod(mode)
    with pytest.raises(CannotStart, match="chmod 600"):
        read_key_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_that_only_its_owner_may_read_is_read(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "master.secret"
    path.write_text(key() + "\n")
    path.chmod(mode)
    assert read_key_file(path).reveal().strip() == key()


def test_a_link_to_a_good_file_is_read(tmp_path: Path) -> None:
    """As container orchestrators mount secrets."""
    path = tmp_path / "master.secret"
    make_key_file(path)
    (tmp_path / "link").symlink_to(path)
    assert read_key_file(tmp_path / "link") == read_key_file(path)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, reason in ((tmp_path, "not a file"), (tmp_path / "pipe", "not a file"), (tmp_path / "none", "No such")):
        with pytest.raises(CannotStart, match=reason):
            read_key_file(path)


@pytest.mark.parametrize("content", [b"x" * 5_000, b"\xff\xfe\x00", b"\xc3\xa9" * 10])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "master.secret"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(CannotStart, match="holds no master key"):
        read_key_file(path)


def test_a_replaced_key_file_is_whole_and_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "master.secret"
    made = make_key_file(path)
    (tmp_path / ".master.secret.new").write_text("half a key of somebody who was killed")
    replace_key_file(path, [Secret(key(2)), made])
    assert read_key_file(path).reveal() == f"{key(2)}\n{made.reveal()}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_link_to_a_key_file_stays_one_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "master.secret"
    make_key_file(path)
    (tmp_path / "link").symlink_to(path)
    replace_key_file(tmp_path / "link", [Secret(key(2))])
    assert (tmp_path / "link").is_symlink()
    assert read_key_file(path).reveal() == f"{key(2)}\n"


def test_a_key_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "master.secret"
    made = make_key_file(path)
    (tmp_path / ".master.secret.new").mkdir()  # in the way, and not to be unlinked
    with pytest.raises(CannotStart, match="cannot be replaced"):
        replace_key_file(path, [Secret(key(2))])
    assert read_key_file(path).reveal().strip() == made.reveal()
