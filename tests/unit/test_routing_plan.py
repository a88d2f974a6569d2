"""The decision: the plan's table, its failover chains, rules, wishes, money and refusals."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs
from routing_world import (
    BY_ID,
    DEEPSEEK,
    FLASH,
    GEMMA,
    GROK,
    KIMI,
    MINI,
    MODELS,
    NEMO,
    QWEN,
    SONNET,
    TODAY,
    ask,
    asked,
)

from sophia.catalogue.model import Model
from sophia.core.errors import (
    BudgetExceeded,
    ContextLengthExceeded,
    IncapableModel,
    NoCandidate,
    UnknownModel,
)
from sophia.http.v1.explanation import explain_plan, summarize_plan
from sophia.routing.bandit.policy import PolicyContext
from sophia.routing.features.extract import build_default_features
from sophia.routing.plan import build_plan, plan_named
from sophia.routing.pool import PoolModel
from sophia.routing.rank import RoutingContext
from sophia.routing.request import KeyLimits
from sophia.routing.rules.model import Condition, Rule, RuleBook
from sophia.routing.types import Hints, Plan, Prompt, TaskType

GENEROUS = KeyLimits(per_request_nano=None, max_attempts=4)


def named(
    model: Model,
    prompt: Prompt,
    limits: KeyLimits,
    substitutes: Sequence[Model] = (),
    model_kind: str = "chat",
) -> Plan:
    models = [PoolModel.from_model(one, {}) for one in (model, *substitutes)]
    return plan_named(models, prompt, limits, today=TODAY, model_kind=model_kind)


def order(decided: Plan) -> list[str]:
    return [attempt.model for attempt in decided.attempts]


@pytest.mark.parametrize(
    ("task", "complexity", "chars", "model"),
    [
        ("coding", 0.71, 10, DEEPSEEK),
        ("coding", 0.70, 10, QWEN),
        ("analysis", 0.10, 50_001, KIMI),
        ("analysis", 0.81, 50_000, SONNET),
        ("analysis", 0.80, 10, FLASH),
        ("creative", 0.50, 10, GROK),
        ("general", 0.29, 10, MINI),
        ("general", 0.30, 10, FLASH),
        ("general", 0.59, 10, FLASH),
        ("general", 0.60, 10, SONNET),
    ],
)
def test_the_table_of_the_plan(task: TaskType, complexity: float, chars: int, model: str) -> None:
    """Every cell of the heuristic, on its threshold."""
    prompt = asked("x", chars=chars, utf8_bytes=chars)
    decided = build_plan(ask(prompt, Hints(task_type=task, complexity=complexity), limits=GENEROUS))
    assert order(decided)[0] == model
    assert (decided.policy, decided.rule) == ("heuristic", None)
    assert decided.reason.endswith(".")


@pytest.mark.parametrize(
    ("hints", "chars", "chain"),
    [
        (Hints(task_type="analysis", complexity=0.9), 10, [SONNET, DEEPSEEK, FLASH, MINI]),
        (Hints(task_type="coding", complexity=0.9), 10, [DEEPSEEK, QWEN, SONNET, MINI]),
        (Hints(task_type="analysis", complexity=0.1), 60_000, [KIMI, SONNET, FLASH, MINI]),
    ],
)
def test_the_failover_chains_of_the_plan(hints: Hints, chars: int, chain: list[str]) -> None:
    """Each first choice has the substitutes that the plan names, in its order."""
    prompt = asked("x", chars=chars, utf8_bytes=chars)
    assert order(build_plan(ask(prompt, hints, limits=GENEROUS))) == chain


@pytest.mark.parametrize("length", [2, 3, 4, 9])
def test_the_named_fallback_is_never_cut_off(length: int) -> None:
    """However short the chain, its last resort stays."""
    limits = KeyLimits(per_request_nano=None, max_attempts=length)
    hints = Hints(task_type="coding", complexity=0.9)
    decided = build_plan(ask(hints=hints, limits=limits, fallbacks=("nobody/knows", NEMO)))
    assert order(decided)[0] == DEEPSEEK
    assert order(decided)[-1] == NEMO
    assert len(decided.attempts) == length


def test_a_single_attempt_goes_to_the_first_choice() -> None:
    """With one try, the try is the best one."""
    hints = Hints(task_type="coding", complexity=0.9)
    assert order(build_plan(ask(hints=hints, limits=KeyLimits(max_attempts=1)))) == [DEEPSEEK]


def test_a_retired_first_choice_is_left_out_with_its_cause() -> None:
    """The next in line answers, and the reason says so."""
    hints = Hints(task_type="coding", complexity=0.9)
    decided = build_plan(ask(hints=hints, expired=frozenset({DEEPSEEK})))
    assert order(decided)[0] == QWEN
    assert [cause.code for cause in decided.excluded] == ["expired"]
    assert "not able" in decided.reason


RULE = Rule(
    name="mine",
    conditions=(Condition("turns", ">=", 1),),
    preferred_models=(KIMI, GROK),
    fallback=NEMO,
)


def test_the_model_that_called_a_tool_continues_unless_a_policy_is_asked_for() -> None:
    """It knows why it called the tool; an explicit wish is stronger."""
    context = RoutingContext(
        context=PolicyContext(np.array([1.0])), uniform=0.5, current_model=KIMI
    )
    for policy, first in ((None, KIMI), ("heuristic", MINI)):
        request = ask(asked(after_tool_result=True), Hints(policy=policy, complexity=0.1))
        assert order(build_plan(structs.replace(request, context=context)))[0] == first


def test_a_rule_comes_before_the_policy() -> None:
    """Preferred models in order, the rule's fallback last."""
    decided = build_plan(ask(rulebook=RuleBook((RULE,)), limits=GENEROUS, fallbacks=(MINI,)))
    assert order(decided)[:2] == [KIMI, GROK]
    assert order(decided)[-1] == NEMO
    assert (decided.policy, decided.rule) == ("rule", "mine")


