"""The second factor of one's own account: begun with a picture, confirmed by a code, taken off by the password."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import segno

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.errors import Refusal
from ostiary.orgs import second_factor
from ostiary.secret import Secret

_PAGE: Final = f"{HOME}/account"
_GROUP: Final = 4


async def begin(visit: Visit) -> Answer:
    """A new secret, as a picture and as text; nothing is asked for until a code has confirmed it."""
    try:
        async with visit.writing() as tx:
            begun = await second_factor.begin(
                tx, visit.here.session, visit.hall.factors, visit.at, issuer=_issuer(visit)
            )
    except Refusal as refusal:
        return visit.go(_PAGE, visit.refused(refusal).message, "error")
    picture = segno.make(begun.uri.reveal(), error="m").svg_data_uri(scale=4, light="#ffffff", xmldecl=False)
    text = begun.secret.reveal()
    typed = " ".join(text[i : i + _GROUP] for i in range(0, len(text), _GROUP))
    return visit.page("account/factor_new.html", picture=picture, typed=typed)


async def confirm(visit: Visit) -> Answer:
    """The first code; from now on one is asked for. The recovery codes are in this answer and never again."""
    try:
        async with visit.writing() as tx:
            codes = await second_factor.confirm(
                tx, visit.here.session, visit.form.text("code"), visit.hall.factors, visit.at
            )
    except Refusal as refusal:
        return visit.page("account/factor_code.html", refusal.status, wrong=visit.refused(refusal))
    answer = visit.page("account/factor_codes.html", codes=_revealed(codes), is_first=True)
    return answer.header(b"hx-retarget", "#factor")


async def renew_codes(visit: Visit) -> Answer:
    """Ten new recovery codes in the place of those there were."""
    try:
        async with visit.writing() as tx:
            codes = await second_factor.renew_recovery_codes(tx, visit.here.session, visit.at)
    except Refusal as refusal:
        return visit.go(_PAGE, visit.refused(refusal).message, "error")
    return visit.page("account/factor_codes.html", codes=_revealed(codes), is_first=False)


async def remove(visit: Visit) -> Answer:
    """Ask for no code any more; the password says that it is wished."""
    password = Secret(visit.form.raw("password"))
    try:
        await second_factor.remove(visit.hall.database, visit.here.session, password, visit.at, address=visit.address)
    except Refusal as refusal:
        return visit.page("account/factor_remove.html", refusal.status, wrong=visit.refused(refusal))
    return visit.go(_PAGE, "Your second factor is removed.")


def _revealed(codes: Iterable[Secret]) -> list[str]:
    return [code.reveal() for code in codes]


def _issuer(visit: Visit) -> str:
    """What the app writes above the code; with several gateways their address tells which is meant."""
    public = visit.hall.settings.public_url
    return f"Ostiary {public.partition('://')[2].partition('/')[0]}".replace(":", " ") if public else "Ostiary"
