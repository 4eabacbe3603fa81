"""Roles: who may do what, written out; and that no deed is forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import ostiary
from ostiary.actor import Actor
from ostiary.orgs import roles
from ostiary.orgs.store import User
from tests.people import refused

HOME, ELSEWHERE = "orgn_home", "orgn_elsewhere"
USER = User("usr_1", "somebody@example.org", "Somebody", is_operator=False, created_at=1)

# a: all of the organization's, o: one's own, -: refused
TABLE = """
                               operator owner admin member
organizations.create           a        -     -     -
organizations.list             a        -     -     -
prices.set                     a        -     -     -
members.add                    a        a     a     -
members.list                   a        a     a     -
members.role                   a        a     -     -
agent_keys.create              a        a     a     o
agent_keys.show                a        a     a     o
agent_keys.list                a        a     a     o
agent_keys.edit                a        a     a     o
agent_keys.rotate              a        a     a     o
agent_keys.deactivate          a        a     a     o
agent_keys.activate            a        a     a     o
agent_keys.revoke              a        a     a     o
agent_keys.delete              a        a     a     o
client_credentials.create      a        a     a     -
client_credentials.list        a        a     a     -
client_credentials.revoke      a        a     a     -
provider_keys.add              a        a     a     -
provider_keys.list             a        a     a     a
provider_keys.show             a        a     a     -
provider_keys.edit             a        a     a     -
provider_keys.delete           a        a     a     -
provider_keys.test             a        a     a     -
prices.show                    a        a     a     a
usage.show                     a        a     a     o
traces.show                    a        a     a     o
"""
_HEAD, *_ROWS = [line.split() for line in TABLE.strip().splitlines()]
EXPECTED = {(row[0], role): reach for row in _ROWS for role, reach in zip(_HEAD, row[1:], strict=True)}


def actor(role: str) -> Actor:
    return roles.operator() if role == "operator" else roles.member_actor(USER, role, HOME, "test")


def test_the_table_is_complete() -> None:
    assert {deed for deed, _ in EXPECTED} == set(roles.DEEDS)
    assert {role for _, role in EXPECTED} == set(roles.ROLES)


@pytest.mark.parametrize(("deed", "role"), EXPECTED)
def test_a_role_reaches_so_far_and_no_further(deed: str, role: str) -> None:
    by = actor(role)
    reach = EXPECTED[deed, role]
    assert by.may(deed, HOME, "usr_other") == (reach == "a")
    assert by.may(deed, HOME) == (reach == "a")
    assert by.may(deed, HOME, USER.id) == (reach in "ao")
    assert by.may(deed, ELSEWHERE, USER.id) == (role == "operator")
    assert by.may(deed, None, USER.id) == (role == "operator")


def test_every_deed_asked_for_in_the_code_is_in_the_table() -> None:
    root = Path(ostiary.__file__).parent
    code = "\n".join(path.read_text() for path in root.rglob("*.py") if path.name != "roles.py")
    asked = set(re.findall(r'(?:require|may|_get|_move)\([^)]*?"([a-z_]+\.[a-z]+)"', code))
    assert asked == set(roles.DEEDS)


def test_who_belongs_to_nothing_finds_nothing() -> None:
    charlie = roles.member_actor(USER, None, HOME, "test")
    for deed in roles.DEEDS:
        for organization_id in (HOME, ELSEWHERE, None, ""):
            with refused("not_found"):
                charlie.require(deed, organization_id, USER.id)


@pytest.mark.parametrize("role", ["operator", "system", "none", "", "OWNER"])
def test_no_member_is_made_with_another_role(role: str) -> None:
    with refused("invalid_field", "role"):
        roles.member_actor(USER, role, HOME, "test")


def test_the_system_makes_the_first_organization_and_does_nothing_else() -> None:
    assert [deed for deed in roles.DEEDS if roles.system().may(deed, None)] == ["organizations.create"]


def test_nobody_widens_the_table() -> None:
    with pytest.raises(TypeError):
        roles.ROLES["member"]["organizations.create"] = "all"  # type: ignore[index]
