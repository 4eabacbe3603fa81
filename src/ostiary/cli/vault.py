"""`ostiary vault`: provider keys, the credentials that go out."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Final

import typer

from ostiary.cli import show, words
from ostiary.cli.desk import Desk, Where, at_desk, read_secret
from ostiary.cli.options import DataDir, Json, Name, Org, SecretStdin, reader
from ostiary.errors import Refusal
from ostiary.providers.catalog import Provider
from ostiary.providers.transport import Transport
from ostiary.secret import Secret
from ostiary.vault import provider_keys
from ostiary.vault.provider_keys import NewProviderKey, ProviderKey, ProviderKeyEdit, TestResult

app: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=__doc__)

_BaseUrl = Annotated[
    str | None, typer.Option("--base-url", help="Where its API is; needed where there is no usual one.")
]
_Field = Annotated[
    list[words.Pair] | None,
    typer.Option(
        "--field", parser=reader(words.pair), metavar="K=V", help="A field of the provider; given again for more."
    ),
]
_NoTest = Annotated[bool, typer.Option("--no-test", help="Save without testing the connection.")]


class _RehearsedError(Exception):
    """Ends a transaction that was only to show whether it would pass."""


@app.command()
def add(  # noqa: PLR0913 - one argument an option
    provider: Annotated[str, typer.Argument(help="The provider's id, such as openai.", show_default=False)],
    *,
    name: Annotated[str, typer.Option("--name", help="Its name, unique in the organization.", show_default=False)],
    base_url: _BaseUrl = None,
    field: _Field = None,
    secret_stdin: SecretStdin = False,
    shared: Annotated[bool, typer.Option("--shared", help="Let every organization use it.")] = False,
    no_test: _NoTest = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Seal a credential in the vault, after testing it. It is read from a hidden prompt or from standard input."""

    async def deed(desk: Desk) -> dict[str, Any]:
        row = desk.ground.catalog.get(provider)
        secret = _new_secret(row, from_stdin=secret_stdin)
        wish = NewProviderKey(name, row, secret, base_url, _mapping(field), shared)
        result = None if no_test else await _test(desk, row, await _add(desk, wish, rehearse=True), secret)
        key = await _add(desk, wish, rehearse=False)
        return _described(key) | _tested(result)

    _print(at_desk(Where(data_dir, org), deed), json=json, done="is in the vault")


