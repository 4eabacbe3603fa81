"""Provider keys added and edited: the form, the test of a connection before anything is saved, and the deed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from ostiary.dashboard import answers, provider_key_forms
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.forms import Wrong
from ostiary.dashboard.provider_key_forms import Clash, Typed, typed, typed_at_first, typed_of
from ostiary.dashboard.provider_keys import VAULT
from ostiary.dashboard.visit import Visit
from ostiary.db.database import Transaction
from ostiary.errors import Refusal
from ostiary.ids import new_id
from ostiary.orgs import roles, sessions
from ostiary.providers import shape
from ostiary.providers.catalog import Provider
from ostiary.secret import Secret
from ostiary.vault import aliases, entry, provider_keys
from ostiary.vault.fields import wrong
from ostiary.vault.provider_keys import ProviderKey, ProviderKeyEdit
from ostiary.vault.seal import Undecryptable
from ostiary.vault.store import get_provider_key
from ostiary.vault.trial import TestResult

_OF_THE_CALL: Final = frozenset({"secret", "base_url", "fields", "auth"})
"""What a test says something new of, when it is changed."""
_ANYWAY: Final = "Tick 'Save it anyway' to save it all the same."
_CONFLICT: Final = 409


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the form is shown with, the first time and after a refusal."""

    row: Provider
    it: Typed
    key: ProviderKey | None = None
    wrong: Wrong = field(default_factory=Wrong)
    result: TestResult | None = None
    clashes: tuple[Clash, ...] = ()
    is_late: bool = False
    status: int = 200


# ---- a new one ------------------------------------------------------------------------------------------------------


async def show_new(visit: Visit) -> Answer:
    """The form for a key of the provider that was picked; without one, the catalogue is where to pick."""
    wanted = visit.query.text("provider")
    row = visit.hall.catalog.find(wanted)
    if row is None:
        return visit.go(
            f"{VAULT}/providers", said="Pick the provider that the key is for." if wanted else None, kind="info"
        )
    return _form(visit, _Shown(row, typed_at_first(row)))


async def try_new(visit: Visit) -> Answer:
    """Test what was typed before anything is saved; what could never be saved is told without asking the provider."""
    row = _row(visit)
    secret, hall = Secret(visit.form.raw("secret")), visit.hall
    wish = typed(visit.form, row).to_try(row, secret, new_id("try", visit.at))

    async def save(tx: Transaction) -> tuple[ProviderKey, ProviderKey | None]:
        key = await provider_keys.add(tx, visit.by, visit.home, wish, seal=hall.seal, egress=hall.egress, at=visit.at)
        return key, await _twin(tx, visit, key, secret)

    try:
        key, twin = await entry.rehearse(hall.database, save)
        await entry.require_way_out(hall.egress, row, key)
    except Refusal as refusal:
        return _not_tried(visit, refusal, row)
    result = await entry.probe_once(hall.egress, row, key, secret)
    return _tested(visit, row, key, secret, result, twin)


async def add(visit: Visit) -> Answer:
    """Seal a credential in the vault, after asking the provider about it."""
    row, form, hall = _row(visit), visit.form, visit.hall
    it, secret = typed(form, row), Secret(form.raw("secret"))
    if it.shared and not sessions.is_proved(visit.here.session, visit.at):
        return _asks_proof()
    result: TestResult | None = None

    async def save(tx: Transaction) -> ProviderKey:
        return await provider_keys.add(
            tx, visit.by, visit.home, it.wish(row, secret), seal=hall.seal, egress=hall.egress, at=visit.at
        )

    try:
        key = await entry.rehearse(hall.database, save)
        await entry.require_way_out(hall.egress, row, key)
        if not form.has("anyway"):
            result = await entry.probe_once(hall.egress, row, key, secret)
            entry.require_passed(row, result, _ANYWAY)
        async with visit.writing() as tx:
            key = await save(tx)
            await _make_first_aliases(tx, visit, key)
    except Refusal as refusal:
        return _form(visit, _again(visit, refusal, _Shown(row, it, result=result)))
    return visit.go(f"{VAULT}/{key.id}", said=_saved_words(key, result, shape.remark(row, secret)))


# ---- one that is there ----------------------------------------------------------------------------------------------


