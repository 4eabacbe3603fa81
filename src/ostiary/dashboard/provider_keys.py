"""The vault: provider keys in a list, one with all that is known of it, and what is done to one."""

from __future__ import annotations

from ostiary.dashboard import provider_key_views
from ostiary.dashboard.answers import Answer
from ostiary.dashboard.provider_key_views import Asked
from ostiary.dashboard.visit import Visit
from ostiary.orgs import roles
from ostiary.vault import aliases, entry, key_uses, provider_keys
from ostiary.vault.endpoint_store import EVERYBODY, list_keyed_providers
from ostiary.vault.provider_keys import ProviderKeyEdit
from ostiary.vault.seal import Undecryptable
from ostiary.vault.store import get_provider_key
from ostiary.vault.trial import TestResult

VAULT = "/dashboard/vault"


async def list_(visit: Visit) -> Answer:
    """The organization's keys that fit the filters; nothing is opened for it."""
    await visit.hall.flush()
    asked = Asked.of(visit.query)
    async with visit.reading() as tx:
        keys = await provider_keys.list_(tx, visit.by, visit.home)
        found = await key_uses.stand(tx, keys, visit.at)
        shown, following = provider_key_views.cut(found, asked)
        uses = await provider_key_views.count_uses(tx, visit.home, [one.key for one in shown])
        pool = await list_keyed_providers(tx, EVERYBODY) if not keys else set()
    return visit.page(
        "provider_keys/rows.html" if visit.is_partial else "provider_keys/list.html",
        asked=asked,
        shown=shown,
        following=following,
        uses=uses,
        total=len(found),
        fitting=sum(1 for one in found if asked.fits(one)),
        pool=sorted(pool),
        providers=sorted({key.provider for key in keys}),
        states=sorted({one.status for one in found}),
        tags=sorted({tag for key in keys for tag in key.tags}),
    )


async def show(visit: Visit) -> Answer:
    """One key: where it goes, how it is, what it may, who leans on it; never its secret."""
    await visit.hall.flush()
    async with visit.reading() as tx:
        key = await provider_keys.show(tx, visit.by, visit.home, visit.names["id"], seal=visit.hall.seal)
        detail = await provider_key_views.detail(tx, visit, key)
    row = visit.hall.catalog.find(key.provider)
    labels = {one.name: one.label for one in row.fields_of(key.auth)} if row else {}
    return visit.page("provider_keys/show.html", detail=detail, row=row, labels=labels)


async def test(visit: Visit) -> Answer:
    """Make the provider's cheapest call with the stored key, and say what came of it."""
    hall = visit.hall
    try:
        async with visit.reading() as tx:
            key, secret = await provider_keys.open_for_test(tx, visit.by, visit.home, visit.names["id"], seal=hall.seal)
    except Undecryptable:
        words = "The stored secret does not open with this gateway's master key. Edit the key and enter it again."
        return visit.page("provider_keys/tested.html", result=TestResult("unknown", words), at=visit.at)
    result = await entry.probe_once(hall.egress, hall.catalog.get(key.provider), key, secret)
    return visit.page("provider_keys/tested.html", result=result, at=hall.clock.now())


async def reset(visit: Visit) -> Answer:
    """Forget everything that is held against a key."""
    async with visit.writing() as tx:
        key = await provider_keys.reset(tx, visit.by, visit.home, visit.names["id"], visit.at)
    return visit.go(
        f"{VAULT}/{key.id}", said="Everything held against this key is forgotten. The next call may use it."
    )


async def share(visit: Visit) -> Answer:
    """Let every organization use a key, or take it back."""
    is_shared, hall = visit.form.text("shared") == "yes", visit.hall
    async with visit.writing() as tx:
        key = await get_provider_key(tx, visit.home, visit.names["id"], lock=True)
        edit = ProviderKeyEdit(hall.catalog.get(key.provider), {"shared": is_shared})
        key = await provider_keys.change(
            tx, visit.by, visit.home, key.id, edit, seal=hall.seal, egress=hall.egress, at=visit.at
        )
        if is_shared:  # the first keys of a pool make the first aliases, whoever shares them
            await aliases.make_first(tx, roles.system("dashboard"), catalog=hall.catalog, at=visit.at)
    said = "It is shared with the pool." if is_shared else "It is private again: only your organization uses it."
    return visit.go(f"{VAULT}/{key.id}", said=said)


async def delete(visit: Visit) -> Answer:
    """Forget a key and its credential; what leans on it keeps it, unless somebody has said that it need not."""
    force = visit.form.has("force")
    async with visit.writing() as tx:
        key = await provider_keys.remove(tx, visit.by, visit.home, visit.names["id"], visit.at, force=force)
    return visit.go(VAULT, said=f"The provider key {key.name[:60]} is deleted.")
