"""Roles: who may do what, written out; and that no deed is forgotten."""

from __future__ import annotations

import re
from collections.abc import Collection
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
users.list                     a        -     -     -
users.operator                 a        -     -     -
users.password                 a        -     -     -
prices.set                     a        -     -     -
prices.recost                  a        -     -     -
gateways.list                  a        -     -     -
gateways.retire                a        -     -     -
backups.make                   a        -     -     -
backups.restore                a        -     -     -
settings.show                  a        -     -     -
master_key.rotate              a        -     -     -
vault.rekey                    a        -     -     -
aliases.create                 a        -     -     -
aliases.edit                   a        -     -     -
aliases.delete                 a        -     -     -
organizations.show             a        a     a     -
organizations.edit             a        a     a     -
organizations.budget           a        a     -     -
members.add                    a        a     a     -
members.list                   a        a     a     -
members.role                   a        a     -     -
members.remove                 a        a     a     -
users.name                     a        o     o     o
sessions.list                  a        a     a     o
sessions.end                   a        a     a     o
agent_keys.create              a        a     a     o
agent_keys.show                a        a     a     o
agent_keys.list                a        a     a     o
agent_keys.edit                a        a     a     o
agent_keys.rotate              a        a     a     o
agent_keys.ephemeral           a        a     a     o
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
provider_keys.reset            a        a     a     -
provider_keys.delete           a        a     a     -
provider_keys.test             a        a     a     -
endpoints.create               a        a     a     -
endpoints.list                 a        a     a     a
endpoints.show                 a        a     a     a
endpoints.edit                 a        a     a     -
endpoints.delete               a        a     a     -
aliases.list                   a        a     a     a
prices.show                    a        a     a     a
gateways.show                  a        a     a     -
usage.show                     a        a     a     o
traces.show                    a        a     a     o
traces.content                 a        a     a     o
audit.show                     a        a     a     -
audit.verify                   a        a     a     -
notifications.list             a        a     a     o
notifications.test             a        a     a     -
webhooks.create                a        a     a     -
webhooks.list                  a        a     a     -
webhooks.edit                  a        a     a     -
webhooks.delete                a        a     a     -
webhooks.test                  a        a     a     -
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
    asked = set(re.findall(r'\b(?:(?:require|may)\(|get\(tx, by,|_move\(tx, by,)[^)]*?"([a-z_]+\.[a-z]+)"', code))
    assert asked <= set(roles.DEEDS)
    assert {deed for deed in roles.DEEDS if f'"{deed}"' not in code} == set()


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


def test_the_system_makes_the_first_organization_and_aliases_and_does_nothing_else() -> None:
    reached = [deed for deed in roles.DEEDS if roles.system().may(deed, None)]
    assert reached == ["organizations.create", "aliases.create"]


def test_nobody_widens_the_table() -> None:
    with pytest.raises(TypeError):
        roles.ROLES["member"]["organizations.create"] = "all"  # type: ignore[index]


# ---- agent keys at the admin door -------------------------------------------------------------------------------

OPERATOR = User("usr_9", "operator@example.org", "Operator", is_operator=True, created_at=1)
EVERY_SCOPE = frozenset(roles.ADMIN_SCOPES)


def by_key(scopes: Collection[str], role: str | None = "owner", user: User | None = USER) -> Actor:
    return roles.key_actor(user, role, HOME, scopes, "ci", "192.0.2.7")


def test_every_deed_but_those_of_the_machine_has_one_scope() -> None:
    covered = [deed for deeds in roles.ADMIN_SCOPES.values() for deed in deeds]
    assert len(covered) == len(set(covered))
    assert set(roles.DEEDS) - set(covered) == {
        *("users.list", "users.operator", "users.password", "users.name", "sessions.list", "sessions.end"),
        *("backups.make", "backups.restore"),
        *("master_key.rotate", "vault.rekey"),
    }


def test_who_reads_does_not_write() -> None:
    writes = {deed for scope, deeds in roles.ADMIN_SCOPES.items() if scope.endswith(":write") for deed in deeds}
    assert writes.isdisjoint({deed for deed in roles.DEEDS if deed.endswith((".show", ".list", ".verify"))})


@pytest.mark.parametrize("role", ["owner", "admin", "member"])
def test_a_key_with_every_scope_reaches_as_far_as_its_owner(role: str) -> None:
    uncovered = {"users.operator", "users.name", "backups.make", "backups.restore", "sessions.list", "sessions.end"}
    by = by_key(EVERY_SCOPE, role)
    assert dict(by.grants) == {deed: reach for deed, reach in roles.ROLES[role].items() if deed not in uncovered}
    assert (by.id, by.organization_id, by.address) == (USER.id, HOME, "192.0.2.7")
    assert "ci" in by.name