async def show_edit(visit: Visit) -> Answer:
    """The form with what is stored; the secret is not."""
    async with visit.reading() as tx:
        key = await provider_keys.show(tx, visit.by, visit.home, visit.names["id"], seal=visit.hall.seal)
    return _form(visit, _Shown(_row_of(visit, key), typed_of(key), key))


async def try_edit(visit: Visit) -> Answer:
    """Test what was typed, with the new secret or the stored one, before anything is changed."""
    hall = visit.hall
    key = await _stored(visit)
    row = _row_of(visit, key)
    it = typed(visit.form, row)

    async def save(tx: Transaction) -> tuple[ProviderKey, Secret]:
        wished = {name: value for name, value in _wished(visit, it, key, row).items() if name in _OF_THE_CALL}
        return await _change(tx, visit, key, ProviderKeyEdit(row, wished))

    try:
        edited, secret = await entry.rehearse(hall.database, save)
        await entry.require_way_out(hall.egress, row, edited)
    except Undecryptable:
        return _not_tried(visit, _unopened(), row)
    except Refusal as refusal:
        return _not_tried(visit, refusal, row)
    result = await entry.probe_once(hall.egress, row, edited, secret)
    return _tested(visit, row, edited, secret, result, None)


async def change(visit: Visit) -> Answer:
    """Edit in place: id, sharing and history stay. What somebody else has changed meanwhile is shown, not undone."""
    form, hall = visit.form, visit.hall
    key = await _stored(visit)
    row = _row_of(visit, key)
    it = typed(form, row)
    if form.text("seen_at") != str(key.updated_at):
        return _form(visit, _late(visit, row, it, key))
    result: TestResult | None = None
    try:
        edit = ProviderKeyEdit(row, _wished(visit, it, key, row))
        if edit.wished.keys() & _OF_THE_CALL:
            is_tested = not form.has("anyway")
            tried, secret = await entry.rehearse(
                hall.database, lambda tx: _change(tx, visit, key, edit, opens=is_tested)
            )
            await entry.require_way_out(hall.egress, row, tried)
            if is_tested:
                result = await entry.probe_once(hall.egress, row, tried, secret)
                entry.require_passed(row, result, _ANYWAY)
        async with visit.writing() as tx:
            now = await get_provider_key(tx, visit.home, key.id, lock=True)
            if now.updated_at != key.updated_at:
                return _form(visit, _late(visit, row, it, now))
            edited = await provider_keys.change(
                tx, visit.by, visit.home, key.id, edit, seal=hall.seal, egress=hall.egress, at=visit.at
            )
    except Undecryptable:
        return _form(visit, _again(visit, _unopened(), _Shown(row, it, key, result=result)))
    except Refusal as refusal:
        return _form(visit, _again(visit, refusal, _Shown(row, it, key, result=result)))
    return visit.go(
        f"{VAULT}/{edited.id}", said="Saved. Calls use it from now on." if edit.wished else "Nothing was changed."
    )


async def _stored(visit: Visit) -> ProviderKey:
    visit.by.require("provider_keys.edit", visit.home)
    async with visit.reading() as tx:
        return await get_provider_key(tx, visit.home, visit.names["id"])


def _wished(visit: Visit, it: Typed, key: ProviderKey, row: Provider) -> dict[str, object]:
    """What is to change; an empty secret is none that was typed."""
    wished = it.edit(key, row)
    if visit.form.raw("secret").strip():
        wished["secret"] = Secret(visit.form.raw("secret"))
    elif visit.form.has("drop_secret"):
        wished["secret"] = None
    return wished


async def _change(
    tx: Transaction, visit: Visit, key: ProviderKey, edit: ProviderKeyEdit, *, opens: bool = True
) -> tuple[ProviderKey, Secret]:
    """The key as it would be, and the secret it would go with: opened in its old place, if none was entered."""
    hall = visit.hall
    given = edit.wished.get("secret")
    secret = given if isinstance(given, Secret) else Secret("")
    if opens and "secret" not in edit.wished:
        secret = await provider_keys.open_secret(tx, hall.seal, key)
    edited = await provider_keys.change(
        tx, visit.by, visit.home, key.id, edit, seal=hall.seal, egress=hall.egress, at=visit.at
    )
    return edited, secret


# ---- what they have in common ---------------------------------------------------------------------------------------


