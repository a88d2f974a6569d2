"""The standard normal distribution function to about three digits, quickly for many numbers."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_Real = TypeVar("_Real", np.float32, np.float64)
_SLOPE, _BEND = 0.7978845608, 0.7978845608 * 0.044715


def signed_normal(z: "NDArray[_Real]") -> "NDArray[_Real]":
    """Return 2·Φ(z) - 1, from -1 to 1, in the precision of `z` (Page, 1977: by a tanh)."""
    bent = z * z
    bent *= _BEND
    bent += _SLOPE
    bent *= z
    np.tanh(bent, out=bent)
    return bent