@pytest.mark.parametrize("scope", sorted(EVERY_SCOPE))
@pytest.mark.parametrize("role", ["owner", "admin", "member"])
def test_a_scope_covers_its_deeds_and_no_other(scope: str, role: str) -> None:
    by = by_key([scope], role)
    allowed = {deed for deed in roles.DEEDS if by.may(deed, HOME, USER.id)}
    assert allowed == set(roles.ADMIN_SCOPES[scope]) & set(roles.ROLES[role])
    assert not any(by.may(deed, ELSEWHERE, USER.id) or by.may(deed, None, USER.id) for deed in roles.DEEDS)


@pytest.mark.parametrize(("user", "role"), [(None, None), (None, "owner"), (USER, None)])
def test_a_key_of_nobody_or_of_somebody_who_left_reaches_nothing(user: User | None, role: str | None) -> None:
    by = by_key(EVERY_SCOPE, role, user)
    for deed in roles.DEEDS:
        for organization_id in (HOME, ELSEWHERE, None, ""):
            with refused("not_found"):
                by.require(deed, organization_id, USER.id)


def test_gate_scopes_open_nothing_at_the_admin_door() -> None:
    by = by_key(["gate:chat", "gate:models", "gate:usage", "admin:*", "admin:agent-keys:*", "admin"])
    assert dict(by.grants) == {}


def test_what_serves_an_organization_is_all_that_its_key_learns_of_gateways() -> None:
    assert dict(by_key(["admin:gateways:read"], "owner").grants) == {"gateways.show": "all"}


def test_an_operators_key_reaches_every_organization_as_far_as_its_scopes() -> None:
    by = by_key(["admin:gateways:read", "admin:organizations:write"], "member", OPERATOR)
    assert by.may("gateways.list", None)
    assert by.may("organizations.edit", ELSEWHERE)
    assert not by.may("gateways.retire", None)
    assert not by.may("users.operator", None)
    assert not by.may("agent_keys.list", HOME)


@pytest.mark.parametrize(
    ("by", "owner", "owner_role", "scope", "code"),
    [
        ("owner", "self", "owner", "admin:members:write", None),
        ("admin", "self", "admin", "admin:members:write", None),
        ("admin", "other", "owner", "admin:members:write", "insufficient_scope"),  # it could give roles, an admin not
        ("admin", "other", "owner", "admin:organizations:write", "insufficient_scope"),
        ("admin", "other", "owner", "admin:usage:read", None),
        ("admin", "other", "member", "admin:agent-keys:write", None),
        ("member", "self", "member", "admin:agent-keys:write", None),
        ("member", "self", "member", "admin:members:read", "invalid_field"),
        ("member", "self", "member", "admin:audit:read", "invalid_field"),
        ("member", "other", "member", "admin:agent-keys:write", "insufficient_scope"),
        ("owner", "self", "owner", "admin:gateways:write", "invalid_field"),
        ("owner", "self", "owner", "admin:gateways:read", None),
        ("owner", "other", "operator", "admin:gateways:read", "insufficient_scope"),
        ("member", "self", "member", "admin:gateways:read", "invalid_field"),
        ("owner", "other", "operator", "admin:usage:read", "insufficient_scope"),  # it would reach elsewhere
        ("operator", "other", "operator", "admin:gateways:read", None),
        ("operator", "other", "member", "admin:audit:read", "invalid_field"),
        ("operator", "nobody", None, "admin:usage:read", "invalid_field"),
        ("operator", "other", "owner", "admin:*", "invalid_field"),
        ("operator", "other", "owner", "admin:backups:write", "invalid_field"),
    ],
)
def test_nobody_hands_out_what_they_or_the_owner_have_not(
    by: str, owner: str, owner_role: str | None, scope: str, code: str | None
) -> None:
    owner_id = {"self": USER.id, "other": "usr_other", "nobody": None}[owner]
    refusal = roles.judge_scopes(actor(by), owner_id, owner_role, [scope])
    assert (refusal.code if refusal else None) == code


def test_a_key_hands_out_no_more_than_it_has() -> None:
    """An admin key that may only touch keys mints none that may touch members, though its owner may."""
    by = by_key(["admin:agent-keys:write", "admin:agent-keys:read"])
    assert roles.judge_scopes(by, USER.id, "owner", ["admin:agent-keys:write"]) is None
    refusal = roles.judge_scopes(by, USER.id, "owner", ["admin:agent-keys:write", "admin:members:read"])
    assert refusal is not None
    assert refusal.code == "insufficient_scope"
