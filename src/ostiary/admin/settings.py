"""The settings that a gateway runs with, at the admin API: for the operator, to read."""

from __future__ import annotations

from pydantic import Field

from ostiary.admin.shapes import Asking, Shown
from ostiary.settings import describe


class ShownSetting(Shown):
    """One setting of the process that answers."""

    name: str
    variable: str
    says: str
    default: str | None
    is_secret: bool
    is_set: bool = Field(description="Whether it has a value.")
    value: str | None = Field(description="As text; never that of a secret.")


class ShownSettings(Shown):
    """All of them."""

    data: list[ShownSetting]


async def show(asking: Asking) -> ShownSettings:
    """What this gateway runs with. Settings are changed where it is started."""
    await asking.begin()
    asking.by.require(asking.route.deed, None)
    return ShownSettings(
        data=[
            ShownSetting(
                name=one.name,
                variable=one.variable,
                says=one.says,
                default=one.default,
                is_secret=one.is_secret,
                is_set=getattr(asking.office.settings, one.name) is not None,
                value=None if one.is_secret else _text(getattr(asking.office.settings, one.name)),
            )
            for one in describe()
        ]
    )


def _text(value: object) -> str | None:
    if value is None:
        return None
    return ",".join(str(item) for item in value) if isinstance(value, tuple) else str(value)