def test_a_rule_whose_models_are_all_out_of_reach_uses_its_fallback() -> None:
    """And says why."""
    decided = build_plan(ask(rulebook=RuleBook((RULE,)), expired=frozenset({KIMI, GROK})))
    assert order(decided)[0] == NEMO
    assert "fallback" in decided.reason


def test_a_rule_without_any_able_model_leaves_the_choice_to_the_policy() -> None:
    """A rule cannot make a request fail that somebody can answer."""
    decided = build_plan(ask(rulebook=RuleBook((RULE,)), expired=frozenset({KIMI, GROK, NEMO})))
    assert decided.policy == "heuristic"


def test_a_wish_for_cheap_chooses_within_the_rule() -> None:
    """The operator names the models, the caller's wish picks among them."""
    decided = build_plan(ask(hints=Hints(tradeoff="cheap"), rulebook=RuleBook((RULE,))))
    assert order(decided)[0] == KIMI


def test_a_forced_rule_needs_no_conditions() -> None:
    """`sophia/<rule>` asks for it by name."""
    never = replace(RULE, conditions=(Condition("turns", ">", 99),))
    decided = build_plan(ask(hints=Hints(rule="mine"), rulebook=RuleBook((never,))))
    assert decided.rule == "mine"


def test_an_unknown_rule_is_refused_with_the_names_there_are() -> None:
    """The message lists what can be asked for."""
    with pytest.raises(UnknownModel, match="sophia/heuristic, sophia/learned, sophia/mine"):
        ask(hints=Hints(rule="other"), rulebook=RuleBook((RULE,)))


def test_min_quality_holds_for_the_substitutes_of_a_rule_too() -> None:
    """A failover does not go below what the caller asked for."""
    rule = replace(RULE, preferred_models=(SONNET,), fallback=None)
    hints = Hints(min_quality=0.89)
    decided = build_plan(ask(hints=hints, rulebook=RuleBook((rule,)), limits=GENEROUS))
    assert order(decided) == [SONNET, DEEPSEEK]


def test_a_rule_may_name_a_model_outside_the_pool() -> None:
    """The catalogue is larger than the nine."""
    pool = [model for model in MODELS if model.id != KIMI]
    decided = build_plan(ask(models=pool, rulebook=RuleBook((RULE,))))
    assert order(decided)[0] == KIMI


