"""What channels and judges are worth is told by their agreement, and no key tells it for others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.core.rows import Feedback
from sophia.learning.calibration import LEAST, Ballot, credences
from sophia.learning.channels import CHANNELS, Vote, telling
from sophia.learning.credence import NOTHING, Credence, vote_of

GPT, NOVA, MINI = "openai/gpt-5", "amazon/nova-lite-v1", "openai/gpt-4o-mini"
RATES = {"score": (0.95, 0.10), "thumb": (0.60, 0.50), "judge": (0.90, 0.10)}


def ballots(key: str, seed: int, count: int = 1500, lies: bool = False) -> list[Ballot]:
    """Decisions whose thumbs hardly tell anything here; a liar's scores say the contrary."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        good = rng.random() < 0.7
        votes = {
            name: float(rng.random() < (hit if good else slip))
            for name, (hit, slip) in RATES.items()
            if rng.random() < 0.7
        }
        if lies:
            votes = {name: 1.0 - value if name == "score" else value for name, value in votes.items()}
        if len(votes) > 1:
            found.append(Ballot(key, MINI, 0.7, votes, NOVA if "judge" in votes else ""))
    return found


def test_each_key_learns_what_its_own_channels_are_worth() -> None:
    """A key whose thumbs are noise has them count for little; another key's count as before."""
    told = credences(ballots("noisy", 1), shared=False)
    assert told.keys() == {"noisy"}
    thumb = told["noisy"].channels["thumb"]
    assert (thumb.hit, thumb.slip) == (pytest.approx(0.6, abs=0.08), pytest.approx(0.5, abs=0.1))
    assert telling(thumb) < 0.1 < telling(CHANNELS["thumb"])
    assert telling(told["noisy"].channels["judge"]) > telling(CHANNELS["judge"])
    assert told["noisy"].compared["thumb"] > 500


def test_too_few_comparisons_tell_nothing() -> None:
    assert credences(ballots("new", 1)[: LEAST - 1], shared=False) == {}
    assert credences(ballots("new", 1)[: LEAST - 1], shared=True) == {}


def test_no_key_tells_what_a_teams_channels_are_worth_alone() -> None:
    """However much it says, beside four who keep to what everybody believes it is cut off."""
    (team,) = credences(ballots("loud", 1, 6000), shared=True).values()
    for name, channel in team.channels.items():
        assert channel.hit == pytest.approx(CHANNELS[name].hit)
        assert channel.slip == pytest.approx(CHANNELS[name].slip)


def test_many_keys_that_agree_are_believed() -> None:
    cast = [one for key in range(12) for one in ballots(f"key {key}", key, 300)]
    thumb = credences(cast, shared=True)[""].channels["thumb"]
    assert thumb.hit < CHANNELS["thumb"].hit - 0.1
    assert thumb.slip > CHANNELS["thumb"].slip + 0.1


def test_a_liar_among_keys_does_not_turn_a_channel_around() -> None:
    honest = [one for key in range(7) for one in ballots(f"key {key}", key, 300)]
    before = credences(honest, shared=True)[""].channels["score"]
    after = credences([*honest, *ballots("liar", 99, 5000, lies=True)], shared=True)[""]
    score = after.channels["score"]
    assert abs(score.hit - before.hit) < 0.03 and abs(score.slip - before.slip) < 0.03
    assert telling(score) > 0.4


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_whatever_one_key_says_a_channel_keeps_its_name(seed: int, hit: float, slip: float) -> None:
    rng = np.random.default_rng(seed)
    said = [
        Ballot("one", MINI, 0.7, {"score": float(rng.random() < hit), "test": float(rng.random() < slip)})
        for _ in range(60)
    ]
    alone, team = credences(said, shared=False)["one"], credences(said, shared=True)[""]
    for told in (alone, team):
        assert all(channel.hit > channel.slip for channel in told.channels.values())


def verdict(label: str | None, score: float = 0.9, channel: str = "judge") -> Feedback:
    return Feedback("k", 16, "key", score, label, 0, None, channel, 1)


def favoured(key: str) -> list[Ballot]:
    """Answers that a relative scores 0.2 above what people say, and strangers as they deserve."""
    rng = np.random.default_rng(4)
    found = []
    for at in range(400):
        model = MINI if at % 2 else NOVA
        score = float(np.clip(rng.normal(0.6, 0.1), 0, 1))
        told = min(score + (0.2 if model == MINI else 0.0), 1.0)
        found.append(Ballot(key, model, 0.6, {"score": score, "judge": told}, GPT))
    return found


def test_a_relative_is_heard_once_its_favour_is_measured_and_without_it() -> None:
    assert vote_of(verdict(GPT), MINI, NOTHING) is None
    assert vote_of(verdict(GPT), NOVA, NOTHING) == Vote("judge", 0.9)
    known = credences(favoured("key"), shared=False)["key"]
    vote = vote_of(verdict(GPT), MINI, known)
    assert vote is not None
    assert vote.value == pytest.approx(0.72, abs=0.04) and 0.4 < vote.strength <= 0.5


def test_where_keys_learn_together_no_key_feigns_a_judges_favour() -> None:
    assert credences(favoured("key"), shared=True)[""].favours == ()


@pytest.mark.parametrize("label", [None, "", "rubric", "good"])
def test_a_judge_without_a_family_is_heard_as_it_is(label: str | None) -> None:
    assert vote_of(verdict(label), MINI, NOTHING) == Vote("judge", 0.9)
    assert vote_of(verdict(GPT, channel="score"), MINI, NOTHING) == Vote("score", 0.9)


def test_what_is_not_known_is_believed_as_by_everybody() -> None:
    assert NOTHING.known() == CHANNELS
    one = credences(ballots("k", 1), shared=False)["k"]
    assert Credence(one.channels).known()["test"] == CHANNELS["test"]
