"""People and machines are told of budgets: once, whatever happens at once, and in the end even if a sink was away."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.inside import rows
from tests.acceptance.lodge import Lodge
from tests.acceptance.pages import PASSWORD
from tests.servers.gateway import NO_TLS, PATIENT, Gateway, GatewayMaker
from tests.servers.receiver import Receiver
from tests.servers.smtp import Smtp
from tests.servers.upstream import Upstream
from tests.servers.waiting import are_prompt, free_port, until

_MODEL = "openai-compatible/ok"
_CALL_USD = Decimal("0.0018")
"""18 tokens at 100 USD a million."""
_MASTER_KEY = "q1Lw3cEWJxCEv7nHc5tUpFYPZ1m0Cnq3zQn5m4oJ2Yk="


def mailing(smtp: Smtp) -> dict[str, str]:
    return {"OSTIARY_SMTP_URL": smtp.url, "OSTIARY_MAIL_FROM": "Ostiary <ostiary@example.org>"}


def furnish(gateway: Gateway, upstream: Upstream, receiver: Receiver | None = None) -> Gateway:
    """A priced model, an owner, and a webhook if there is somebody to post to."""
    gateway.add_provider_key("openai-compatible", "upstream", upstream.url)
    gateway.cli("prices", "set", _MODEL, "--input", "100", "--output", "100")
    gateway.cli("members", "add", "alice@example.org", "--role", "owner")
    if receiver is not None:
        receiver.secret = gateway.json("webhooks", "create", "main", "--url", receiver.url)["secret"]
    gateway.hear()
    return gateway


def call(gateway: Gateway, secret: str, **more: Any) -> httpx2.Response:
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20, **more}
    headers = {"authorization": f"Bearer {secret}"}
    return httpx2.post(f"{gateway.url}/chat/completions", json=body, headers=headers, timeout=30, verify=NO_TLS)


def at_once(calls: int, *gateways: Gateway, secret: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda turn: call(gateways[turn % len(gateways)], secret), range(calls)))
    assert {answer.status_code for answer in answers} == {200}


def settled(gateway: Gateway, calls: int) -> None:
    """All of them are in the ledger, and nothing is left in the outbox."""
    until(lambda: spent_usd(gateway) == calls * _CALL_USD, "the calls in the ledger")
    until(lambda: not undelivered(gateway), "an empty outbox")


def spent_usd(gateway: Gateway) -> Decimal:
    return Decimal(str(gateway.json("keys", "show", "ci-bot")["spent_usd"]))


def undelivered(gateway: Gateway) -> list[dict[str, Any]]:
    told = gateway.json("notifications", "list")
    return [way for one in told for way in one["deliveries"] if way["state"] == "on its way"]


@pytest.mark.usefixtures("one_day")
def test_a_hundred_calls_at_once_make_one_mail_and_one_post(
    gateways: GatewayMaker, upstream: Upstream, smtp: Smtp, receiver: Receiver
) -> None:
    gateway = gateways(allow=[upstream.origin, receiver.origin], env=mailing(smtp), entry=PATIENT)
    furnish(gateway, upstream, receiver)
    secret = gateway.create_key("ci-bot", "--budget-usd", "10", "--alert-at", "1,50")
    at_once(100, gateway, secret=secret)  # 0.18 USD: 1 % is passed with the 56th
    settled(gateway, 100)
    [mail] = smtp.mails
    assert mail.to == ("alice@example.org",)
    assert str(mail.message["Subject"]) == "Agent key 'ci-bot' has spent 1 % of its budget"
    assert "hard limit of $10" in mail.text
    [message] = receiver.taken.values()
    assert receiver.refused == []
    assert (message["type"], message["data"]["facts"]["threshold"]) == ("budget.threshold", 1)
    assert message["data"]["subject"]["name"] == "ci-bot"
    [told] = gateway.json("notifications", "list")
    assert {way["state"] for way in told["deliveries"]} == {"arrived"}
    assert secret not in mail.text


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize("ground", ["sqlite", "postgresql"])
def test_two_gateways_tell_once(
    request: pytest.FixtureRequest,
    gateways: GatewayMaker,
    upstream: Upstream,
    smtp: Smtp,
    receiver: Receiver,
    tmp_path: Path,
    ground: str,
) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    if ground == "postgresql":
        url = request.getfixturevalue("postgres_url")
    env = {"OSTIARY_DATABASE_URL": url, "OSTIARY_MASTER_KEY": _MASTER_KEY, **mailing(smtp)}
    one, two = (gateways(allow=[upstream.origin, receiver.origin], env=env, entry=PATIENT) for _ in range(2))
    furnish(one, upstream, receiver)
    secret = one.create_key("ci-bot", "--budget-usd", "10", "--alert-at", "1")
    two._known(secret)
    at_once(100, one, two, secret=secret)
    settled(one, 100)
    assert len(smtp.mails) == 1
    assert len(receiver.requests) == len(receiver.taken) == 1


@pytest.mark.main_job
def test_a_spent_budget_is_told_of_once_however_often_calls_are_refused(
    gateways: GatewayMaker, upstream: Upstream, smtp: Smtp
) -> None:
    gateway = furnish(gateways(allow=[upstream.origin], env=mailing(smtp)), upstream)
    secret = gateway.create_key("ci-bot", "--budget-usd", "0.02", "--alert-at", "none")
    answers = [call(gateway, secret) for _ in range(20)]
    assert answers[0].status_code == 200
    assert answers[-1].status_code == 402
    smtp.wait_for(1)
    assert {call(gateway, secret).status_code for _ in range(10)} == {402}
    until(lambda: not undelivered(gateway), "an empty outbox")
    [mail] = smtp.mails
    assert str(mail.message["Subject"]) == "Agent key 'ci-bot' has used up its budget"
    assert "A call was refused with 402" in mail.text


@pytest.mark.usefixtures("one_day")
def test_a_provider_keys_warning_is_told_once_and_blocks_nothing(
    gateways: GatewayMaker, upstream: Upstream, smtp: Smtp, receiver: Receiver
) -> None:
    gateway = gateways(allow=[upstream.origin, receiver.origin], env=mailing(smtp))
    furnish(gateway, upstream, receiver)
    gateway.cli("vault", "edit", "upstream", "--spend-warn", "0.09/day")
    secret = gateway.create_key("ci-bot")
    at_once(60, gateway, secret=secret)  # the limit is reached with the 50th
    settled(gateway, 60)
    at_once(20, gateway, secret=secret)
    settled(gateway, 80)
    assert [(one["kind"], one["subject"]["name"]) for one in gateway.json("notifications", "list")].count(
        ("budget.soft_limit", "upstream")
    ) == 1
    told = [one for one in receiver.taken.values() if one["type"] == "budget.soft_limit"]
    assert [(one["data"]["subject"]["kind"], one["data"]["facts"]["limit"]) for one in told] == [
        ("provider_key", "soft")
    ]
    subjects = [str(mail.message["Subject"]) for mail in smtp.mails]
    assert len(subjects) == len(set(subjects)) == len(receiver.taken), "nor is any share of it told twice"
    mail = next(one for one in smtp.mails if str(one.message["Subject"]).endswith("has passed its soft limit"))
    assert str(mail.message["Subject"]).startswith("Provider key 'upstream'")
    assert mail.to == ("alice@example.org",)
    assert "Calls go on: a soft limit only warns." in mail.text


def test_who_only_asks_what_a_call_would_do_alerts_nobody(gateway: Gateway, upstream: Upstream) -> None:
    """Asking is free and may be done all day; what was refused after it is told of with whatever was noted before."""
    furnish(gateway, upstream)
    keys = {name: gateway.create_key(name, "--budget-usd", "0.000001") for name in ("asks", "calls")}
    body = {"model": _MODEL, "messages": [{"role": "user", "content": "x"}], "max_tokens": 20}
    for _ in range(3):
        told = gateway.client(keys["asks"]).post("/v1/explain", json=body).json()
        assert told["would_answer"]["error"]["code"] == "budget_exceeded"
    assert call(gateway, keys["calls"]).status_code == 402
    until(lambda: _alerted(gateway), "the alert of the call")
    assert _alerted(gateway) == ["calls"]
    assert len(rows(gateway, "SELECT * FROM deliveries")) == 1
    assert call(gateway, keys["asks"]).status_code == 402
    until(lambda: _alerted(gateway) == ["asks", "calls"], "the alert of the same key's call")
    assert len(rows(gateway, "SELECT * FROM deliveries")) == 2


def _alerted(gateway: Gateway) -> list[str]:
    """The keys of which somebody is told, by name."""
    query = "SELECT name FROM alerts JOIN agent_keys ON agent_keys.id = alerts.id ORDER BY name"
    return [str(row["name"]) for row in rows(gateway, query)]


def test_an_image_without_a_price_is_told_of_as_tokens_are(
    gateways: GatewayMaker, upstream: Upstream, receiver: Receiver
) -> None:
    gateway = furnish(gateways(allow=[upstream.origin, receiver.origin]), upstream, receiver)
    secret = gateway.create_key("ci-bot")
    body = {"model": "openai-compatible/dall-e", "prompt": "a door"}
    assert gateway.client(secret).post("/v1/images/generations", json=body).status_code == 200
    until(lambda: receiver.taken, "the post")
    [message] = receiver.taken.values()
    assert (message["type"], message["data"]["subject"]["name"]) == ("model.unpriced", "openai-compatible/dall-e")


def test_mail_and_webhook_that_were_away_are_told_later_and_calls_do_not_wait(
    gateways: GatewayMaker, upstream: Upstream, receiver: Receiver
) -> None:
    server = Smtp(port=free_port())
    gateway = gateways(allow=[upstream.origin, receiver.origin], env=mailing(server), clock=True)
    furnish(gateway, upstream, receiver)
    receiver.status = 500
    secret = gateway.create_key("ci-bot", "--budget-usd", "10", "--alert-at", "1")
    at_once(80, gateway, secret=secret)
    found: list[dict[str, Any]] = []

    def are_tried() -> bool:
        found[:] = undelivered(gateway)
        return [bool(way["error"]) for way in found] == [True, True]

    until(are_tried, "a first attempt at both", 25)
    receiver.status = None  # the second comes half a minute after the first, and shall be the last
    errors = {way["channel"]: way["error"] for way in found}
    assert errors["webhook"] == f"{receiver.origin} answered 500."
    assert "not handed in" in errors["mail"]
    assert are_prompt([call(gateway, secret).elapsed.total_seconds() for _ in range(3)], 2)
    with server.running():
        gateway.shift(31)
        server.wait_for(1)
        receiver.wait_for(1)
        until(lambda: not undelivered(gateway), "an empty outbox")
    [told] = gateway.json("notifications", "list")
    assert [(way["state"], way["attempts"]) for way in told["deliveries"]] == [("arrived", 2)] * 2
    assert len({request.header("webhook-id") for request in receiver.requests}) == 1


def test_a_sink_that_hangs_neither_slows_calls_nor_the_end(
    gateways: GatewayMaker, upstream: Upstream, receiver: Receiver
) -> None:
    gateway = furnish(gateways(allow=[upstream.origin, receiver.origin]), upstream, receiver)
    receiver.is_silent = True
    secret = gateway.create_key("ci-bot", "--budget-usd", "10", "--alert-at", "1")
    at_once(80, gateway, secret=secret)
    until(lambda: receiver.requests, "a post")
    assert are_prompt([call(gateway, secret).elapsed.total_seconds() for _ in range(3)], 2)
    assert gateway.stop() == 0


def test_a_key_that_ends_soon_is_told_of(gateways: GatewayMaker, upstream: Upstream, smtp: Smtp) -> None:
    gateway = gateways(allow=[upstream.origin], env=mailing(smtp), clock=True, start=False)
    gateway.cli("members", "add", "alice@example.org", "--role", "owner")
    for name, expires in (("long", "90d"), ("soon", "12d"), ("short", "1d")):
        gateway.json("keys", "create", "--name", name, "--expires", expires)
    gateway.clock_file.write_text(str(6 * 86_400))
    gateway.start()
    mail = smtp.wait_for(1)
    assert str(mail.message["Subject"]) == "Agent key 'soon' expires in 7 days"
    gateway.shift(6 * 86_400 + 5 * 86_400 + 60)
    mail = smtp.wait_for(2)
    assert str(mail.message["Subject"]) == "Agent key 'soon' expires in 1 day"


# ---- who comes in -----------------------------------------------------------------------------------------------


def test_who_invited_hears_of_it_when_it_is_accepted(gateways: GatewayMaker, smtp: Smtp, receiver: Receiver) -> None:
    gateway = gateways(allow=[receiver.origin], env=mailing(smtp))
    lodge = Lodge(gateway).open("alice", "bob")
    receiver.secret = gateway.json("webhooks", "create", "main", "--url", receiver.url)["secret"]
    others = ("webhooks", "create", "others", "--url", f"{receiver.origin}/other", "--kinds", "budget.exceeded")
    gateway.canaries.watch(gateway.json(*others)["secret"])
    invited = lodge.client("alice").post("/settings/members/invite", email="frank@example.org", role="member")
    found = re.search(r"/dashboard/invitation#([\w-]+)", invited.text)
    assert found is not None, invited.text
    token, guest = gateway.canaries.watch(found[1]), lodge.client()
    assert guest.post("/invitation", token=token, name="Frank", password="short").status_code == 422
    assert gateway.json("notifications", "list") == [], "nothing has happened"
    assert guest.post("/invitation", token=token, name="Frank", password=PASSWORD).status_code == 303
    until(lambda: gateway.json("notifications", "list") and not undelivered(gateway), "an empty outbox")
    [mail] = smtp.mails
    assert mail.to == ("alice@example.org",)
    assert str(mail.message["Subject"]) == "Invitation 'frank@example.org' was accepted"
    assert "Frank (frank@example.org) accepted the invitation of alice@example.org" in mail.text
    [message] = receiver.taken.values()
    assert (message["type"], receiver.refused, len(receiver.requests)) == ("invitation.accepted", [], 1)
    assert message["data"]["subject"]["name"] == "frank@example.org"
    assert message["data"]["facts"] == {
        "email": "frank@example.org",
        "name": "Frank",
        "role": "member",
        "invited_by": "alice@example.org",
        "organization": "default",
    }
    assert "and is now member of the organization default." in mail.text
    assert token not in mail.text + str(message)
    assert guest.post("/invitation", token=token, name="Eve", password=PASSWORD).status_code == 404
    page = lodge.client("alice").get("/settings/notifications?kind=invitation.accepted").text
    assert "frank@example.org" in page
    assert 'value="invitation.accepted"' in lodge.client("alice").get("/settings/webhooks").text + page


# ---- the shell --------------------------------------------------------------------------------------------------


def test_a_test_says_for_each_way_whether_it_arrived(gateways: GatewayMaker, smtp: Smtp, receiver: Receiver) -> None:
    house = gateways(allow=[receiver.origin], env=mailing(smtp), start=False)
    assert house.cli("notifications", "test", check=False).code == 1, "there is nobody to tell yet"
    house.cli("members", "add", "alice@example.org", "--role", "owner")
    receiver.secret = house.json("webhooks", "create", "main", "--url", receiver.url)["secret"]
    ran = house.cli("notifications", "test")
    assert ran.out.count("arrived") == 2
    assert smtp.mails[0].to == ("alice@example.org",)
    assert len(receiver.taken) == 1
    assert house.json("webhooks", "test", "main")[0]["state"] == "arrived"
    assert (len(smtp.mails), len(receiver.taken)) == (1, 2)
    receiver.status = 500
    ran = house.cli("webhooks", "test", "main", check=False)
    assert ran.code == 1
    assert "answered 500" in ran.out


def test_webhooks_from_the_shell(gateways: GatewayMaker, receiver: Receiver) -> None:
    house = gateways(allow=[receiver.origin], start=False)
    made = house.json("webhooks", "create", "main", "--url", receiver.url, "--kinds", "budget.exceeded,test")
    assert made["secret"].startswith("whsec_")
    [listed] = house.json("webhooks", "list")
    assert "secret" not in listed
    assert listed["kinds"] == ["budget.exceeded", "test"]
    edited = house.json("webhooks", "edit", "main", "--name", "other", "--inactive", "--kinds", "all")
    assert (edited["name"], edited["is_active"], edited["kinds"]) == ("other", False, ["all"])
    assert "secret" not in edited
    assert house.json("webhooks", "edit", "other", "--new-secret", "--active")["secret"] != made["secret"]
    for words in (
        ("create", "x", "--url", "http://169.254.169.254/"),
        ("create", "x", "--url", receiver.url, "--kinds", "nonsense"),
        ("create", "other", "--url", receiver.url),
        ("edit", "nobody", "--inactive"),
        ("delete", "nobody"),
        ("test", "nobody"),
    ):
        ran = house.cli("webhooks", *words, check=False)
        assert ran.code == 1, words
        assert len(ran.err.strip().splitlines()) == 1, ran.err
    assert house.cli("webhooks", "edit", "other", check=False).code == 2
    house.cli("webhooks", "delete", "other")
    assert house.json("webhooks", "list") == []


def test_mail_without_a_sender_does_not_start(gateways: GatewayMaker, smtp: Smtp) -> None:
    gateway = gateways(env={"OSTIARY_SMTP_URL": f"smtp://user:canary-55ab@127.0.0.1:{smtp.port}"}, start=False)
    process = gateway.spawn()
    assert process.wait(20) == 1
    assert "OSTIARY_MAIL_FROM" in gateway.output
    assert "canary-55ab" not in gateway.output
