"""Every table on one page; times are milliseconds since the epoch (UTC), money is nano-dollars, lists are JSON."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Big = BigInteger().with_variant(Integer, "sqlite")
"""64 bits on both; SQLite counts rows itself only for INTEGER."""


def _id(name: str = "id", *, key: bool = True) -> Column[str]:
    return Column(name, String(64), primary_key=key, nullable=False)


def _ref(name: str, *, null: bool = False) -> Column[str]:
    return Column(name, String(64), nullable=null)


def _at(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null)


def _nano(name: str, *, null: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=null, server_default=None if null else "0")


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


def _list(name: str) -> Column[list[str]]:
    return Column(name, JSON, nullable=False, server_default=text("'[]'"))


def _no(name: str) -> Column[bool]:
    """A flag that is off unless somebody sets it."""
    return Column(name, Boolean, nullable=False, server_default=false())


def _partial(name: str, where: str, *columns: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


def _of_children(table: str, *columns: str) -> Index:
    return _partial(f"ix_{table}_parent_key", "parent_key_id IS NOT NULL", "parent_key_id", *columns)


# ---- the instance -----------------------------------------------------------------------------------------------

instance = Table(
    "instance", metadata, Column("name", String(64), primary_key=True), Column("value", Text, nullable=False)
)
"""Canary, sealed pepper and the like: one row a name."""

changes = Table(
    "changes",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=True),
    _at("at"),
    Column("noun", String(32), nullable=False),
    _ref("organization_id", null=True),
    _ref("id"),
)
"""The change feed: what a running gateway must read again."""

audit = Table(
    "audit",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=True),
    _at("at"),
    _ref("organization_id", null=True),
    Column("actor_kind", String(16), nullable=False),
    _ref("actor_id"),
    Column("actor_name", Text, nullable=False),
    Column("deed", String(64), nullable=False),
    Column("target_kind", String(32), nullable=False),
    _ref("target_id"),
    Column("target_name", Text, nullable=False),
    Column("before", JSON),
    Column("after", JSON),
    Column("origin", String(16), nullable=False),
    Column("address", String(64)),
    Column("result", String(32), nullable=False),
    Column("chain", String(64)),
    Column("number", BigInteger),
    Column("hash", LargeBinary(32)),
    Index(None, "chain", "number", unique=True),
    Index(None, "at"),
    Index(None, "organization_id", "at"),
    Index(None, "organization_id", "actor_id", "at"),
    Index(None, "organization_id", "actor_id", "deed", "at"),
    Index(None, "organization_id", "deed", "at"),
    Index(None, "organization_id", "target_id", "at"),
    Index(None, "organization_id", "target_name", "at"),
    Index(None, "organization_id", "result", "at"),
)
"""Each organization's rows are a chain of their own, `-` is the instance's. One index for each thing that is asked."""

# ---- people -----------------------------------------------------------------------------------------------------

organizations = Table(
    "organizations",
    metadata,
    _id(),
    Column("client_id", String(64), nullable=False, unique=True),
    Column("name", String(200), nullable=False, unique=True),
    _at("created_at"),
    Column("rpm", Integer),
    Column("rpd", Integer),
    Column("tpm", Integer),
    Column("parallel", Integer),
    _no("revocation_is_final"),
    Column("max_lifetime_ms", BigInteger),
    _no("allow_unpriced"),
    Column("trace_days", Integer),
    Column("content_days", Integer),
    _no("capture_is_forbidden"),
)
"""A tenant, its limits beside those of its keys, and its rules. Days of None: kept for ever."""

users = Table(
    "users",
    metadata,
    _id(),
    Column("email", String(320), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("is_operator", Boolean, nullable=False),
    _at("created_at"),
    Column("password_hash", Text),
    _at("password_changed_at", null=True),
    _at("email_verified_at", null=True),
)
"""Who has no password signs in by an identity, or not at all."""

members = Table(
    "members",
    metadata,
    _ref("organization_id"),
    _ref("user_id"),
    Column("role", String(16), nullable=False),
    _at("created_at"),
    PrimaryKeyConstraint("organization_id", "user_id"),
)

# ---- who signs in -----------------------------------------------------------------------------------------------

sessions = Table(
    "sessions",
    metadata,
    _id(),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    _ref("user_id"),
    _ref("organization_id", null=True),
    _at("created_at"),
    _at("seen_at"),
    _at("proved_at"),
    Column("address", String(64)),
    Column("agent", String(300)),
    Index(None, "user_id"),
    Index(None, "seen_at"),
)
"""Browsers that are signed in. An ended session is no row."""

sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    Column("subject", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    _at("last_at"),
    _at("until"),
    Index(None, "last_at"),
)
"""How often signing in has failed of late, by digest of an e-mail address or of a network address; `until` none may."""

links = Table(
    "links",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("kind", String(16), nullable=False),
    _ref("user_id", null=True),
    _at("created_at"),
    _at("expires_at"),
    _at("used_at", null=True),
    Index(None, "user_id", "created_at"),
    Index(None, "expires_at"),
)
"""Tokens that work once: set_up, or reset of a user's password."""

