"""Which targets a call may have, in which order, what is missing where there is none, and what it may cost at most."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from ostiary.agents.policy import Choice, Policy, choice_of
from ostiary.errors import Refusal
from ostiary.gateway.call import Call
from ostiary.gateway.caller import Caller, OpenKey
from ostiary.gateway.directory import Directory
from ostiary.gateway.plan import Target, bid_for, input_bound, plan
from ostiary.limits.budgets import Budget
from ostiary.limits.local import Allowance
from ostiary.providers import catalog
from ostiary.providers.catalog import Catalog, Model, Provider
from ostiary.providers.openai import OpenAI
from ostiary.providers.prices import Override, PriceBook

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

    def keys_for(self, organization_id: str, provider_id: str) -> list[OpenKey]:
        self.looks += 1
        return [one for one in self.keys if one.provider.id == provider_id and one.organization_id == organization_id]


EVERYWHERE = Known([key("a1", ALPHA), key("b1", BETA), key("b2", BETA), key("d1", DEAF)])


def caller(budget_usd: int | None = None, **policy: Any) -> Caller:
    budgets = (("agent_key", "k", Budget("total", budget_usd * USD)),) if budget_usd is not None else ()
    return Caller("ours", Policy(**policy), Allowance("k", budgets=budgets))


def call(model: str, operation: str = "chat", **fields: Any) -> Call:
    body: dict[str, Any] = {"model": model, ("input" if operation == "embeddings" else "messages"): [], **fields}
    return Call(operation, OpenAI().read_ask(operation, json.dumps(body).encode()), None)


def planned(model: str, who: Caller | None = None, known: Known = EVERYWHERE, operation: str = "chat") -> list[str]:
    targets = plan(who or caller(), call(model, operation), cast("Directory", known))
    return [f"{target.key.id}:{target.model}" for target in targets]


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
    assert planned("m", known=many) == ["a0:m", "a1:m", "a2:m"]


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


# ---- the most it can cost ---------------------------------------------------------------------------------------


def bid(asked: Call, known: Known = EVERYWHERE) -> tuple[int, int, int, bool]:
    targets = plan(caller(), asked, cast("Directory", known))
    found = bid_for(asked, targets)
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
        bid_for(asked, targets)
    assert caught.value.code == "invalid_request"


def test_a_target_knows_its_provider() -> None:
    assert Target(key("a1", ALPHA), "m", None).provider is ALPHA


def test_a_key_does_not_print_what_it_holds() -> None:
    printed = repr(replace(key("a1", ALPHA), headers=(("authorization", "Bearer s3cret"),), secrets=("s3cret",)))
    assert "s3cret" not in printed


def test_tokens_per_minute_are_taken_at_what_is_likely() -> None:
    asked = call("m", max_tokens=50)
    assert bid_for(asked, plan(caller(), asked, cast("Directory", EVERYWHERE))).tokens == asked.ask.size // 4 + 50
    free = call("m")
    assert bid_for(free, plan(caller(), free, cast("Directory", EVERYWHERE))).tokens == free.ask.size // 4 + 1_024


def test_an_organization_may_let_models_without_a_price_pass_a_hard_budget() -> None:
    assert refused("only-alpha", caller(5)).code == "model_not_priced"
    assert planned("only-alpha", replace(caller(5), allow_unpriced=True)) == ["a1:only-alpha"]
