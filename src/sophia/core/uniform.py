"""Uniform random numbers derived from a request id, so that every decision can be reproduced.

Each purpose has its own stream: 0 assigns the policy, 1 decides within it, 5 samples answers for
the judge, 6 chooses the judge, 7 chooses a model's deployment.
"""

_UINT64_MASK = (1 << 64) - 1
_GOLDEN_RATIO = 0x9E3779B97F4A7C15


def derive_uniform(request_id: int, stream: int) -> float:
    """Return a number in [0, 1) for one of sixteen streams of a request (SplitMix64)."""
    state = ((request_id + stream) * _GOLDEN_RATIO) & _UINT64_MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _UINT64_MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _UINT64_MASK
    return ((state ^ (state >> 31)) >> 11) / (1 << 53)


def is_one_in_32(request_id: int) -> bool:
    """Return true for one request in 32 (Fibonacci hashing, cheap enough for every request)."""
    return (request_id * _GOLDEN_RATIO & _UINT64_MASK) >> 59 == 0
