"""Members at the admin API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field, StringConstraints

from ostiary.admin import pages
from ostiary.admin.pages import Page, Place
from ostiary.admin.shapes import Asked, Asking, Id, Name, Shown, ShownMoment, when
from ostiary.agents.agent_keys import revoke_all_of
from ostiary.orgs import members
from ostiary.orgs.members import Member

Role = Literal["owner", "admin", "member"]
_RANKS = ("owner", "admin", "member")


class Filter(Page):
    """Which members, and in which order."""

    search: Annotated[str | None, Field(max_length=200, description="A part of the name or of the address.")] = None
    role: Role | None = None
    sort: Literal["created_at", "email", "name", "role"] = "created_at"


class NewMember(Asked):
    """Somebody to let in."""

    email: Annotated[str, StringConstraints(min_length=3, max_length=320)]
    name: Name | None = Field(None, description="Absent: the address up to the @. Who is known keeps their name.")
    role: Role = "member"


class MemberPatch(Asked):
    """The new role."""

    role: Role


class ShownMember(Shown):
    """Somebody in the organization."""

    id: str
    email: str
    name: str
    role: Role
    created_at: ShownMoment


class Members(Shown):
    """One page of them."""

    data: list[ShownMember]
    next_cursor: str | None


async def list_(asking: Asking, asked: Annotated[Filter, Query()]) -> Members:
    """Who belongs to the organization, and as what."""
    tx = await asking.begin()
    found = await members.list_(tx, asking.by, asking.organization_id)
    sought = (asked.search or "").casefold()
    fitting = [
        one
        for one in found
        if (sought in one.name.casefold() or sought in one.email) and asked.role in (None, one.role)
    ]

    def place(one: Member) -> Place:
        return (_RANKS.index(one.role) if asked.sort == "role" else getattr(one, asked.sort), one.user_id)

    page, cursor = pages.turn(fitting, asked, asked.sort, place)
    return Members(data=[ShownMember(**_shown(one)) for one in page], next_cursor=cursor)


async def add(asking: Asking, asked: NewMember) -> ShownMember:
    """Make somebody a member; only who may give roles makes an owner."""
    tx = await asking.begin()
    called = asked.name or asked.email.partition("@")[0] or asked.email
    member = await members.add(tx, asking.by, asking.organization_id, asked.email, called, asked.role, asking.at)
    return ShownMember(**_shown(member))


async def change(asking: Asking, id: Id, asked: MemberPatch) -> ShownMember:
    """Give a member, by id or address, another role; the last owner stays one."""
    tx = await asking.begin()
    return ShownMember(
        **_shown(await members.change_role(tx, asking.by, asking.organization_id, id, asked.role, asking.at))
    )


async def remove(asking: Asking, id: Id) -> Response:
    """Let a member go; their keys are revoked, the last owner stays."""
    tx = await asking.begin()
    await members.remove(tx, asking.by, asking.organization_id, id, asking.at, let_go=revoke_all_of)
    return Response(status_code=204)


def _shown(one: Member) -> dict[str, Any]:
    return {
        "id": one.user_id,
        "email": one.email,
        "name": one.name,
        "role": one.role,
        "created_at": when(one.created_at),
    }