@pytest.mark.parametrize(
    ("hints", "model"),
    [
        (Hints(tradeoff="cheap"), DEEPSEEK),
        (Hints(tradeoff="fast"), FLASH),
        (Hints(tradeoff="best"), SONNET),
        (Hints(policy="best"), SONNET),
        (Hints(min_quality=0.89), DEEPSEEK),
        (Hints(cost_sensitive=True), DEEPSEEK),
        (Hints(cost_sensitive=True, min_quality=0.0), GEMMA),
        (Hints(models=(KIMI, GROK), tradeoff="best"), KIMI),
    ],
)
def test_a_wish_moves_its_candidate_to_the_front(hints: Hints, model: str) -> None:
    """Cheapest above the floor, fastest above it, best of all."""
    decided = build_plan(ask(asked("hi", max_tokens=200), hints))
    assert order(decided)[0] == model


def test_a_quality_that_no_model_has_goes_to_the_one_that_comes_closest() -> None:
    """Who asks for more than there is wants the best there is, and is told so."""
    decided = build_plan(ask(hints=Hints(min_quality=0.99)))
    assert order(decided) == [SONNET, DEEPSEEK, QWEN]
    assert decided.reason.startswith("No model is expected to reach a quality of 0.99; this one")
    assert decided.notes == ("min_quality",)


@pytest.mark.parametrize("rule", [None, replace(RULE, fallback=GEMMA)])
def test_a_strict_quality_that_no_model_has_is_refused(rule: Rule | None) -> None:
    """No answer at all may be better than a poor one; the caller decides."""
    rulebook = RuleBook(() if rule is None else (rule,))
    with pytest.raises(NoCandidate, match=r"a quality of 0\.99; .*Lower min_quality"):
        build_plan(ask(hints=Hints(min_quality=0.99, strict=True), rulebook=rulebook))


def test_a_strict_quality_holds_for_every_substitute() -> None:
    """The last resort is cheap and poor: it may not step in."""
    hints = Hints(min_quality=0.89)
    request = structs.replace(ask(hints=hints), fallback_models=(GEMMA,))
    loose = build_plan(request)
    strict = build_plan(structs.replace(request, hints=structs.replace(hints, strict=True)))
    assert order(loose)[-1] == GEMMA
    assert GEMMA not in order(strict)


def test_bundled_rules_apply_by_name_alone_and_the_operators_own_by_their_conditions() -> None:
    """A fresh install chooses by itself; a rule that somebody wrote is a policy."""
    for bundled, policy in ((True, "heuristic"), (False, "rule")):
        rulebook = RuleBook((RULE,), bundled=bundled)
        for hints in (Hints(), Hints(tradeoff="cheap"), Hints(tradeoff="best")):
            assert build_plan(ask(hints=hints, rulebook=rulebook)).policy == policy
        assert build_plan(ask(hints=Hints(rule="mine"), rulebook=rulebook)).rule == "mine"


def test_models_that_the_caller_lists_are_the_only_ones() -> None:
    """Failover does not leave the list."""
    decided = build_plan(ask(hints=Hints(models=(KIMI, "no/such")), fallbacks=(MINI,)))
    assert order(decided) == [KIMI]
    assert decided.excluded[0].code == "model_not_found"


def test_a_listed_model_outside_the_pool_can_be_chosen() -> None:
    """The caller may restrict the choice to any model of the catalogue."""
    pool = [model for model in MODELS if model.id != KIMI]
    decided = build_plan(ask(hints=Hints(models=(KIMI,)), models=pool))
    assert order(decided) == [KIMI]
    assert not decided.excluded


def test_a_role_is_passed_over_when_its_model_does_not_cover_the_expected_answer() -> None:
    """A whole answer of another model is better than half of one."""
    hints = Hints(task_type="creative")
    (clamped,) = named(BY_ID[GROK], asked(), KeyLimits(per_request_nano=300_000)).attempts
    assert clamped.max_tokens is not None
    decided = build_plan(ask(hints=hints, limits=KeyLimits(per_request_nano=300_000)))
    assert order(build_plan(ask(hints=hints)))[0] == GROK
    assert GROK not in order(decided)
    assert "too expensive" in decided.reason


