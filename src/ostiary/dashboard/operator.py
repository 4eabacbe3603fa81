"""The operator's first page: what is wrong with the instance, its jobs, and what could not be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ostiary.dashboard.answers import Answer
from ostiary.dashboard.routes import HOME
from ostiary.dashboard.visit import Visit
from ostiary.db import versions
from ostiary.ledger import gateways, operation_store, prices
from ostiary.ledger.gateways import Gateway
from ostiary.ledger.operation_store import JobRow, Undelivered
from ostiary.orgs import organizations, sessions
from ostiary.settings import describe
from ostiary.vault import pool

_PLACE: Final = f"{HOME}/operator"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that waits for the operator, and where it is mended."""

    text: str
    path: str | None = None
    words: str = ""


async def show(visit: Visit) -> Answer:
    """How the instance is."""
    hall = visit.hall
    visit.by.require("gateways.list", None)
    async with visit.reading() as tx:
        found = await gateways.look(tx, visit.at)
        jobs = await operation_store.list_jobs(tx)
        undelivered = await operation_store.count_undelivered(tx)
        budgets = await operation_store.count_watched_budgets(tx)
        is_heard = hall.mailer is not None or await operation_store.has_webhooks(tx)
        shared = await pool.list_(tx, visit.by, visit.at)
        counts = {
            "organizations": len(await organizations.list_(tx, visit.by)),
            "pool": len(shared),
            "prices": len(await prices.show(tx, visit.by)),
        }
    problems = [*_of_gateways(found), *_of_jobs(jobs), *_of_notifications(undelivered, 0 if is_heard else budgets)]
    if hall.database.is_sqlite and (warning := versions.warning(hall.database)):
        problems.append(Problem(warning))
    ill = [one for one in shared if one.status not in ("healthy", "degraded")]
    if ill:
        said = "provider key of the pool is" if len(ill) == 1 else "provider keys of the pool are"
        problems.append(Problem(f"{len(ill)} {said} not usable now.", f"{_PLACE}/pool?health=ill", "Look at the pool"))
    names = {one.id: one.name for one in found}
    return visit.page(
        "operator/show.html",
        problems=problems,
        live=[one for one in found if one.state == "live"],
        lost=[one for one in found if one.state == "lost"],
        counts=counts,
        jobs=[(job, names.get(job.owner or "", job.owner)) for job in jobs],
        undelivered=undelivered,
        settings=_settings(visit),
        database=hall.database.engine.dialect.name,
    )


async def open_(visit: Visit) -> Answer:
    """Look at an organization as the operator, and in it at one of its provider keys if one is named."""
    key = visit.form.text("provider_key")
    async with visit.writing() as tx:
        await sessions.enter(tx, visit.here.session, visit.form.text("organization"))
    return visit.go(f"{HOME}/vault/{key}" if key.isidentifier() else HOME)


def _of_gateways(found: list[Gateway]) -> list[Problem]:
    problems = [
        Problem(
            f"The gateway {one.name} was lost with money of budgets. Start it again on its data folder, or retire it.",
            f"{_PLACE}/gateways/{one.id}",
            "Look at it",
        )
        for one in found
        if one.state == "lost" and one.leased_nano
    ]
    kinds = sorted({one.version for one in found if one.state == "live"})
    if len(kinds) > 1:
        problems.append(Problem(f"Different versions serve: {', '.join(kinds)}. Upgrade them all."))
    return problems


def _of_jobs(jobs: list[JobRow]) -> list[Problem]:
    return [Problem(f"The job '{job.name}' fails: {job.error}") for job in jobs if job.error]


def _of_notifications(undelivered: Undelivered, unheard: int) -> list[Problem]:
    problems = []
    if undelivered.given_up:
        said = "notification was" if undelivered.given_up == 1 else "notifications were"
        problems.append(Problem(f"{undelivered.given_up} {said} given up: see whether the mail server still answers."))
    if undelivered.waiting:
        problems.append(Problem(f"{undelivered.waiting} of the notifications failed and are tried again."))
    if unheard:
        said = "There is one" if unheard == 1 else f"There are {unheard}"
        problems.append(
            Problem(
                f"{said} with a budget, and nobody is told when it runs out: set OSTIARY_SMTP_URL or add a webhook."
            )
        )
    return problems


def _settings(visit: Visit) -> list[tuple[str, str, str]]:
    """Variable, value and meaning of each; a secret is only said to be set. Who may not see them sees none."""
    if not visit.by.may("settings.show", None):
        return []
    rows = []
    for one in describe():
        value = getattr(visit.hall.settings, one.name)
        if value is None:
            shown = "not set"
        elif one.is_secret:
            shown = "set"
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        rows.append((one.variable, shown, one.says))
    return rows
