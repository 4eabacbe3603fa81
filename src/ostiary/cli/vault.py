"""`ostiary vault`: provider keys, the credentials that go out."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from ostiary.cli import key_options, providers, rekey, show, vault_import, vault_options, vault_views
from ostiary.cli.desk import Desk, Where, at_desk, read_secret
from ostiary.cli.options import DataDir, Json, Name, Org, SecretStdin
from ostiary.cli.vault_options import BaseUrl, NoTest, mapping, settings
from ostiary.cli.vault_views import described, tested
from ostiary.db.database import Transaction
from ostiary.providers import shape
from ostiary.providers.catalog import Provider
from ostiary.secret import Secret
from ostiary.vault import aliases, entry, key_uses, provider_keys
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey, ProviderKeyEdit
from ostiary.vault.trial import TestResult

app: Final = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)
app.command("import")(vault_import.import_)
app.command("providers")(providers.list_)
app.command("rekey")(rekey.rekey)

_ANYWAY: Final = "To save it anyway, add --no-test."


@app.command()
def add(  # noqa: PLR0913 - one argument an option
    provider: Annotated[str, typer.Argument(help="The provider's id, such as openai.", show_default=False)],
    *,
    name: Annotated[str, typer.Option("--name", help="Its name, unique in the organization.", show_default=False)],
    base_url: BaseUrl = None,
    auth: vault_options.Auth = None,
    field: vault_options.Field = None,
    secret_stdin: SecretStdin = False,
    shared: Annotated[bool, typer.Option("--shared", help="Let every organization use it.")] = False,
    priority: vault_options.Priority = None,
    weight: vault_options.Weight = None,
    strategy: vault_options.HowUsed = None,
    free_tier: vault_options.FreeTier = None,
    account: vault_options.Account = None,
    tag: vault_options.Tag = None,
    rpm: key_options.Rpm = None,
    rpd: key_options.Rpd = None,
    tpm: key_options.Tpm = None,
    parallel: key_options.Parallel = None,
    spend_cap: vault_options.SpendCap = None,
    spend_warn: vault_options.SpendWarn = None,
    no_test: NoTest = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Seal a credential in the vault, after testing it. It is read from a hidden prompt or from standard input."""
    limits = key_options.limits(rpm=rpm, rpd=rpd, tpm=tpm, parallel=parallel)
    budget = vault_options.budget(spend_cap, spend_warn)
    given: dict[str, Any] = settings(
        account=account, tags=tag, limits=limits,
        base_url=base_url, auth=auth, shared=shared, priority=priority, weight=weight, strategy=strategy,
        free_tier=free_tier, budget=budget,
    )  # fmt: skip

    async def deed(desk: Desk) -> dict[str, Any]:
        row = desk.ground.catalog.get(provider)
        secret = _new_secret(row, from_stdin=secret_stdin)
        return await _add(desk, NewProviderKey(name, row, secret, fields=mapping(field), **given), no_test=no_test)

    vault_views.print_done(at_desk(Where(data_dir, org), deed), json=json, done="is in the vault")


async def _add(desk: Desk, wish: NewProviderKey, *, no_test: bool) -> dict[str, Any]:
    async def save(tx: Transaction) -> ProviderKey:
        organization, ground = await desk.organization(tx), desk.ground
        return await provider_keys.add(
            tx, desk.by, organization.id, wish, seal=ground.seal, egress=ground.egress, at=desk.at
        )

    rehearsed = await entry.rehearse(desk.ground.database, save)
    await entry.require_way_out(desk.ground.egress, wish.provider, rehearsed)
    result = None if no_test else await _test(desk, wish.provider, rehearsed, wish.secret)
    _remark(wish.provider, wish.secret, result)
    async with desk.ground.database.transaction() as tx:
        key = await save(tx)
        if key.shared:  # the first keys of a pool make the first aliases
            await aliases.make_first(tx, desk.by, catalog=desk.ground.catalog, at=desk.at)
        return await _shown(tx, desk, key) | tested(result)