def _row(visit: Visit) -> Provider:
    return visit.hall.catalog.get(visit.form.text("provider"))


def _row_of(visit: Visit, key: ProviderKey) -> Provider:
    """The catalogue's row of a stored key; one that is no longer there can only be deleted."""
    row = visit.hall.catalog.find(key.provider)
    if row is None:
        words = f"The catalogue has no provider {key.provider!r} any more, so its key cannot be edited. Delete it."
        raise Refusal("conflict", words)
    return row


async def _twin(tx: Transaction, visit: Visit, key: ProviderKey, secret: Secret) -> ProviderKey | None:
    """Another key with the very same secret, while this one is there only to be tried."""
    if not secret:
        return None
    twin = await provider_keys.find_twin(tx, visit.by, visit.home, key.provider, secret, seal=visit.hall.seal)
    return None if twin is None or twin.id == key.id else twin


async def _make_first_aliases(tx: Transaction, visit: Visit, key: ProviderKey) -> None:
    """The first keys of a pool make the first aliases, whoever shares them."""
    if key.shared:
        await aliases.make_first(tx, roles.system("dashboard"), catalog=visit.hall.catalog, at=visit.at)


def _tested(
    visit: Visit, row: Provider, key: ProviderKey, secret: Secret, result: TestResult, twin: ProviderKey | None
) -> Answer:
    known: dict[str, Any] = {"result": result, "twin": twin, "origin": key.origin, "at": visit.hall.clock.now()}
    return visit.page("provider_keys/tested.html", **known, remark=shape.remark(row, secret))


def _saved_words(key: ProviderKey, result: TestResult | None, remark: str) -> str:
    said = f"It was not tested. {remark}".rstrip() if result is None else result.message[:120]
    return f"{key.name[:60]} is in the vault. {said}"


def _unopened() -> Refusal:
    return wrong("secret", "The stored secret does not open with this gateway's master key. Enter it again.")


def _asks_proof() -> Answer:
    """To share takes a recent sign-in: the dialog for it, and the form is sent again after."""
    return answers.html("", 401).header(b"x-ostiary-sign-in", "proof").header(b"hx-reswap", "none")


def _not_tried(visit: Visit, refusal: Refusal, row: Provider) -> Answer:
    found = visit.refused(refusal)
    said = provider_key_forms.placed(refusal, row)
    return visit.page(
        "provider_keys/not_tested.html",
        refusal.status,
        message=said.message or found.message,
        label=provider_key_forms.label_of(said.name, row) if said.name else "",
    )


def _again(visit: Visit, refusal: Refusal, shown: _Shown) -> _Shown:
    """The form once more, with what is wrong; what a test said stands where tests are shown."""
    visit.refused(refusal)
    is_test = refusal.param == "test"
    said = Wrong() if is_test else provider_key_forms.placed(refusal, shown.row)
    return _Shown(shown.row, shown.it, shown.key, said, shown.result if is_test else None, status=refusal.status)


def _late(visit: Visit, row: Provider, it: Typed, now: ProviderKey) -> _Shown:
    """Somebody else has edited it since this form was made: nothing is written, and both are shown."""
    found = provider_key_forms.clashes(visit.form.raw("was"), typed_of(now), it, row)
    return _Shown(row, it, now, clashes=tuple(found), is_late=True, status=_CONFLICT)


def _form(visit: Visit, shown: _Shown) -> Answer:
    key = shown.key
    known: dict[str, Any] = {
        "row": shown.row,
        "it": shown.it,
        "key": key,
        "wrong": shown.wrong,
        "result": shown.result,
        "clashes": shown.clashes,
        "is_late": shown.is_late,
        "is_anyway": visit.form.has("anyway"),
        "seen_at": key.updated_at if key else "",
        "was": json.dumps(typed_of(key).plain(), ensure_ascii=False) if key else "",
        "region": visit.form.text("region"),
        "counts": provider_key_forms.COUNTS,
        "twin": None,
        "remark": shape.remark(shown.row, Secret(visit.form.raw("secret"))) if shown.result else "",
        "shape": shape.hint(shown.row),
        "at": visit.at,
    }
    return visit.page(
        "provider_keys/form.html" if visit.is_partial else "provider_keys/edit.html", shown.status, **known
    )