def test_the_expected_cost_of_a_clamped_answer_holds_the_listed_request_price() -> None:
    """The price margin raises the reservation only."""
    sonnet = BY_ID[SONNET]
    charging = replace(sonnet, prices=replace(sonnet.prices, per_request=1_000_000))
    plain, charged = (
        named(model, asked(), KeyLimits(per_request_nano=limit, price_margin=20)).attempts[0]
        for model, limit in ((sonnet, 2_000_000), (charging, 3_200_000))
    )
    assert charged.max_tokens == plain.max_tokens is not None
    assert charged.held_nano - plain.held_nano == 1_200_000
    assert charged.expected_nano - plain.expected_nano == 1_000_000


def test_a_small_budget_is_answered_with_a_shorter_answer() -> None:
    """The purse clamps the answer and is never overdrawn."""
    limits = KeyLimits(budget_left_nano=60_000)
    decided = build_plan(ask(hints=Hints(task_type="analysis", complexity=0.9), limits=limits))
    assert all(attempt.held_nano <= 60_000 for attempt in decided.attempts)
    assert SONNET not in order(decided)


def test_an_empty_budget_is_a_payment_error_unless_something_is_free() -> None:
    """402 with every model's cause; a free model still answers."""
    broke = KeyLimits(budget_left_nano=0)
    assert order(build_plan(ask(limits=broke))) == [GEMMA]
    paid = [model for model in MODELS if model.id != GEMMA]
    with pytest.raises(BudgetExceeded) as caught:
        build_plan(ask(models=paid, limits=broke))
    assert len(caught.value.details["excluded"]) == len(paid)  # type: ignore[arg-type]  # a list


def test_a_max_cost_that_pays_nobody_names_itself() -> None:
    """The caller's own limit is the caller's to loosen."""
    paid = [model for model in MODELS if model.id != GEMMA]
    with pytest.raises(NoCandidate) as caught:
        build_plan(ask(models=paid, hints=Hints(max_cost_nano=1)))
    assert caught.value.param == "max_cost_usd"


def test_nobody_able_lists_everybody_s_cause() -> None:
    """Each model with its sentence and code."""
    with pytest.raises(NoCandidate) as caught:
        build_plan(ask(asked("x", audio=1)))
    listed = caught.value.details["excluded"]
    assert isinstance(listed, list)
    assert {cause["model"] for cause in listed} == set(BY_ID)
    assert all(cause["code"] == "unsupported_modality" for cause in listed)


def test_a_prompt_too_long_for_everybody_is_a_context_error() -> None:
    """OpenAI's clients know that code."""
    with pytest.raises(ContextLengthExceeded):
        build_plan(ask(asked("x", chars=9_000_000, utf8_bytes=9_000_000), limits=GENEROUS))


def test_a_named_model_is_served_as_asked() -> None:
    """No ranking, no substitutes that the caller did not name."""
    decided = named(BY_ID[SONNET], asked(), KeyLimits())
    assert order(decided) == [SONNET]
    assert decided.policy == "named"


def test_by_default_no_prompt_that_fits_a_model_is_too_expensive_for_it() -> None:
    """Coding agents send 60 kB and more; the daily budget protects, not a limit per request."""
    long = asked("x" * 200_000)
    assert named(BY_ID[SONNET], long, KeyLimits()).attempts[0].max_tokens is None
    assert SONNET in {one.model for one in build_plan(ask(long)).candidates}


@pytest.mark.parametrize(
    ("limits", "source", "option"),
    [
        (KeyLimits(per_request_nano=10**6), "the per-request limit ($0.001)", "--per-request-usd"),
        (KeyLimits(budget_left_nano=10**6), "left of the budget ($0.001)", "--daily-budget-usd"),
    ],
)
def test_a_refusal_for_money_names_both_amounts_and_the_remedy(
    limits: KeyLimits, source: str, option: str
) -> None:
    """30,024 tokens at most, at the $3.75 of a cache write, and 16 tokens at $15 a million."""
    with pytest.raises(BudgetExceeded) as caught:
        named(BY_ID[SONNET], asked("x" * 30_000), limits)
    message = str(caught.value)
    assert "Even a minimal answer may cost $0.11283, more than" in message
    assert source in message and f"`sophia keys update ID {option} N`" in message


