"""The standard normal distribution function to about three digits, fast for large arrays."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Real = TypeVar("_Real", np.float32, np.float64)
_SLOPE, _CUBIC = 0.7978845608, 0.7978845608 * 0.044715


def approximate_scaled_erf(z: "NDArray[_Real]") -> "NDArray[_Real]":
    """Return 2·Φ(z) - 1, from -1 to 1, in the precision of `z` (Page, 1977: by a tanh)."""
    result = z * z
    result *= _CUBIC
    result += _SLOPE
    result *= z
    np.tanh(result, out=result)
    return result
