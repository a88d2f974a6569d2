"""A context in the ledger is read back bit by bit, from rows of older versions, too."""

import numpy as np
import pytest

from sophia.routing.bandit.policy import PolicyContext
from sophia.routing.explain.trace import pack_context, round_context, unpack_context

CONTEXT = round_context(PolicyContext(np.array([0.1, 0.2, 0.7]), 0.3, "key"))


def test_a_context_is_read_back_bit_by_bit() -> None:
    context = unpack_context(pack_context(CONTEXT), "key")
    assert context.task_probabilities.tobytes() == CONTEXT.task_probabilities.tobytes()
    assert (context.novelty, context.tenant) == (CONTEXT.novelty, "key")


@pytest.mark.parametrize(("embedding", "features"), [(0, 0), (4, 0), (0, 2), (4, 2)])
def test_vectors_of_older_rows_are_skipped(embedding: int, features: int) -> None:
    tasks = CONTEXT.task_probabilities
    numbers = [len(tasks), embedding, features, *tasks, *[0.5] * (embedding + features)]
    packed = np.array([*numbers, CONTEXT.novelty], "<f4").tobytes()
    assert pack_context(unpack_context(packed)) == pack_context(CONTEXT)


@pytest.mark.parametrize("packed", [b"", b"1234", np.ones(9, "<f4").tobytes()])
def test_other_bytes_are_refused(packed: bytes) -> None:
    with pytest.raises(ValueError, match="context"):
        unpack_context(packed)
