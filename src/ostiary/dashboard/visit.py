"""One look at a page: who looks, in which organization, what was typed, and how the page is answered."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from ostiary.actor import Actor, Denied
from ostiary.dashboard import answers, forms
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Form, Wrong
from ostiary.dashboard.hall import LOOPBACK, Hall, Line
from ostiary.dashboard.menu import menu
from ostiary.dashboard.render import Renderer
from ostiary.dashboard.routes import HOME, Route
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.orgs import tokens
from ostiary.orgs.organizations import Organization
from ostiary.orgs.sessions import Session
from ostiary.orgs.users import User

_PORT: Final = re.compile(r":\d*$")


def csrf_of(token: str, organization_id: str) -> str:
    """Whoever enters another organization in a second tab writes nothing into it from the first."""
    return tokens.derived(token, f"page of {organization_id}")


@dataclass(frozen=True, slots=True)
class Guest:
    """Who has signed in, as this very look found them."""

    session: Session
    token: str = field(repr=False)
    user: User
    by: Actor
    organization: Organization | None
    organizations: tuple[tuple[str, str], ...]
    """Id and name of all they can enter."""

    @property
    def csrf(self) -> str:
        """What their forms carry: told from the session's token, for the organization that the page shows."""
        return csrf_of(self.token, self.organization.id if self.organization else "")


@dataclass(slots=True)
class Visit:
    """Handed to the function that answers. A signed-in route has a guest; others may."""

    hall: Hall
    route: Route
    line: Line
    renderer: Renderer
    at: int
    address: str | None
    names: dict[str, str]
    """What the path names."""
    query: Form
    form: Form
    said: tuple[str, str] | None = None
    """What the page before has to say: kind and words."""
    guest: Guest | None = None
    cookies: list[str] = field(default_factory=list)

    @property
    def is_partial(self) -> bool:
        """Whether a script asks, for a part of the page."""
        headers = self.line.headers
        # Who goes back in the history gets a whole page, though it is a script that asks for it.
        return headers.get(b"hx-request") == b"true" and headers.get(b"hx-history-restore-request") != b"true"

    @property
    def here(self) -> Guest:
        """Who has signed in; routes that take a deed always have somebody."""
        assert self.guest is not None, "nobody has signed in"  # noqa: S101 - the door let them in
        return self.guest

    @property
    def by(self) -> Actor:
        """Who acts."""
        return self.here.by

    @property
    def home(self) -> str:
        """The id of the organization that is looked at."""
        organization = self.here.organization
        if organization is None:
            raise Refusal("not_found", "You belong to no organization. Ask to be invited to one.")
        return organization.id

    @property
    def agent(self) -> str:
        """What the browser calls itself."""
        return self.line.headers.get(b"user-agent", b"").decode("latin-1")[:200]

    @property
    def can_be_read(self) -> bool:
        """Whether others may read on the way what is typed: by plain http, but for what stays on the machine."""
        if self.hall.settings.public_url is not None:
            return not self.hall.is_https
        host = self.line.headers.get(b"host", b"").decode("latin-1").lower()
        return _PORT.sub("", host).strip("[]") not in LOOPBACK

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """A consistent view."""
        async with self.hall.database.read() as tx:
            yield tx

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Transaction]:
        """Everything or nothing."""
        async with self.hall.database.transaction() as tx:
            yield tx

    # ---- answers ----------------------------------------------------------------------------------------------------

    def page(self, template: str, status: int = 200, **context: Any) -> Answer:  # noqa: ANN401 - what templates take
        """A whole page, or the part of one that a script asked for: the template decides by `is_partial`."""
        return answers.html(self.renderer.text(template, self._known() | context), status)

    def refused(self, refusal: Refusal, names: dict[str, str] | None = None) -> Wrong:
        """What a form shows of a refusal; what was denied is the door's to note, and is raised again."""
        if isinstance(refusal, Denied) or refusal.code in ("not_found", "service_unavailable", "sealed"):
            raise refusal
        return forms.wrong(refusal, names)

    def go(self, path: str, said: str | None = None, kind: str = "success") -> Answer:
        """To another page of ours, which says `said` first."""
        return answers.elsewhere(path, is_partial=self.is_partial, said=said, kind=kind)

    def may(self, deed: str, owner_id: str | None = None) -> bool:
        """Whether a button is shown; the deed itself asks again."""
        guest = self.guest
        return guest is not None and guest.organization is not None and guest.by.may(deed, self.home, owner_id)

    def _known(self) -> dict[str, Any]:
        """What every template knows."""
        guest = self.guest
        return {
            "now": self.at,
            "is_partial": self.is_partial,
            "here": self.line.path,
            "query": self.query,
            "form": self.form,
            "wrong": Wrong(),
            "said": self.said,
            "guest": guest,
            "csrf": guest.csrf if guest else "",
            "menu": menu(self.line.path, guest.by, guest.organization) if guest else (),
            "may": self.may,
            "can_be_read": self.can_be_read,
            "home_path": HOME,
            "oidc_name": self.hall.oidc.name if self.hall.oidc is not None else "",
        }
