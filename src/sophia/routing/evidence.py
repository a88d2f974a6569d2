"""What a learned choice saw, as bytes that are kept and read back exactly."""

from collections.abc import Sequence

import numpy as np
from msgspec import convert

from sophia.routing.arms import arm_of
from sophia.routing.nouns import Evidence, Rated
from sophia.routing.policies.choose import Choice, Exploration, Mode, Options, Taste, choose
from sophia.routing.policies.policy import Policy, Sight, Vector

_NUMBER = np.dtype("<f4")
_CORRECTION = "~"
_Exploring = tuple[Mode, float, float, float, float, float]


def state_of(state: str, correction: str) -> str:
    """Return the name of a learned state with a correction on top; "" for none."""
    return f"{state}{_CORRECTION}{correction}" if correction else state


def corrected_by(state: str) -> str:
    """Return the name of the correction that `state_of` was given."""
    return state.partition(_CORRECTION)[2]


def uncorrected(state: str) -> str:
    """Return the learned state that `state_of` was given."""
    return state.partition(_CORRECTION)[0]


def rounded(sight: Sight) -> Sight:
    """Return `sight` with every number as it is kept, so that what decided can be read back."""
    return Sight(
        _as_kept(sight.tasks),
        _as_kept(sight.embedding),
        _as_kept(sight.features),
        float(np.float32(sight.novelty)),
        sight.tenant,
    )


def pack(sight: Sight) -> bytes:
    """Return a rounded sight as bytes: three lengths, then all numbers; the tenant is not in it."""
    lengths = [len(sight.tasks), len(sight.embedding), len(sight.features)]
    numbers = np.concatenate(
        [lengths, sight.tasks, sight.embedding, sight.features, [sight.novelty]]
    )
    return numbers.astype(_NUMBER).tobytes()


def unpack(kept: bytes, tenant: str = "") -> Sight:
    """Return the sight that `pack` wrote. Raises ValueError when these are other bytes."""
    numbers = np.frombuffer(kept, _NUMBER).astype(np.float64)
    lengths = [int(length) for length in numbers[:3]]
    if len(numbers) != sum(lengths) + 4:
        raise ValueError("these bytes are no sight of a request")
    tasks, embedding, features, novelty = np.split(numbers[3:], np.cumsum(lengths))
    return Sight(tasks, embedding, features, float(novelty[0]), tenant)


def as_bytes(chances: Vector) -> bytes:
    """Return the chances of tasks, (T,), as they are kept for an explanation."""
    return chances.astype(_NUMBER).tobytes()


def from_bytes(kept: bytes) -> Vector:
    """Return what `as_bytes` wrote."""
    return np.frombuffer(kept, _NUMBER).astype(np.float64)


def again(policy: Policy, evidence: Evidence, tenant: str = "") -> tuple[str, tuple[Rated, ...]]:
    """Return the model that `policy` takes on the same request now, and how it rates all.

    With the policy in the state that `evidence` names, both equal what was kept, bit by bit.

    Raises:
        ValueError: the evidence holds no learned choice, or is not whole.
    """
    kept = evidence.rated
    if not kept:
        raise ValueError("no learned policy took this decision")
    arms = [one.arm for one in kept]
    named = [arm_of(arm, evidence.mode) for arm in arms]
    ratings = policy.rate(unpack(evidence.sight, tenant), named)
    if ratings is None:
        raise ValueError(f"{policy.name} declines this request")
    options = Options(
        ratings,
        np.array([one.cost_nano for one in kept]),
        np.array([one.explorable for one in kept]),
        np.array([one.late for one in kept]),
        evidence.current,
        evidence.trial,
        np.array([one.fail for one in kept]),
    )
    exploration = convert(evidence.exploration, _Exploring)
    choice = choose(options, Taste(*evidence.taste), Exploration(*exploration), evidence.draw)
    return arms[choice.arm], rated(arms, options, choice)


def rated(arms: Sequence[str], options: Options, choice: Choice) -> tuple[Rated, ...]:
    """Return what was made of each arm, in plain numbers."""
    late = np.zeros(len(arms)) if options.late is None else options.late
    fail = np.zeros(len(arms)) if options.fail is None else options.fail
    ratings = options.ratings
    columns = (
        ratings.quality,
        ratings.sd,
        options.cost,
        late,
        options.explorable,
        choice.utility,
        choice.propensities,
        fail,
    )
    return tuple(map(Rated, arms, *(column.tolist() for column in columns)))


def _as_kept(vector: Vector) -> Vector:
    kept: Vector = vector.astype(_NUMBER).astype(np.float64)
    return kept