invitations = Table(
    "invitations",
    metadata,
    _id(),
    _ref("organization_id"),
    Column("email", String(320), nullable=False),
    Column("role", String(16), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    _ref("invited_by"),
    Column("invited_by_name", Text, nullable=False),
    _at("created_at"),
    _at("expires_at"),
    _at("accepted_at", null=True),
    _at("revoked_at", null=True),
    Index(None, "organization_id", "created_at"),
)

second_factors = Table(
    "second_factors",
    metadata,
    _ref("user_id"),
    Column("sealed", Text, nullable=False),
    Column("sealed_version", Integer, nullable=False),
    _at("created_at"),
    _at("confirmed_at", null=True),
    Column("last_step", BigInteger),
    PrimaryKeyConstraint("user_id"),
)
"""TOTP: asked for once it is confirmed. No code of `last_step` or before is taken again."""

recovery_codes = Table(
    "recovery_codes",
    metadata,
    _ref("user_id"),
    Column("digest", LargeBinary(32), nullable=False),
    _at("used_at", null=True),
    PrimaryKeyConstraint("user_id", "digest"),
)

identities = Table(
    "identities",
    metadata,
    Column("issuer", String(300), nullable=False),
    Column("subject", String(255), nullable=False),
    _ref("user_id"),
    _at("created_at"),
    PrimaryKeyConstraint("issuer", "subject"),
    Index(None, "user_id"),
)
"""Who a user is at an OpenID provider."""

# ---- keys that come in ------------------------------------------------------------------------------------------

agent_keys = Table(
    "agent_keys",
    metadata,
    _id(),
    _ref("organization_id"),
    _ref("owner_id", null=True),
    Column("name", String(200), nullable=False),
    Column("status", String(16), nullable=False),
    _at("expires_at", null=True),
    Column("scopes", JSON, nullable=False),
    Column("rpm", Integer),
    Column("rpd", Integer),
    Column("tpm", Integer),
    Column("parallel", Integer),
    Column("models_mode", String(8), nullable=False),
    Column("models", JSON, nullable=False),
    Column("providers_mode", String(8), nullable=False),
    Column("providers", JSON, nullable=False),
    Column("free_only", Boolean, nullable=False),
    Column("addresses_mode", String(8), nullable=False),
    Column("addresses", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    _no("capture"),
    _no("is_ephemeral"),
    _ref("parent_id", null=True),
    _at("created_at"),
    _at("updated_at"),
    _at("last_used_at", null=True),
    UniqueConstraint("organization_id", "name"),
    Index(None, "parent_id"),
    Index(None, "organization_id", "created_at", "id"),
)
"""The identity of a key; its budget stands in `budgets`, its secrets in `agent_key_secrets`."""

agent_key_secrets = Table(
    "agent_key_secrets",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    _ref("agent_key_id"),
    Column("preview", String(64), nullable=False),
    _at("created_at"),
    _at("expires_at", null=True),
    Index(None, "agent_key_id"),
)
"""Secrets are children of the key, so that rotation keeps identity, limits and history."""

client_credentials = Table(
    "client_credentials",
    metadata,
    _id(),
    _ref("organization_id"),
    Column("name", String(200), nullable=False),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("preview", String(160), nullable=False),
    _at("created_at"),
    _at("revoked_at", null=True),
    UniqueConstraint("organization_id", "name"),
)

# ---- keys that go out -------------------------------------------------------------------------------------------

data_keys = Table(
    "data_keys",
    metadata,
    _ref("organization_id"),
    Column("version", Integer, nullable=False),
    Column("wrapped", Text, nullable=False),
    _at("created_at"),
    PrimaryKeyConstraint("organization_id", "version"),
)

provider_keys = Table(
    "provider_keys",
    metadata,
    _id(),
    _ref("organization_id"),
    Column("name", String(200), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("base_url", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("fields", JSON, nullable=False),
    Column("sealed", Text, nullable=False),
    Column("sealed_version", Integer, nullable=False),
    Column("preview", String(32), nullable=False),
    Column("shared", Boolean, nullable=False),
    Column("status", String(16), nullable=False),
    _at("created_at"),
    _at("updated_at"),
    _at("last_used_at", null=True),
    Column("auth", String(32)),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("weight", Integer, nullable=False, server_default="1"),
    Column("strategy", String(8), nullable=False, server_default="rotate"),
    _no("free_tier"),
    Column("account", String(200)),
    _list("tags"),
    Column("rpm", Integer),
    Column("rpd", Integer),
    Column("tpm", Integer),
    Column("parallel", Integer),
    Column("added_by", String(320)),
    _no("by_operator"),
    UniqueConstraint("organization_id", "name"),
)
"""`auth` is a method of the catalogue's row, None its first; `strategy` is rotate or fill, and the highest `priority`
goes first. Keys of one `account` share its quota. What a key may spend stands in `budgets`."""

provider_key_health = Table(
    "provider_key_health",
    metadata,
    _ref("provider_key_id"),
    Column("model", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("failures", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    _at("since"),
    _at("until", null=True),
    PrimaryKeyConstraint("provider_key_id", "model"),
)
"""Keys that are not well, as gateways have found; an empty model is the whole key. Healthy is no row."""

provider_key_quotas = Table(
    "provider_key_quotas",
    metadata,
    _ref("provider_key_id"),
    Column("model", String(200), nullable=False),
    Column("what", String(24), nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Column("most", BigInteger, nullable=True),
    _at("resets_at", null=True),
    _at("heard_at"),
    Column("gateway", String(200), nullable=False),
    PrimaryKeyConstraint("provider_key_id", "model", "what"),
)
"""What providers said last of how much a key has left for a model, by the name of the gateway that heard it."""

endpoints = Table(
    "endpoints",
    metadata,
    _id(),
    _ref("organization_id"),
    Column("name", String(200), nullable=False),
    Column("strategy", String(8), nullable=False),
    Column("retries", Integer, nullable=False),
    Column("timeout_ms", BigInteger),
    _at("created_at"),
    _at("updated_at"),
    UniqueConstraint("organization_id", "name"),
)
"""Named routes. An empty organization makes an alias: the operator's, for everybody. `strategy` is split or first."""

endpoint_targets = Table(
    "endpoint_targets",
    metadata,
    _ref("endpoint_id"),
    Column("position", Integer, nullable=False),
    Column("provider", String(64), nullable=False),
    Column("model", String(200), nullable=False),
    _ref("provider_key_id", null=True),
    Column("weight", Integer, nullable=False, server_default="1"),
    _no("is_fallback"),
    PrimaryKeyConstraint("endpoint_id", "position"),
    Index(None, "provider_key_id"),
    Index(None, "provider"),
)
"""Where an endpoint leads, in order; without a provider key it is any that the caller may use."""

endpoint_uses = Table(
    "endpoint_uses",
    metadata,
    _ref("endpoint_id"),
    _ref("organization_id"),
    _ref("agent_key_id"),
    _at("last_used_at"),
    PrimaryKeyConstraint("endpoint_id", "agent_key_id"),
)

responses = Table(
    "responses",
    metadata,
    _ref("organization_id"),
    Column("id", String(200), nullable=False),
    _ref("provider_key_id"),
    Column("provider", String(64), nullable=False),
    Column("model", String(200), nullable=False),
    _at("created_at"),
    PrimaryKeyConstraint("organization_id", "id"),
    Index(None, "created_at"),
)
"""Which provider key made a response that its provider keeps: it alone can go on with it."""

# ---- money ------------------------------------------------------------------------------------------------------

price_overrides = Table(
    "price_overrides",
    metadata,
    Column("provider", String(64), nullable=False),
    Column("model", String(200), nullable=False),
    Column("rates", JSON, nullable=False),
    Column("version", String(64), nullable=False),
    _at("updated_at"),
    PrimaryKeyConstraint("provider", "model"),
)
"""Operator's prices: nano-dollars per million, by dimension."""

budgets = Table(
    "budgets",
    metadata,
    Column("scope", String(16), nullable=False),
    _ref("id"),
    Column("kind", String(8), nullable=False),
    _nano("cap_nano", null=True),
    _nano("soft_nano", null=True),
    Column("thresholds", JSON),
    PrimaryKeyConstraint("scope", "id"),
)
"""The hard cap that new period rows of an account start with; `kind` is day, month or total. `soft_nano` only warns;
`thresholds` are percents at which somebody is told, None the usual ones."""

accounts = Table(
    "accounts",
    metadata,
    Column("scope", String(16), nullable=False),
    _ref("id"),
    Column("period_id", String(16), nullable=False),
    _nano("cap_nano", null=True),
    _nano("spent_nano"),
    _nano("leased_nano"),
    PrimaryKeyConstraint("scope", "id", "period_id"),
)
"""The authority: spent + leased never passes the cap. A new period is a new row; nothing is reset."""

leases = Table(
    "leases",
    metadata,
    _ref("owner"),
    Column("scope", String(16), nullable=False),
    _ref("id"),
    Column("period_id", String(16), nullable=False),
    _nano("amount_nano"),
    _nano("used_nano"),
    _nano("charged_nano"),
    Column("mark", String(16)),
    PrimaryKeyConstraint("owner", "scope", "id", "period_id"),
    Index(None, "scope", "id", "period_id"),
)
"""What a spool may still spend of an account: amount - used. Of that, `charged_nano` stands in `accounts.spent_nano`
already, because its owner was retired; the rest in `accounts.leased_nano`. `mark` is lost while the owner is silent."""

window_leases = Table(
    "window_leases",
    metadata,
    _ref("owner"),
    Column("scope", String(16), nullable=False),
    _ref("id"),
    Column("window", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    _at("until", null=True),
    PrimaryKeyConstraint("owner", "scope", "id", "window"),
    Index(None, "scope", "id", "window"),
)
"""How much of a window (minute, tokens, parallel, day-N) is an owner's own to take. `until` is set when it will not be
given back any more: what a process had taken when it ended counts for so long."""

owners = Table(
    "owners",
    metadata,
    _id(),
    Column("name", String(200), nullable=False),
    Column("version", String(32), nullable=False),
    _at("started_at"),
    _at("heartbeat_at"),
    _at("closed_at", null=True),
    Column("revision", BigInteger),
    _at("retired_at", null=True),
)
"""Spools: one row for each start of a gateway process."""

# ---- what happened ----------------------------------------------------------------------------------------------

usage_events = Table(
    "usage_events",
    metadata,
    Column("request_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    _ref("owner"),
    _ref("organization_id"),
    _ref("agent_key_id", null=True),
    Column("agent_key_name", String(200)),
    _ref("credential_id", null=True),
    Column("operation", String(32), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("model_asked", String(200), nullable=False),
    Column("model", String(200), nullable=False),
    _ref("provider_key_id"),
    Column("provider_key_name", String(200), nullable=False),
    _count("input_tokens"),
    _count("output_tokens"),
    _count("cache_read_tokens"),
    _count("cache_write_tokens"),
    _count("reasoning_tokens"),
    _count("audio_tokens"),
    _nano("held_nano"),
    _nano("cost_nano"),
    _nano("over_hold_nano"),
    Column("price_version", String(64)),
    Column("usage_source", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("http_status", Integer, nullable=False),
    Column("error_code", String(64)),
    Column("stream", Boolean, nullable=False),
    _at("started_at"),
    Column("latency_ms", BigInteger, nullable=False),
    Column("first_token_ms", BigInteger),
    Column("timings", JSON, nullable=False),
    Column("client_ip", String(64)),
    Column("metadata", JSON, nullable=False),
    _ref("parent_key_id", null=True),
    Column("endpoint", String(200)),
    Column("model_served", String(200)),
    _count("images"),
    _at("held_at", null=True),
    _count("audio_ms"),
    _count("characters"),
    _count("searches"),
    PrimaryKeyConstraint("request_id", "attempt"),
    Index(
        "ix_usage_events_traces",
        *("organization_id", "started_at", "status", "provider", "model", "latency_ms", "cost_nano"),
    ),
    Index(None, "agent_key_id", "started_at"),
    _partial(
        *("ix_usage_events_endpoint", "endpoint IS NOT NULL"),
        *("organization_id", "endpoint", "started_at", "attempt", "status", "latency_ms", "cost_nano"),
    ),
    *(
        _partial(
            *(f"ix_usage_events_failed_of_{whose}", "status <> 'ok'"),
            *(f"{whose}_id", "status", "started_at", "attempt", "latency_ms", "cost_nano"),
        )
        for whose in ("organization", "agent_key")
    ),
    Index("ix_usage_events_provider_key", "organization_id", "provider_key_id", "started_at"),
    _of_children("usage_events", "started_at", "status", "latency_ms", "cost_nano"),
)
"""One row an attempt, written once; sums over it and the accounts agree. The period of `held_at` pays, None: of
`started_at`. The indexes hold what traces are filtered by, so that only rows that are shown are looked up."""


def _rollup(name: str, span: str, *indexes: Index) -> Table:
    """Sums of events by a span of time, one row for each caller, model and provider key that was used in it."""
    return Table(
        name,
        metadata,
        Column(span, BigInteger, nullable=False),
        _ref("organization_id"),
        _ref("agent_key_id"),
        _ref("credential_id"),
        Column("provider", String(64), nullable=False),
        Column("model", String(200), nullable=False),
        _ref("provider_key_id"),
        Column("agent_key_name", String(200)),
        Column("provider_key_name", String(200)),
        _count("requests"),
        _count("attempts"),
        _count("errors"),
        _count("unknown"),
        _count("cancelled"),
        _count("unpriced"),
        _count("input_tokens"),
        _count("output_tokens"),
        _count("cache_read_tokens"),
        _count("cache_write_tokens"),
        _count("reasoning_tokens"),
        _count("audio_tokens"),
        _count("images"),
        _count("latency_ms"),
        _nano("cost_nano"),
        _count("max_latency_ms"),
        _nano("max_cost_nano"),
        _count("audio_ms"),
        _count("characters"),
        _count("searches"),
        _ref("parent_key_id", null=True),
        PrimaryKeyConstraint(
            "organization_id", span, "agent_key_id", "credential_id", "provider", "model", "provider_key_id"
        ),
        *indexes,
        sqlite_with_rowid=False,  # read by ranges of the primary key: the rows lie in its order
    )


usage_hours = _rollup("usage_hours", "hour")
usage_days = _rollup("usage_days", "day", Index(None, "agent_key_id", "day"), _of_children("usage_days", "day"))
usage_blocks = _rollup("usage_blocks", "block")
"""Sums of `usage_events` by hour, by UTC day and by 32 days since the epoch, written with the events and never deleted.
An id is empty where there is none. `requests` counts first attempts; no recost lowers the greatest cost, a bound. The
parent of an ephemeral key is kept with them: the key itself is forgotten a day after its end."""

usage_sums = Table(
    "usage_sums",
    metadata,
    _ref("organization_id"),
    Column("kind", String(16), nullable=False),
    Column("span", Integer, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("id", String(300), nullable=False),
    Column("name", String(200)),
    _count("requests"),
    _count("attempts"),
    _count("errors"),
    _count("cancelled"),
    _count("unpriced"),
    _count("input_tokens"),
    _count("output_tokens"),
    _count("cache_read_tokens"),
    _count("latency_ms"),
    _nano("cost_nano"),
    PrimaryKeyConstraint("organization_id", "kind", "span", "number", "id"),
    sqlite_with_rowid=False,
)
"""The same by one thing at a time (all, model, agent_key, parent, credential, provider_key), by 1, 4, 16 and 64 days:
where keys that come in meet keys that go out the sums above have nearly as many rows as there are events."""

contents = Table(
    "contents",
    metadata,
    Column("request_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    _ref("organization_id"),
    _ref("agent_key_id", null=True),
    _at("at"),
    Column("sealed", Text, nullable=False),
    Column("sealed_version", Integer, nullable=False),
    PrimaryKeyConstraint("request_id", "attempt"),
    Index(None, "organization_id", "at"),
)
"""What was asked and answered, redacted and sealed; only of keys whose content is captured."""

# ---- who is told ------------------------------------------------------------------------------------------------

alerts = Table(
    "alerts",
    metadata,
    Column("scope", String(16), nullable=False),
    _ref("id"),
    Column("period_id", String(32), nullable=False),
    Column("threshold", Integer, nullable=False),
    _at("at"),
    PrimaryKeyConstraint("scope", "id", "period_id", "threshold"),
)
"""What somebody was told of already: whoever inserts the row tells."""

notifications = Table(
    "notifications",
    metadata,
    _id(),
    _ref("organization_id"),
    Column("kind", String(32), nullable=False),
    Column("subject_kind", String(32), nullable=False),
    _ref("subject_id"),
    Column("subject_name", String(200), nullable=False),
    Column("facts", JSON, nullable=False),
    _at("created_at"),
    Index(None, "organization_id", "created_at"),
)

deliveries = Table(
    "deliveries",
    metadata,
    _id(),
    _ref("notification_id"),
    _ref("organization_id"),
    Column("channel", String(16), nullable=False),
    Column("address", String(320), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _at("next_at", null=True),
    _at("done_at", null=True),
    Column("error", Text),
    Index(None, "next_at"),
    Index(None, "notification_id"),
)
"""The outbox: mail to an address, or a webhook by its id. `next_at` of None is over: done, or given up."""

webhooks = Table(
    "webhooks",
    metadata,
    _id(),
    _ref("organization_id"),
    Column("name", String(200), nullable=False),
    Column("url", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("kinds", JSON, nullable=False),
    Column("sealed", Text, nullable=False),
    Column("sealed_version", Integer, nullable=False),
    Column("is_active", Boolean, nullable=False),
    _at("created_at"),
    _at("updated_at"),
    UniqueConstraint("organization_id", "name"),
)

# ---- what runs by the clock, what is asked twice -----------------------------------------------------------------

jobs = Table(
    "jobs",
    metadata,
    Column("name", String(64), primary_key=True),
    _at("next_at"),
    _ref("owner", null=True),
    _at("leased_until", null=True),
    _at("ran_at", null=True),
    Column("error", Text),
)
"""Each job is run by one gateway at a time: whoever moves `leased_until` from the past."""

idempotency = Table(
    "idempotency",
    metadata,
    _ref("organization_id"),
    _ref("actor_id"),
    Column("key", String(255), nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("status", Integer, nullable=False),
    Column("answer", JSON, nullable=False),
    _at("at"),
    PrimaryKeyConstraint("organization_id", "actor_id", "key"),
    Index(None, "at"),
)
"""Answers of the admin API by Idempotency-Key, without the secrets they showed."""
