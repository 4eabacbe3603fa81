"""Which targets a call may have, in which order, what is missing where there is none, and what it may cost at most."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from ostiary.agents.policy import Choice, Policy, choice_of
from ostiary.errors import Refusal
from ostiary.gateway.bid import bid_for, input_bound
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller, OpenKey
from ostiary.gateway.directory import Directory
from ostiary.gateway.plan import plan
from ostiary.gateway.target import Route, Target
from ostiary.limits.budgets import Budget
from ostiary.limits.local import Allowance, Holder
from ostiary.providers import catalog
from ostiary.providers.catalog import Catalog, Model, Provider
from ostiary.providers.openai import OpenAI
from ostiary.providers.prices import Override, PriceBook
from ostiary.vault.endpoint_store import Endpoint, EndpointTarget

USD = 1_000_000_000
ROW = catalog.load().get("openai-compatible")


def provider(id: str, **changed: Any) -> Provider:
    return replace(ROW, id=id, **changed)


ALPHA, BETA, DEAF = provider("alpha"), provider("beta-9"), provider("deaf", operations=frozenset({"embeddings"}))
MODELS = (
    Model("alpha", "m", free=False, max_output=1_000),
    Model("alpha", "only-alpha", free=False),
    Model("beta-9", "m", free=False, max_output=2_000),
    Model("beta-9", "gift", free=True),
    Model("beta-9", "house/m", free=False),
    Model("deaf", "e", free=False),
)
RATES = {"input": 2 * USD, "output": 10 * USD}


def key(id: str, of: Provider, organization_id: str = "ours", *, shared: bool = False) -> OpenKey:
    return OpenKey(id, id, organization_id, of, "https://x", (), (), shared)


@dataclass
class Known:
    """A directory with nothing behind it, that counts what it was asked for."""

    keys: list[OpenKey]
    endpoints: list[Endpoint] = field(default_factory=list)
    looks: int = 0
    plans: dict[Any, Any] = field(default_factory=dict)
    catalog: Catalog = field(default_factory=lambda: Catalog([ALPHA, BETA, DEAF], MODELS))
    prices: PriceBook = field(
        default_factory=lambda: PriceBook(
            [
                Override("alpha", "m", RATES, "p1"),
                Override("beta-9", "m", {"input": 4 * USD, "output": 5 * USD}, "p2"),
                Override("beta-9", "gift", {"input": 0, "output": 0}, "p3"),
            ]
        )
    )

    def recall(self, caller: Caller, asked: tuple[str, str]) -> Any:
        return self.plans.get((id(caller), asked), (None, None))[1]

    def remember(self, caller: Caller, asked: tuple[str, str], plan: object) -> None:
        self.plans[id(caller), asked] = (caller, plan)

    def find_endpoint(self, organization_id: str, name: str) -> Endpoint | None:
        named = {one.organization_id: one for one in self.endpoints if one.name == name}
        return named.get(organization_id) or named.get("")

    def near_endpoints(self, organization_id: str, name: str) -> tuple[str, ...]:
        mine = [one for one in self.endpoints if one.organization_id in ("", organization_id)]
        return tuple(one.name for one in mine if one.name[:3] == name[:3])

    def keys_for(self, organization_id: str, provider_id: str) -> list[OpenKey]:
        self.looks += 1
        keys = [one for one in self.keys if one.provider.id == provider_id]
        own = [one for one in keys if one.organization_id == organization_id]
        return own + [one for one in keys if one.shared and one.organization_id != organization_id]


EVERYWHERE = Known([key("a1", ALPHA), key("b1", BETA), key("b2", BETA), key("d1", DEAF)])


def caller(budget_usd: int | None = None, **policy: Any) -> Caller:
    budgets = (("agent_key", "k", Budget("total", budget_usd * USD)),) if budget_usd is not None else ()
    return Caller("ours", Policy(**policy), Allowance("k", budgets=budgets))


def call(model: str, operation: str = "chat", **fields: Any) -> Call:
    body: dict[str, Any] = {"model": model, ("input" if operation == "embeddings" else "messages"): [], **fields}
    return Call(operation, OpenAI().read_ask(operation, json.dumps(body).encode()), None)


def routed(model: str, who: Caller | None = None, known: Known = EVERYWHERE, operation: str = "chat") -> Route:
    return plan(who or caller(), call(model, operation), cast("Directory", known))


def planned(model: str, who: Caller | None = None, known: Known = EVERYWHERE, operation: str = "chat") -> list[str]:
    """Every target of the first order, keys that take turns in the order in which they were made."""
    tiers = routed(model, who, known, operation).variants[0]
    return [f"{target.key.id}:{target.model}" for tier in tiers for target in tier.targets]


def refused(model: str, who: Caller | None = None, known: Known = EVERYWHERE, operation: str = "chat") -> Refusal:
    with pytest.raises(Refusal) as caught:
        planned(model, who, known, operation)
    return caught.value


# ---- which, in which order --------------------------------------------------------------------------------------


def test_a_bare_name_goes_to_everybody_who_serves_it_in_order() -> None:
    assert planned("m") == ["a1:m", "b1:m", "b2:m"]
    assert planned("only-alpha") == ["a1:only-alpha"]


def test_a_provider_before_the_slash_is_the_only_one() -> None:
    assert planned("beta-9/m") == ["b1:m", "b2:m"]
    assert planned("beta-9/house/m") == ["b1:house/m", "b2:house/m"]
    assert planned("alpha/not-in-the-catalogue") == ["a1:not-in-the-catalogue"]


def test_a_slash_may_belong_to_the_name() -> None:
    assert planned("house/m") == ["b1:house/m", "b2:house/m"]


def test_no_more_than_three_attempts() -> None:
    many = Known([key(f"a{n}", ALPHA) for n in range(9)])
    assert len(planned("m", known=many)) == 9, "whichever of them are well"
    assert routed("m", known=many).attempts == 3


def test_nobody_elses_key() -> None:
    theirs = Known([key("x", ALPHA, "theirs")])
    assert refused("m", known=theirs).code == "no_alpha_key"


def test_what_was_worked_out_for_a_caller_is_remembered_for_that_caller_and_that_model() -> None:
    known, who = Known([key("a1", ALPHA), key("d1", DEAF)]), caller()
    assert planned("only-alpha", who, known) == planned("only-alpha", who, known) == ["a1:only-alpha"]
    assert known.looks == 1
    for other in (caller(), caller(models=choice_of(["alpha/only-alpha"]))):
        assert planned("only-alpha", other, known) == ["a1:only-alpha"]
    assert known.looks == 3
    assert refused("only-alpha", caller(models=Choice("none")), known).code == "model_not_allowed"
    assert planned("only-alpha", who, known, "embeddings") == ["a1:only-alpha"]
    assert known.looks == 4


# ---- why not ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nn", "only-alfa", "nobody/m", "alpha/", "/m", "gift "])
def test_an_unknown_name_is_refused_and_near_ones_are_named(name: str) -> None:
    refusal = refused(name)
    assert (refusal.status, refusal.code, refusal.param) == (404, "model_not_found", "model")
    assert all(near in refusal.message for near in refusal.details["near"])
    assert refused("only-alfa").details["near"][0] == "only-alpha"


def test_a_model_that_cannot_do_it_says_so() -> None:
    assert refused("e").message == "'e' does not serve chat."
    assert planned("e", operation="embeddings") == ["d1:e"]


@pytest.mark.parametrize(("name", "code"), [("m", "no_alpha_key"), ("beta-9/m", "no_beta_9_key")])
def test_a_provider_without_a_key_is_named(name: str, code: str) -> None:
    refusal = refused(name, known=Known([]))
    assert (refusal.status, refusal.code) == (503, code)
    assert "ostiary vault add" in refusal.message


@pytest.mark.parametrize(
    ("items", "asked", "targets"),
    [
        (["m"], "m", ["a1:m", "b1:m", "b2:m"]),
        (["m"], "alpha/m", ["a1:m"]),
        (["alpha/m"], "alpha/m", ["a1:m"]),
        (["alpha/m"], "m", ["a1:m"]),
        (["beta-9/m"], "m", ["b1:m", "b2:m"]),
        (["alpha/m"], "beta-9/m", None),
        (["alpha/m"], "only-alpha", None),
        (["M"], "m", None),
        (["house/m"], "m", None),
        (["m"], "house/m", None),
        (["house/m"], "beta-9/house/m", ["b1:house/m", "b2:house/m"]),
        (["alpha/m"], "beta-9/alpha/m", None),  # what one provider resells of another is another thing
        (["m"], "beta-9/alpha/m", None),
        (["beta-9/alpha/m"], "beta-9/alpha/m", ["b1:alpha/m", "b2:alpha/m"]),
    ],
)
def test_a_model_list_holds_for_every_name_a_model_goes_by(
    items: list[str], asked: str, targets: list[str] | None
) -> None:
    who = caller(models=choice_of(items))
    if targets is None:
        assert refused(asked, who).code == "model_not_allowed"
    else:
        assert planned(asked, who) == targets


def test_no_model_at_all() -> None:
    assert refused("m", caller(models=Choice("none"))).code == "model_not_allowed"


def test_a_provider_list_picks_among_those_who_serve_it() -> None:
    assert planned("m", caller(providers=choice_of(["beta-9"]))) == ["b1:m", "b2:m"]
    assert refused("only-alpha", caller(providers=choice_of(["beta-9"]))).code == "provider_not_allowed"


def test_free_models_only() -> None:
    assert planned("gift", caller(free_only=True)) == ["b1:gift", "b2:gift"]
    assert refused("m", caller(free_only=True)).code == "model_not_allowed"
    assert refused("only-alpha", caller(free_only=True)).code == "model_not_allowed"  # no price is not free


def test_a_model_without_a_price_is_refused_under_a_hard_budget_only() -> None:
    assert planned("only-alpha") == ["a1:only-alpha"]
    assert refused("only-alpha", caller(5)).code == "model_not_priced"
    assert planned("m", caller(5)) == ["a1:m", "b1:m", "b2:m"]


def test_where_only_some_have_a_price_only_they_are_tried() -> None:
    some = replace(EVERYWHERE, prices=PriceBook([Override("beta-9", "m", RATES, "p")]))
    assert planned("m", caller(5), some) == ["b1:m", "b2:m"]


# ---- endpoints and aliases --------------------------------------------------------------------------------------


def endpoint(name: str, *targets: str, of: str = "ours", strategy: Any = "first", **more: Any) -> Endpoint:
    """Targets as `provider/model`, with `@key`, `*weight` and a leading `~` for a fallback."""
    made = []
    for text in targets:
        rest, _, weight = text.removeprefix("~").partition("*")
        place, _, key_id = rest.partition("@")
        provider_id, _, model = place.partition("/")
        made.append(EndpointTarget(provider_id, model, key_id or None, int(weight or 1), text.startswith("~")))
    values = {"retries": 2, "timeout_ms": None, **more}
    return Endpoint(f"ep-{of}-{name}", of, name, strategy, targets=tuple(made), created_at=0, updated_at=0, **values)


def with_endpoints(*endpoints: Endpoint, keys: list[OpenKey] | None = None) -> Known:
    return Known(keys or EVERYWHERE.keys, list(endpoints))


def test_an_own_endpoint_hides_an_alias_which_hides_a_model() -> None:
    alias, own = endpoint("m", "alpha/only-alpha", of=""), endpoint("m", "beta-9/gift")
    assert planned("m", known=with_endpoints(alias, own)) == ["b1:gift", "b2:gift"]
    assert planned("m", known=with_endpoints(alias)) == ["a1:only-alpha"]
    assert planned("m", known=with_endpoints(endpoint("m", "beta-9/gift", of="theirs"))) == ["a1:m", "b1:m", "b2:m"]
    assert planned("alpha/m", known=with_endpoints(endpoint("alpha/m", "beta-9/m", of=""))) == ["b1:m", "b2:m"]


def test_targets_go_in_order_and_fallbacks_last() -> None:
    known = with_endpoints(endpoint("chat", "~beta-9/gift@b1", "beta-9/m@b2", "alpha/m"))
    assert planned("chat", known=known) == ["b2:m", "a1:m", "b1:gift"]
    assert routed("chat", known=known).fixed is not None


def test_a_split_begins_with_each_target_by_its_weight_and_goes_on_with_the_others() -> None:
    known = with_endpoints(endpoint("chat", "alpha/m*3", "beta-9/m@b1", "~beta-9/gift@b2", strategy="split"))
    route = routed("chat", known=known)
    orders = [[target.key.id for tier in tiers for target in tier.targets] for tiers in route.variants]
    assert orders == [["a1", "b1", "b2"], ["b1", "a1", "b2"]]
    assert 0.6 < route.slots.count(0) / len(route.slots) < 0.9


def test_an_endpoint_says_how_often_and_how_long() -> None:
    route = routed("chat", known=with_endpoints(endpoint("chat", "alpha/m", retries=0, timeout_ms=1_500)))
    assert (route.attempts, route.timeout_s) == (1, 1.5)
    assert route.endpoint is not None
    assert routed("m").timeout_s is None


def test_every_target_of_an_endpoint_is_judged_and_priced() -> None:
    known = with_endpoints(endpoint("chat", "alpha/m", "alpha/only-alpha", "beta-9/gift@b1"))
    assert planned("chat", caller(5), known) == ["a1:m", "b1:gift"]
    assert planned("chat", caller(free_only=True), known) == ["b1:gift"]
    assert planned("chat", caller(providers=choice_of(["beta-9"])), known) == ["b1:gift"]
    assert planned("chat", caller(models=choice_of(["chat"])), known) == ["a1:m", "a1:only-alpha", "b1:gift"]
    assert planned("chat", caller(models=choice_of(["alpha/m"])), known) == ["a1:m"]
    assert refused("chat", caller(models=choice_of(["chat2"])), known).code == "model_not_allowed"
    assert refused("m", caller(models=choice_of(["chat"])), known).code == "model_not_allowed"


def test_a_provider_key_that_is_named_is_the_only_one_and_must_be_ours_to_use() -> None:
    theirs = key("x", ALPHA, "theirs")
    known = with_endpoints(endpoint("chat", "alpha/m@x", "beta-9/m@b2"), keys=[*EVERYWHERE.keys, theirs])
    assert planned("chat", known=known) == ["b2:m"]
    shared = replace(theirs, shared=True)
    assert planned("chat", known=replace(known, keys=[*EVERYWHERE.keys, shared])) == ["x:m", "b2:m"]


def test_the_operators_keys_come_before_those_that_others_share() -> None:
    mine, theirs = key("z", ALPHA, "house", shared=True), replace(key("a", ALPHA, "theirs", shared=True), priority=9)
    pool = [theirs, replace(mine, is_operators=True), replace(key("b1", BETA, "theirs", shared=True))]
    assert planned("alpha/m", known=Known(pool)) == ["z:m", "a:m"], "whatever others think of their own"
    assert planned("m", known=Known(pool)) == ["z:m", "a:m", "b1:m"]
    own = [*pool, key("o", BETA)]
    assert planned("m", known=Known(own)) == ["o:m", "z:m", "a:m", "b1:m"]


def test_own_keys_come_before_the_pool_at_whatever_provider() -> None:
    pool = [key("p", ALPHA, "theirs", shared=True), key("b1", BETA)]
    assert planned("m", known=Known(pool)) == ["b1:m", "p:m"]
    by_target = with_endpoints(endpoint("chat", "alpha/m", "beta-9/m"), keys=pool)
    assert planned("chat", known=by_target) == ["p:m", "b1:m"], "but an endpoint's targets keep their order"


def test_of_very_many_keys_that_are_filled_those_with_limits_are_all_looked_at() -> None:
    filled = [replace(key(f"a{n:03}", ALPHA), is_filled=True) for n in range(100)]
    without = routed("alpha/m", known=Known(filled)).fixed
    limits = Allowance("a", (Holder("provider_key", "a", rpm=1),))
    with_limits = routed("alpha/m", known=Known([replace(one, allowance=limits) for one in filled])).fixed
    assert without is not None
    assert with_limits is not None
    assert (len(without), len(with_limits)) == (64, 100)


def test_targets_that_cannot_serve_are_left_out() -> None:
    known = with_endpoints(endpoint("chat", "deaf/e", "gone/m", "alpha/m"), endpoint("none", "deaf/e"))
    assert planned("chat", known=known) == ["a1:m"]
    assert refused("none", known=known).code == "model_not_found"
    assert refused("chad", known=known).details["near"][0] == "chat"


def test_a_price_for_text_alone_is_none_for_a_chat_in_sound() -> None:
    spoken, known, who = call("alpha/m", modalities=["text", "audio"]), replace(EVERYWHERE, plans={}), caller(5)
    directory = cast("Directory", known)
    assert [target.price for target in plan(who, call("alpha/m"), directory).every] != [None]
    with pytest.raises(Refusal) as caught:
        plan(who, spoken, directory)
    assert caught.value.code == "model_not_priced"
    free = plan(who, call("beta-9/gift", modalities=["audio"]), directory)
    assert [target.model for target in free.every] == ["gift", "gift"], "by either key"
    assert [target.price for target in plan(caller(), spoken, directory).every] == [None]


# ---- the most it can cost ---------------------------------------------------------------------------------------


def bid(asked: Call, known: Known = EVERYWHERE) -> tuple[int, int, int, bool]:
    found = bid_for(asked, plan(caller(), asked, cast("Directory", known)).every)
    return found.fixed_nano, found.output_tokens, found.output_rate, found.may_shrink


def test_the_bid_is_that_of_the_dearest_target_in_each_part() -> None:
    asked = call("m", max_tokens=50)
    fixed, output, rate, may_shrink = bid(asked)
    assert fixed == input_bound(asked, BETA) * 4_000
    assert (output, rate, may_shrink) == (50, 10 * USD, False)


def test_without_a_limit_the_longest_answer_of_any_target_counts_for_each_choice() -> None:
    assert bid(call("m", n=3))[1] == 6_000
    assert bid(call("m", n=3))[3]
    assert bid(call("only-alpha"))[1:] == (32_768, 0, True)


def test_the_input_is_bounded_by_the_bytes_and_what_is_added_to_them() -> None:
    short, long = call("m"), call("m", messages=[{"content": "x" * 1_000}] * 3)
    grown = long.ask.size - short.ask.size
    assert input_bound(long, ALPHA) - input_bound(short, ALPHA) == grown + 3 * ALPHA.message_overhead
    image = call("m", messages=[{"content": [{"image_url": {"url": "https://x"}}]}])
    assert input_bound(image, ALPHA) > 20_000
    assert input_bound(short, provider("c", tokens_per_byte=150)) == short.ask.size * 150 // 100


def test_what_cannot_be_counted_is_refused() -> None:
    absurd = replace(EVERYWHERE, prices=PriceBook([Override("alpha", "m", {"input": 0, "output": 10**17}, "p")]))
    asked = call("alpha/m", max_tokens=2**31 - 1, n=128)
    targets = plan(caller(), asked, cast("Directory", absurd))
    with pytest.raises(Refusal) as caught:
        bid_for(asked, targets.every)
    assert caught.value.code == "invalid_request"


def test_a_target_knows_its_provider() -> None:
    assert Target(key("a1", ALPHA), "m", None).provider is ALPHA


def test_a_key_does_not_print_what_it_holds() -> None:
    printed = repr(replace(key("a1", ALPHA), headers=(("authorization", "Bearer s3cret"),), secrets=("s3cret",)))
    assert "s3cret" not in printed


def test_tokens_per_minute_are_taken_at_what_is_likely() -> None:
    asked = call("m", max_tokens=50)
    assert bid_for(asked, plan(caller(), asked, cast("Directory", EVERYWHERE)).every).tokens == asked.ask.size // 4 + 50
    free = call("m")
    assert bid_for(free, plan(caller(), free, cast("Directory", EVERYWHERE)).every).tokens == free.ask.size // 4 + 1_024


def test_an_organization_may_let_models_without_a_price_pass_a_hard_budget() -> None:
    assert refused("only-alpha", caller(5)).code == "model_not_priced"
    assert planned("only-alpha", replace(caller(5), allow_unpriced=True)) == ["a1:only-alpha"]