def test_named_substitutes_follow_in_order_without_repeats() -> None:
    """OpenRouter's `models[]`, each only if it is able."""
    deaf = replace(BY_ID[KIMI], supported_parameters=frozenset({"max_tokens"}))
    others = (BY_ID[SONNET], deaf, BY_ID[MINI], BY_ID[FLASH])
    decided = named(BY_ID[SONNET], asked("x", tools=1), KeyLimits(), substitutes=others)
    assert order(decided) == [SONNET, MINI, FLASH]
    assert [cause.model for cause in decided.excluded] == [KIMI]


def test_a_substitute_answers_when_the_named_model_is_not_able() -> None:
    """OpenRouter's `models[]` covers a prompt that is too long for the first, too."""
    long = asked("x", chars=900_000, utf8_bytes=900_000)
    decided = named(
        BY_ID[MINI], long, KeyLimits(per_request_nano=None), substitutes=(BY_ID[FLASH],)
    )
    assert order(decided) == [FLASH]
    assert decided.excluded[0].code == "context_length_exceeded"


@pytest.mark.parametrize(("excess", "tried"), [(1.3, True), (1.37, False)])
def test_a_named_model_is_tried_unless_the_prompt_is_surely_too_long(
    excess: float, tried: bool
) -> None:
    """An estimate of up to a third over the window may be wrong; the upstream knows."""
    mini, limits = BY_ID[MINI], KeyLimits(per_request_nano=None)
    window = mini.context_length
    chars = next(
        chars
        for chars in range(window, 10 * window, 100)
        if build_default_features(asked("x", chars=chars, utf8_bytes=chars)).prompt_tokens
        >= excess * window
    )
    prompt = asked("x", chars=chars, utf8_bytes=chars)
    if tried:
        assert order(named(mini, prompt, limits)) == [MINI]
    else:
        with pytest.raises(ContextLengthExceeded):
            named(mini, prompt, limits)


def test_a_named_embedding_model_needs_no_room_for_an_answer() -> None:
    """Many texts in one call may exceed the window of each."""
    model = replace(BY_ID[MINI], kind="embedding", context_length=512)
    long = asked("x", chars=9000, utf8_bytes=9000)
    assert named(model, long, KeyLimits(), model_kind="embedding").attempts[0].model == MINI


def test_a_named_model_that_cannot_is_refused() -> None:
    """By what the caller can do about it."""
    mini = BY_ID[MINI]
    with pytest.raises(IncapableModel):
        named(mini, asked("x", audio=1), KeyLimits())
    with pytest.raises(IncapableModel):
        named(replace(mini, expires_on="2026-01-01"), asked(), KeyLimits())
    with pytest.raises(ContextLengthExceeded):
        named(mini, asked("x", chars=900_000, utf8_bytes=900_000), KeyLimits())
    with pytest.raises(BudgetExceeded):
        named(mini, asked(), KeyLimits(budget_left_nano=10))


def test_a_decision_explains_itself_as_json_without_the_prompt() -> None:
    """Features, costs, causes and what the alternatives would have meant."""
    secret = "zanzibar-7741"
    decided = build_plan(ask(asked(f"Compare {secret} with the rest."), expired=frozenset({GROK})))
    told = json.dumps(explain_plan(decided)) + summarize_plan(decided)
    assert secret not in told
    told_of = explain_plan(decided)
    assert told_of["model"] == decided.attempts[0].model
    assert told_of["excluded"] == [
        {"model": GROK, "cause": f"It was retired on {TODAY}.", "code": "expired"}
    ]
    candidates = told_of["candidates"]
    assert isinstance(candidates, list)
    instead = {fact["model"]: fact.get("instead") for fact in candidates}
    assert instead[FLASH] is None
    assert instead[SONNET].startswith("+$0.0")
    assert instead[SONNET].endswith("quality +0.10")