@app.command("list")
def list_(*, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """All provider keys of an organization. Nothing is opened for it."""

    async def deed(desk: Desk) -> list[dict[str, Any]]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            return [_described(key) for key in await provider_keys.list_(tx, desk.by, organization.id)]

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
        return
    columns = ("name", "provider", "preview", "status", "shared", "base_url", "last_used_at", "id")
    show.print_table(
        [column.replace("_", " ") for column in columns],
        [[key[column] for column in columns] for key in found],
        "The vault is empty. 'ostiary vault add PROVIDER --name NAME' adds a key.",
    )


@app.command("show")
def show_(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """One provider key, and whether its secret still opens; never the secret."""

    async def deed(desk: Desk) -> dict[str, Any]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            return _described(await provider_keys.show(tx, desk.by, organization.id, name, seal=desk.ground.seal))

    found = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json(found)
    else:
        show.print_fields(found)


@app.command("test")
def probe(name: Name, *, org: Org = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Make the provider's cheapest call with the stored key. Exit code 1 unless the provider accepts it."""

    async def deed(desk: Desk) -> tuple[ProviderKey, TestResult]:
        async with desk.ground.database.read() as tx:
            organization = await desk.organization(tx)
            key, secret = await provider_keys.open_for_test(tx, desk.by, organization.id, name, seal=desk.ground.seal)
        return key, await _call(desk, desk.ground.catalog.get(key.provider), key, secret)

    key, result = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json({"id": key.id, "name": key.name, **_tested(result)["test"]})
    else:
        show.say(f"{key.name}: {result.outcome}. {result.message}")
    if result.outcome != "valid":
        raise typer.Exit(1)


@app.command()
def edit(  # noqa: PLR0913 - one argument an option
    name: Name,
    *,
    new_name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    base_url: _BaseUrl = None,
    field: _Field = None,
    secret_stdin: SecretStdin = False,
    ask_secret: Annotated[bool, typer.Option("--ask-secret", help="Ask for a new secret in a hidden prompt.")] = False,
    shared: Annotated[
        bool | None, typer.Option("--shared/--private", help="Who may use it.", show_default=False)
    ] = None,
    no_test: _NoTest = False,
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Change what is given, in place; what is not given stays. `--field K=` clears a field.

    Another origin needs the secret again, because a credential only goes where it was entered for.
    """
    if not (new_name or base_url or field or secret_stdin or ask_secret or shared is not None):
        raise typer.BadParameter("Nothing to change was given.")

    async def deed(desk: Desk) -> dict[str, Any]:
        key, old_secret = await _open(desk, name, to_test=not no_test and bool(base_url or field))
        row = desk.ground.catalog.get(key.provider)
        secret = _new_secret(row, from_stdin=secret_stdin) if secret_stdin or ask_secret else None
        fields = {**key.fields, **_mapping(field)} if field else None
        wish = ProviderKeyEdit(row, new_name, secret, base_url, fields, shared)
        result = None
        if not no_test and (base_url or field or secret):
            edited = await _change(desk, key, wish, rehearse=True)
            result = await _test(desk, row, edited, secret or old_secret or Secret(""))
        return _described(await _change(desk, key, wish, rehearse=False)) | _tested(result)

    _print(at_desk(Where(data_dir, org), deed), json=json, done="is changed")


@app.command()
def delete(
    name: Name,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also when it is in use.")] = False,  # noqa: ARG001 - see below
    org: Org = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Forget a provider key and its credential. This cannot be undone; the ledger keeps its name."""
    # Nothing can name a provider key yet, so none is in use; --force is part of the interface from the start.

    async def deed(desk: Desk) -> ProviderKey:
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            key = await provider_keys.show(tx, desk.by, organization.id, name, seal=desk.ground.seal)
            await provider_keys.remove(tx, desk.by, organization.id, key.id, desk.at)
            return key

    key = at_desk(Where(data_dir, org), deed)
    if json:
        show.print_json({"id": key.id, "name": key.name, "deleted": True})
    else:
        show.say(f"The provider key {key.name!r} is deleted.")


# ---- deeds, and their rehearsals --------------------------------------------------------------------------------
# What cannot be saved is refused before a credential goes anywhere, and no transaction waits for a provider: the deed
# is done and undone, then the connection is tested, then the deed is done.


async def _add(desk: Desk, wish: NewProviderKey, *, rehearse: bool) -> ProviderKey:
    kept: list[ProviderKey] = []
    with suppress(_RehearsedError):
        async with desk.ground.database.transaction() as tx:
            organization = await desk.organization(tx)
            ground = desk.ground
            kept.append(
                await provider_keys.add(
                    tx, desk.by, organization.id, wish, seal=ground.seal, egress=ground.egress, at=desk.at
                )
            )
            if rehearse:
                raise _RehearsedError
    return kept[0]


async def _change(desk: Desk, key: ProviderKey, wish: ProviderKeyEdit, *, rehearse: bool) -> ProviderKey:
    kept: list[ProviderKey] = []
    with suppress(_RehearsedError):
        async with desk.ground.database.transaction() as tx:
            ground = desk.ground
            kept.append(
                await provider_keys.change(
                    tx, desk.by, key.organization_id, key.id, wish, seal=ground.seal, egress=ground.egress, at=desk.at
                )
            )
            if rehearse:
                raise _RehearsedError
    return kept[0]


async def _open(desk: Desk, name: str, *, to_test: bool) -> tuple[ProviderKey, Secret | None]:
    """The key, and its secret only when it will be tested: one that does not open any more can still be replaced."""
    async with desk.ground.database.read() as tx:
        organization = await desk.organization(tx)
        key = await provider_keys.show(tx, desk.by, organization.id, name, seal=desk.ground.seal)
        return key, await provider_keys.open_secret(tx, desk.ground.seal, key) if to_test else None


async def _test(desk: Desk, row: Provider, key: ProviderKey, secret: Secret) -> TestResult:
    """The outcome of a test that lets the key be saved, or a refusal."""
    result = await _call(desk, row, key, secret)
    is_unproven = result.outcome == "unknown" and not row.test.proves
    if result.outcome != "valid" and not is_unproven:
        raise Refusal(
            "invalid_field",
            f"Nothing was saved: the test says {result.outcome}. {result.message}\nTo save it anyway, add --no-test.",
            outcome=result.outcome,
        )
    return result


async def _call(desk: Desk, row: Provider, key: ProviderKey, secret: Secret) -> TestResult:
    transport = Transport(desk.ground.egress)
    await transport.open()
    try:
        return await provider_keys.test(transport, row, key.base_url, key.fields, secret)
    finally:
        await transport.close()


def _new_secret(row: Provider, *, from_stdin: bool) -> Secret:
    return read_secret(f"API key of {row.name}", from_stdin=from_stdin, is_optional=row.key_optional)


def _mapping(pairs: list[words.Pair] | None) -> dict[str, str]:
    return {pair.name: pair.value for pair in pairs or ()}


# ---- what is printed --------------------------------------------------------------------------------------------


def _described(key: ProviderKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "provider": key.provider,
        "preview": key.preview,
        "status": key.status,
        "shared": key.shared,
        "base_url": key.base_url,
        "fields": dict(key.fields),
        "created_at": show.when(key.created_at),
        "updated_at": show.when(key.updated_at),
        "last_used_at": show.when(key.last_used_at),
    }


def _tested(result: TestResult | None) -> dict[str, Any]:
    return {"test": None if result is None else {"outcome": result.outcome, "message": result.message}}


def _print(described: Mapping[str, Any], *, json: bool, done: str) -> None:
    if json:
        show.print_json(described)
        return
    tested = described["test"]
    said = "It was not tested." if tested is None else tested["message"]
    show.say(f"The provider key {described['name']!r} ({described['preview'] or 'no secret'}) {done}. {said}")