@app.command("list")
def list_(
    *,
    provider: Annotated[str | None, typer.Option("--provider", help="Only keys of this provider.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only keys with this tag.")] = None,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """The provider keys of an organization, and how they are. Nothing is opened for it."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            keys = await provider_keys.list_(tx, desk.by, organization.id)
            wanted = [key for key in keys if provider in (None, key.provider) and (tag is None or tag in key.tags)]
            return [described(one) for one in await key_uses.stand(tx, wanted, desk.at)]

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
        return
    empty = "The vault is empty. 'ostiary vault add PROVIDER --name NAME' adds a key."
    show.print_table(
        [column.replace("_", " ") for column in vault_views.COLUMNS],
        [[key[column] for column in vault_views.COLUMNS] for key in found],
        "There is no such provider key." if provider or tag else empty,
    )


@app.command("show")
def show_(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """One provider key: whether its secret still opens, how it is, and what uses it; never the secret."""

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            key = await provider_keys.show(tx, desk.by, organization.id, name, seal=desk.ground.seal)
            return await _shown(tx, desk, key)

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
    else:
        vault_views.print_one(found)


@app.command("test")
def probe(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Make the provider's cheapest call with the stored key. Exit code 1 unless the provider accepts it."""

    async def deed(desk: Desk) -> tuple[ProviderKey, TestResult]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            key, secret = await provider_keys.open_for_test(tx, desk.by, organization.id, name, seal=desk.ground.seal)
        return key, await entry.probe_once(desk.ground.egress, desk.ground.catalog.get(key.provider), key, secret)

    key, result = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json({"id": key.id, "name": key.name, **tested(result)["test"]})
    else:
        show.say(f"{key.name}: {result.outcome}. {result.message}")
    if result.outcome != "valid":
        raise typer.Exit(1)


@app.command()
def edit(  # noqa: PLR0913 - one argument an option
    name: Name,
    *,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    base_url: BaseUrl = None,
    auth: vault_options.Auth = None,
    field: vault_options.Field = None,
    secret_stdin: SecretStdin = False,
    ask_secret: Annotated[bool, typer.Option("--ask-secret", help="Ask for a new secret in a hidden prompt.")] = False,
    shared: Annotated[
        bool | None, typer.Option("--shared/--private", help="Who may use it.", show_default=False)
    ] = None,
    priority: vault_options.Priority = None,
    weight: vault_options.Weight = None,
    strategy: vault_options.HowUsed = None,
    free_tier: vault_options.FreeTier = None,
    account: vault_options.Account = None,
    tag: vault_options.Tag = None,
    rpm: key_options.Rpm = None,
    rpd: key_options.Rpd = None,
    tpm: key_options.Tpm = None,
    parallel: key_options.Parallel = None,
    spend_cap: vault_options.SpendCap = None,
    spend_warn: vault_options.SpendWarn = None,
    no_test: NoTest = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Change what is given, in place; what is not given stays. `--field K=` clears a field, 'none' a limit.

    Another origin needs the secret again, because a credential only goes where it was entered for.
    """
    limits = key_options.limits(rpm=rpm, rpd=rpd, tpm=tpm, parallel=parallel)
    given = settings(
        account=account, tags=tag, limits=limits,
        name=new_name, base_url=base_url, auth=auth, shared=shared, priority=priority, weight=weight,
        strategy=strategy, free_tier=free_tier,
    )  # fmt: skip
    wish = _Edit(given, mapping(field), spend_cap, spend_warn, asks=secret_stdin or ask_secret, stdin=secret_stdin)
    if not wish.is_anything:
        raise typer.BadParameter("Nothing to change was given.")
    edited = at_desk(Where(data_dir, org), lambda desk: _edit(desk, name, wish, no_test=no_test))
    vault_views.print_done(edited, json=json, done="is changed")


@dataclass(frozen=True, slots=True)
class _Edit:
    """The options of an edit; what they come to depends on the key as it is."""

    given: dict[str, object]
    fields: dict[str, str] = field(default_factory=dict)
    cap: Any = None
    warn: Any = None
    asks: bool = False
    stdin: bool = False

    @property
    def is_anything(self) -> bool:
        return bool(self.given or self.fields or self.cap or self.warn or self.asks)

    @property
    def is_of_the_call(self) -> bool:
        """Whether calls will be made in another way, so that a test says something new."""
        return bool(self.fields or self.asks or self.given.keys() & {"base_url", "auth"})

    def of(self, key: ProviderKey, row: Provider) -> ProviderKeyEdit:
        """What is wished for of this key; asks for the secret, if it is to be entered."""
        wished = dict(self.given)
        if self.fields:
            wished["fields"] = {**key.fields, **self.fields}
        if self.cap or self.warn:
            wished["budget"] = vault_options.budget(self.cap, self.warn, key.budget)
        if self.asks:
            wished["secret"] = _new_secret(row, from_stdin=self.stdin)
        return ProviderKeyEdit(row, wished)


async def _edit(desk: Desk, name: str, wish: _Edit, *, no_test: bool) -> dict[str, Any]:
    is_tested = wish.is_of_the_call and not no_test
    # A secret that does not open any more can still be replaced: it is opened only to be tested.
    key, old_secret = await _open(desk, name, to_test=is_tested and not wish.asks)
    row = desk.ground.catalog.get(key.provider)
    change = wish.of(key, row)

    async def save(tx: Transaction) -> ProviderKey:
        ground = desk.ground
        return await provider_keys.change(
            tx, desk.by, key.organization_id, key.id, change, seal=ground.seal, egress=ground.egress, at=desk.at
        )

    result = None
    if wish.is_of_the_call:
        rehearsed = await entry.rehearse(desk.ground.database, save)
        await entry.require_way_out(desk.ground.egress, row, rehearsed)
    if is_tested:
        secret = change.wished.get("secret", old_secret)
        result = await _test(desk, row, rehearsed, secret if isinstance(secret, Secret) else Secret(""))
    entered = change.wished.get("secret")
    if isinstance(entered, Secret):
        _remark(row, entered, result)
    async with desk.ground.database.transaction() as tx:
        edited = await save(tx)
        if edited.shared:
            await aliases.make_first(tx, desk.by, catalog=desk.ground.catalog, at=desk.at)
        return await _shown(tx, desk, edited) | tested(result)


@app.command()
def reset(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Forget what is held against a key: the next call may use it. For when you know better than its last failures."""

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            return await _shown(tx, desk, await provider_keys.reset(tx, desk.by, organization.id, name, desk.at))

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
    else:
        show.say(f"The provider key {found['name']!r} counts as {found['status']} again.")


@app.command()
def delete(
    name: Name,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also when endpoints or aliases are served by it.")] = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Forget a provider key and its credential. This cannot be undone; the ledger keeps its name."""

    async def deed(desk: Desk) -> ProviderKey:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            return await provider_keys.remove(tx, desk.by, organization.id, name, desk.at, force=force)

    key = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json({"id": key.id, "name": key.name, "deleted": True})
    else:
        show.say(f"The provider key {key.name!r} is deleted.")


# ---- what they have in common -------------------------------------------------------------------------------------


async def _open(desk: Desk, name: str, *, to_test: bool) -> tuple[ProviderKey, Secret | None]:
    async with desk.ground.database.read() as tx:
        organization = await desk.organization(tx)
        key = await provider_keys.show(tx, desk.by, organization.id, name, seal=desk.ground.seal)
        return key, await provider_keys.open_secret(tx, desk.ground.seal, key) if to_test else None


async def _test(desk: Desk, row: Provider, key: ProviderKey, secret: Secret) -> TestResult:
    """The outcome of a test that lets the key be saved, or a refusal."""
    result = await entry.probe_once(desk.ground.egress, row, key, secret)
    entry.require_passed(row, result, _ANYWAY)
    return result


async def _shown(tx: Transaction, desk: Desk, key: ProviderKey) -> dict[str, Any]:
    (standing,) = await key_uses.stand(tx, [key], desk.at)
    uses, left = await key_uses.find_uses(tx, desk.by, key), await key_uses.list_left(tx, key, desk.at)
    return described(standing, uses, left)


def _remark(row: Provider, secret: Secret, result: TestResult | None) -> None:
    """What a key that nobody has proved looks like, beside the output."""
    said = shape.remark(row, secret) if result is None or result.outcome != "valid" else ""
    if said:
        show.warn(said)


def _new_secret(row: Provider, *, from_stdin: bool) -> Secret:
    if not from_stdin and sys.stdin.isatty() and (hint := shape.hint(row)):
        show.warn(hint)
    return read_secret(f"API key of {row.name}", from_stdin=from_stdin, is_optional=row.key_optional)
