"""Letters that pages send: to who is invited, and to who has forgotten a password."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.logs import get
from ostiary.mail import Letter, Mailer, Template, Unsent
from ostiary.secret import Secret

_MOST: Final = 50
"""Letters that may wait at once to be handed in."""
_LAST_S: Final = 5.0
"""For those that are on their way at the end."""

_INVITED: Final = Template(
    "$by invites you to $organization",
    "$by invites you to the organization $organization of the AI gateway at $base, as $role.\n\n"
    "To accept, open this link within 72 hours; it works once:\n\n$link\n\n"
    "If you do not know what this is about, do nothing: without you nothing happens.\n",
)
_FORGOTTEN: Final = Template(
    "A new password for $base",
    "Somebody, you we hope, asked for a new password for $email at the AI gateway $base.\n\n"
    "To choose one, open this link within an hour; it works once:\n\n$link\n\n"
    "If it was not you, do nothing: your password stays as it is.\n",
)


class Post:
    """Hands letters in beside the answer, so that how long it takes tells nobody whether there was one."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()

    def later(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it soon, and log what goes wrong; refuses when too much waits."""
        if len(self._under_way) >= _MOST:
            raise Refusal("service_unavailable", "Too many ask for this at the moment. Try again in a minute.")
        task = asyncio.create_task(_done(work))  # noqa: TID251 - kept below until it ends; it raises nothing
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Let what is on its way arrive: whoever asked for it was told that it comes, and nobody else will send it."""
        if not self._under_way:
            return
        log = get("dashboard")
        log.info("letters.awaited", letters=len(self._under_way))
        _, late = await asyncio.wait(self._under_way, timeout=_LAST_S)
        for task in late:
            task.cancel()
        if late:
            log.warning("letters.unsent", letters=len(late))
            await asyncio.wait(late)


async def _done(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except (Unsent, Refusal) as error:
        get("dashboard").warning("letter.unsent", reason=str(error))
    except Exception:  # noqa: BLE001 - nobody waits for it: the log is where it is told
        get("dashboard").exception("letter.failed")


async def send_invitation(
    mailer: Mailer, to: str, link: Secret, at: int, *, by: str, organization: str, role: str, base: str
) -> None:
    """Ask somebody in; raises Unsent."""
    facts = {"by": by, "organization": organization, "role": role, "base": base, "link": link.reveal()}
    await mailer.send(Letter(new_id("mail", at), to, *_INVITED.write(facts), at))


async def send_reset(mailer: Mailer, to: str, link: Secret, at: int, *, base: str) -> None:
    """The way to a new password; raises Unsent."""
    facts = {"email": to, "base": base, "link": link.reveal()}
    await mailer.send(Letter(new_id("mail", at), to, *_FORGOTTEN.write(facts), at))
