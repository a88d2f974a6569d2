"""Abuse of feedback: nobody moves another tenant's routing beyond a stated bound."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.learning.channels import fuse
from sophia.learning.influence import (
    CAPS,
    DAY_MS,
    Caps,
    Meter,
    Offer,
    Voice,
    granted,
    pooled,
    settled,
    trim,
    trust,
)
from sophia.learning.verdicts import LATEST_MS, Decided, Signal, sift

share = st.floats(0, 1)
voice = st.builds(Voice, share, st.floats(0, 1e9))
voices = st.lists(voice, max_size=30)
DECISIONS = {
    1: Decided(1, "good", "arm", 1000, 0.8),
    2: Decided(2, "good", "arm", 1000, 0.8),
    9: Decided(9, "evil", "arm", 1000, 0.8),
}


def said(id: str, decision: int, tenant: str, value: float, **other: object) -> Signal:
    fields = {"key": f"{tenant}-key", "channel": "thumb", "at_ms": 2000, **other}
    return Signal(idempotency=id, decision=decision, tenant=tenant, value=value, **fields)  # type: ignore[arg-type]


# --- who may speak of what -------------------------------------------------------------------


def test_another_tenant_s_decision_cannot_be_spoken_of() -> None:
    sifted = sift([said("a", 1, "evil", 0.0), said("b", 9, "evil", 0.0)], DECISIONS)
    assert set(sifted.votes) == {9}
    assert [(signal.decision, why) for signal, why in sifted.refused] == [(1, "foreign")]


def test_a_replay_adds_nothing_and_blocks_nobody_else() -> None:
    """The same idempotency key counts once, per tenant: a stranger cannot burn it."""
    once = sift([said("a", 1, "good", 1.0)], DECISIONS)
    again = sift([said("a", 9, "evil", 0.0, at_ms=1500)] + [said("a", 1, "good", 1.0)] * 50, DECISIONS)
    assert again.votes[1] == once.votes[1]
    assert [why for _, why in again.refused] == ["replayed"] * 49


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"decision": 77}, "unknown decision"),
        ({"at_ms": 999}, "late"),
        ({"at_ms": 1001 + LATEST_MS}, "late"),
        ({"channel": "gossip"}, "unknown channel"),
        ({"value": 1.01}, "no score"),
        ({"value": float("nan")}, "no score"),
    ],
)
def test_what_cannot_count_is_named(change: dict[str, object], why: str) -> None:
    fields = {"decision": 1, "value": 1.0, **change}
    sifted = sift([said("a", tenant="good", **fields)], DECISIONS)  # type: ignore[arg-type]
    assert sifted.votes == {}
    assert [reason for _, reason in sifted.refused] == [why]


def test_late_feedback_within_thirty_days_counts() -> None:
    assert 1 in sift([said("a", 1, "good", 1.0, at_ms=1000 + LATEST_MS)], DECISIONS).votes


def test_the_last_word_wins_and_each_turn_costs() -> None:
    calm = sift([said("a", 1, "good", 0.0)], DECISIONS).votes[1][0]
    turned = [said("b", 1, "good", 0.0, at_ms=3000), said("a", 1, "good", 1.0)]
    torn = sift(turned, DECISIONS).votes[1][0]
    assert (calm.value, calm.strength) == (0.0, 1.0)
    assert (torn.value, torn.strength) == (0.0, 0.5)
    assert sift(reversed(turned), DECISIONS).votes == sift(turned, DECISIONS).votes
    many = sift([said(str(n), 1, "good", n % 2, at_ms=2000 + n) for n in range(101)], DECISIONS)
    assert many.votes[1][0].strength == pytest.approx(1 / 101)


def test_saying_it_again_or_with_many_keys_is_one_vote() -> None:
    once = sift([said("a", 1, "good", 1.0)], DECISIONS)
    often = sift([said(str(n), 1, "good", 1.0, at_ms=2000 + n) for n in range(500)], DECISIONS)
    crowd = sift([said(str(n), 1, "good", 1.0, key=f"k{n}") for n in range(500)], DECISIONS)
    assert once.votes == often.votes == crowd.votes
    assert len(crowd.keys[1]) == 500
    split = sift([said("a", 1, "good", 0.0), said("b", 1, "good", 1.0, key="other")], DECISIONS)
    assert split.votes[1][0].value == 0.5


# --- how much a key and a tenant may weigh ---------------------------------------------------


@given(
    st.lists(
        st.builds(
            Offer,
            st.sampled_from(["a", "b"]),
            st.sampled_from(["k", "l", "m"]),
            st.sampled_from(["x", "y"]),
            st.integers(0, 3 * DAY_MS),
            st.floats(0, 1e6),
        ),
        max_size=60,
    )
)
def test_no_key_and_no_tenant_passes_its_cap(offers: list[Offer]) -> None:
    """The total granted per window and arm is bounded for every sequence of outcomes."""
    caps = Caps(key=5, tenant=8)
    meter = Meter(caps)
    local: dict[tuple[object, ...], float] = {}
    shared: dict[tuple[object, ...], float] = {}
    for offer in offers:
        got = meter.grant(offer)
        assert 0 <= got.shared <= got.local + 1e-9
        assert got.local <= offer.weight + 1e-9
        day = offer.at_ms // DAY_MS
        own, all_keys = (day, offer.tenant, offer.key, offer.arm), (day, offer.tenant, offer.arm)
        local[own] = local.get(own, 0) + got.local
        shared[all_keys] = shared.get(all_keys, 0) + got.shared
    assert all(total <= 5 + 1e-9 for total in local.values())
    assert all(total <= 8 + 1e-9 for total in shared.values())


@given(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0.1, 1e3))
def test_granted_weight_is_concave_and_capped(one: float, more: float, cap: float) -> None:
    assert granted(one, cap) <= min(one, cap) + 1e-9
    assert granted(one + more, cap) >= granted(one, cap)
    middle = granted(one + more / 2, cap)
    assert 2 * middle >= granted(one, cap) + granted(one + more, cap) - 1e-9
    assert granted(1e-3 * cap, cap) == pytest.approx(1e-3 * cap, rel=1e-3)


def test_an_ordinary_key_is_hardly_slowed() -> None:
    meter = Meter()
    total = sum(meter.grant(Offer("t", "k", "arm", n, 1.0)).local for n in range(10))
    assert 9 < total < 10


def test_a_flood_does_not_use_up_other_keys_arms_days_or_tenants() -> None:
    meter = Meter()
    for n in range(2000):
        meter.grant(Offer("evil", "k", "arm", n, 1.0))
    assert meter.grant(Offer("evil", "k", "arm", 1, 1.0)).local < 1e-6
    for other in (
        Offer("evil", "l", "arm", 1, 1.0),
        Offer("evil", "k", "other", 1, 1.0),
        Offer("evil", "k", "arm", DAY_MS, 1.0),
        Offer("good", "k", "arm", 1, 1.0),
    ):
        assert meter.grant(other).local > 0.98


def test_a_meter_goes_on_where_it_stopped_and_forgets_closed_windows() -> None:
    meter = Meter()
    first = [meter.grant(Offer("t", "k", "arm", n, 1.0)) for n in range(40)]
    resumed = Meter(spent=meter.spent)
    assert resumed.grant(Offer("t", "k", "arm", 50, 1.0)).local < first[-1].local
    resumed.forget(DAY_MS)
    assert resumed.spent == {}
    meter.forget(DAY_MS - 1)
    assert len(meter.spent) == 2


def test_a_key_that_contradicts_better_channels_is_believed_less() -> None:
    worth = [trust(10, wrong) for wrong in (0, 1, 3, 6, 14)]
    assert worth[0] == 1
    assert worth == sorted(worth, reverse=True)
    assert worth[-1] == 0
    assert 0.8 < trust(10, 1) < 1
    assert trust(0, 0) == 1


# --- the level that tenants share ------------------------------------------------------------


@given(voices, voice, voice, share)
def test_one_tenant_moves_the_shared_level_by_its_reach_at_most(
    others: list[Voice], one: Voice, other: Voice, prior: float
) -> None:
    """Whatever a tenant says, and whatever else it might have said."""
    before, after = pooled([*others, one], prior), pooled([*others, other], prior)
    assert abs(before.mean - after.mean) <= before.reach + 1e-12
    silent = pooled([*others, Voice(0.0, 0.0)], prior)
    assert abs(after.mean - silent.mean) <= silent.reach + 1e-12


@given(voices, st.lists(voice, max_size=10), share)
def test_so_many_liars_as_are_trimmed_stay_within_the_range_of_the_others(
    honest: list[Voice], liars: list[Voice], prior: float
) -> None:
    seats = len(honest) + len(liars) + CAPS.ghosts
    liars = liars[: trim(seats)]
    if len(liars) > trim(len(honest) + len(liars) + CAPS.ghosts):
        return
    told = pooled([*honest, *liars], prior)
    low = min([prior, *(one.mean for one in honest)])
    high = max([prior, *(one.mean for one in honest)])
    assert low - 1e-9 <= told.mean <= high + 1e-9
    assert low - 1e-9 <= told.low <= told.high <= high + 1e-9


@given(voices, share)
def test_how_much_a_tenant_says_counts_up_to_its_cap_only(others: list[Voice], mean: float) -> None:
    capped = pooled([*others, Voice(mean, CAPS.tenant)], 0.5)
    assert pooled([*others, Voice(mean, 1e12)], 0.5) == capped


def test_many_tenants_that_agree_are_followed() -> None:
    agreeing = [Voice(0.9, 500.0)] * 12
    told = pooled(agreeing, 0.5)
    assert told.mean > 0.8
    assert told.weight > 500
    assert pooled(agreeing[:1], 0.5).mean == 0.5
    assert pooled([], 0.5).mean == 0.5
    assert pooled([], 0.5).weight == 0


def test_a_single_liar_can_do_nothing_at_all_among_few() -> None:
    """With one tenant besides, the seats that keep to the prior hold the middle."""
    quiet = pooled([Voice(0.8, 50), Voice(0.0, 0.0)], 0.8)
    attacked = pooled([Voice(0.8, 50), Voice(0.0, 1e9)], 0.8)
    assert attacked.mean == quiet.mean == 0.8


@given(
    st.lists(share, min_size=1, max_size=20), st.lists(voice, max_size=10), st.floats(0.01, 0.99)
)
def test_settled_scores_average_within_what_others_bear_out(
    qualities: list[float], others: list[Voice], prior: float
) -> None:
    """A learner that averages what it is taught cannot be carried out of the kept range."""
    mean = float(np.mean(qualities))
    shared = pooled([*others, Voice(mean, float(len(qualities)))], prior)
    taught = [settled(quality, mean, shared) for quality in qualities]
    assert all(-1e-9 <= one <= 1 + 1e-9 for one in taught)
    assert shared.low - 1e-6 <= np.mean(taught) <= shared.high + 1e-6
    assert np.all(np.diff([taught[at] for at in np.argsort(qualities)]) >= -1e-9)


# --- all walls together ----------------------------------------------------------------------


def test_an_attack_cannot_change_what_another_tenant_is_served() -> None:
    """One key floods, contradicts itself, replays and names others' decisions: nothing moves."""
    rng = np.random.default_rng(5)
    arms = {"best": 0.85, "second": 0.80}
    honest = {f"t{n}": 0 for n in range(6)}
    decisions, signals = {}, []
    for id in range(3000):
        tenant, arm = f"t{id % 6}", ("best", "second")[id // 6 % 2]
        decisions[id] = Decided(id, tenant, arm, 1000 + id, 0.8)
        good = float(rng.random() < arms[arm])
        signals.append(said(f"s{id}", id, tenant, good, at_ms=2000 + id, channel="test"))
    for id in range(3000, 6000):
        decisions[id] = Decided(id, "evil", "best", 1000, 0.8)
    attack = [said(f"e{id}", id, "evil", 0.0, channel="test") for id in range(3000, 6000)]
    attack += [said(f"f{id}", id, "evil", 0.0, channel="test") for id in range(3000)]
    attack += [said("e3000", 3000, "evil", 0.0, channel="test")] * 3000
    attack += [said(f"t{n}", 3000, "evil", n % 2, at_ms=4000 + n) for n in range(3000)]

    before = shared_view(signals, decisions, arms)
    after = shared_view(signals + attack, decisions, arms)
    for arm in arms:
        assert abs(after[arm].mean - before[arm].mean) <= after[arm].reach + 0.01
        assert after[arm].reach < 0.02
    for tenant in honest:
        assert served(tenant, before, signals, decisions) == served(
            tenant, after, signals + attack, decisions
        )


def served(tenant: str, shared: dict, signals: list[Signal], decisions: dict) -> str:  # type: ignore[type-arg]
    """The arm that a tenant's own mean on top of the shared view prefers."""
    sums = {arm: [20 * view.mean, 20.0] for arm, view in shared.items()}
    for signal in signals:
        decided = decisions[signal.decision]
        if signal.tenant == tenant == decided.tenant:
            sums[decided.arm][0] += signal.value
            sums[decided.arm][1] += 1
    return max(sums, key=lambda arm: sums[arm][0] / sums[arm][1])


def shared_view(signals: list[Signal], decisions: dict, arms: dict) -> dict:  # type: ignore[type-arg]
    sifted, meter = sift(signals, decisions), Meter()
    sums: dict[tuple[str, str], list[float]] = {}
    for id, votes in sifted.votes.items():
        decided, one = decisions[id], fuse(votes, decisions[id].expected)
        key = sifted.keys[id][0]
        got = meter.grant(Offer(decided.tenant, key, decided.arm, decided.at_ms, one.weight))
        total = sums.setdefault((decided.arm, decided.tenant), [0.0, 0.0])
        total[0] += got.shared * one.score
        total[1] += got.shared
    return {
        arm: pooled([Voice(s / w, w) for (a, _), (s, w) in sums.items() if a == arm], 0.8)
        for arm in arms
    }


@given(st.lists(st.floats(0.01, 3.0), min_size=1, max_size=40), st.data())
def test_a_meter_that_recalls_what_it_granted_goes_on_as_if_never_stopped(
    weights: list[float], data: st.DataObject
) -> None:
    """A restart gives nobody a second voice, and takes none away."""
    cut = data.draw(st.integers(0, len(weights)))
    whole, stopped, resumed = Meter(), Meter(), Meter()
    for number, weight in enumerate(weights):
        offer = Offer("t", "k", "arm", 5, weight)
        expected = whole.grant(offer)
        if number < cut:
            past = stopped.grant(offer)
            resumed.recall(Offer("t", "k", "arm", 5, past.local))
        else:
            assert resumed.grant(offer).local == pytest.approx(expected.local, rel=1e-6, abs=1e-9)
    assert resumed.spent.keys() == whole.spent.keys()
