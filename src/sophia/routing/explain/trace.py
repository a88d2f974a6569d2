"""Trace of a learned decision: its context as bytes, and the decision reproduced from it."""

from collections.abc import Sequence

import numpy as np

from sophia.routing.bandit.arms import format_arm
from sophia.routing.bandit.choose import ArmChoice, ChoiceSet, choose_arm
from sophia.routing.bandit.policy import ArmRatings, Policy, PolicyContext, Vector
from sophia.routing.types import DecisionTrace, RatedArm

_FLOAT32 = np.dtype("<f4")


def round_context(context: PolicyContext) -> PolicyContext:
    """Return `context` with every number as it is stored, so that the decision can be replayed."""
    return PolicyContext(
        context.task_probabilities.astype(_FLOAT32).astype(np.float64),
        float(np.float32(context.novelty)),
        context.tenant,
    )


def pack_context(context: PolicyContext) -> bytes:
    """Return a rounded context, without its tenant, as bytes: three lengths, then all numbers."""
    tasks = context.task_probabilities
    numbers = np.zeros(len(tasks) + 4, _FLOAT32)
    numbers[0], numbers[3:-1], numbers[-1] = len(tasks), tasks, context.novelty
    return numbers.tobytes()


def unpack_context(packed: bytes, tenant: str = "") -> PolicyContext:
    """Return the context that `pack_context` packed. Raises ValueError for other bytes.

    The second and the third length are of vectors that older rows may hold; these are skipped.
    """
    numbers = np.frombuffer(packed, _FLOAT32).astype(np.float64)
    lengths = [int(length) for length in numbers[:3]]
    if len(numbers) != sum(lengths) + 4:
        raise ValueError("the bytes do not hold a packed context")
    return PolicyContext(numbers[3 : 3 + lengths[0]], float(numbers[-1]), tenant)


def pack_task_probabilities(probabilities: Vector) -> bytes:
    """Return task probabilities, (T,), as float32 bytes."""
    return probabilities.astype(_FLOAT32).tobytes()


def unpack_task_probabilities(packed: bytes) -> Vector:
    """Return the vector that `pack_task_probabilities` packed."""
    return np.frombuffer(packed, _FLOAT32).astype(np.float64)


def build_choice_set(trace: DecisionTrace, ratings: ArmRatings) -> ChoiceSet:
    """Return the options of a traced decision, rated by `ratings`; costs in nano-dollars."""
    arms = trace.rated_arms
    return ChoiceSet(
        ratings=ratings,
        cost=np.array([arm.cost_nano for arm in arms]),
        explorable=np.array([arm.explorable for arm in arms]),
        late_probability=np.array([arm.late_probability for arm in arms]),
        current_arm=trace.current_index,
        trial=trace.trial,
        failure_probability=np.array([arm.failure_probability for arm in arms]),
    )


def replay_decision(
    policy: Policy, trace: DecisionTrace, tenant: str = ""
) -> tuple[str, tuple[RatedArm, ...]]:
    """Return the model that `policy` takes on the same request now, and its ratings.

    With the policy in the state that `trace` names, both equal the stored ones bit by bit.

    Raises:
        ValueError: the trace holds no learned decision, or is not whole.
    """
    if not trace.rated_arms or trace.utility_weights is None or trace.exploration is None:
        raise ValueError("no learned policy took this decision")
    models = [arm.model for arm in trace.rated_arms]
    arms = [format_arm(model, trace.call_mode) for model in models]
    ratings = policy.rate(unpack_context(trace.context, tenant), arms)
    if ratings is None:
        raise ValueError(f"{policy.name} declines this request")
    options = build_choice_set(trace, ratings)
    choice = choose_arm(options, trace.utility_weights, trace.exploration, trace.uniform)
    return models[choice.arm], build_rated_arms(models, options, choice)


def build_rated_arms(
    models: Sequence[str], options: ChoiceSet, choice: ArmChoice
) -> tuple[RatedArm, ...]:
    """Return the rating of each arm in plain numbers."""
    columns = (
        options.ratings.quality,
        options.ratings.sd,
        options.cost,
        options.late_probability,
        options.explorable,
        choice.utility,
        choice.propensities,
        options.failure_probability,
    )
    return tuple(map(RatedArm, models, *(column.tolist() for column in columns)))
