"""The exact Gaussian posterior of one line that all arms share and one deviation per arm."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from msgspec import Struct

from sophia.routing.bandit.policy import Matrix, PolicyContext, Vector

PackedArray = tuple[tuple[int, ...], bytes]

ALL_ROWS = slice(None)
VARIANT_SD = 0.04
"""Standard deviation of a variant's quality (another effort, other providers) from its base's."""


def pack_array(array: Matrix) -> PackedArray:
    """Return the shape and the bytes of an array, for a snapshot."""
    return array.shape, array.tobytes()


def unpack_array(packed: PackedArray) -> Matrix:
    """Return the array that was packed, writable."""
    shape, data = packed
    return np.frombuffer(bytearray(data)).reshape(shape) if data else np.zeros(shape)


def build_design_matrix(context: PolicyContext) -> Vector:
    """Return the terms that a request is rated by: 1 and the task probabilities, (1 + T,)."""
    return np.concatenate([np.ones(1), context.task_probabilities])


class ArmMoments(Struct, frozen=True):
    """Mean and variance of each arm's value for one request.

    Attributes:
        mean: shape (A,), the expected value.
        own_variance: shape (A,), the variance of the deviation when the shared line is known.
        loading: shape (A, S), how far each value moves with the line, of covariance `cov`, (S, S).
    """

    mean: Vector
    own_variance: Vector
    loading: Matrix
    cov: Matrix


class QualityPosterior:
    """y = x·s + x·d_arm + noise, with Gaussian beliefs of s and of every d_arm.

    The beliefs are s ~ N(mean, cov) and d | s ~ N(deviation_offset - coupling'·s, deviation_cov),
    arm by arm. Given the line the arms are independent, so an outcome changes one arm and the line,
    by outer products, and nothing is approximated.

    Attributes:
        mean: shape (S,). cov: shape (S, S).
        deviation_offset: shape (A, S). coupling, deviation_cov: shape (A, S, S).
    """

    __slots__ = ("_deviation_means", "coupling", "cov", "deviation_cov", "deviation_offset", "mean")

    def __init__(self, cov: Matrix) -> None:
        """Begin with a line around 0 of covariance `cov`, shape (S, S), and no arms."""
        terms = len(cov)
        self.mean = np.zeros(terms)
        self.cov = cov
        self.deviation_offset = np.zeros((0, terms))
        self.coupling = np.zeros((0, terms, terms))
        self.deviation_cov = np.zeros((0, terms, terms))
        # Computed when it is needed: the expected deviation of each arm, (A, S).
        self._deviation_means: Matrix | None = None

    @classmethod
    def from_arrays(cls, arrays: Sequence[Matrix]) -> Self:
        """Return the posterior with these `arrays`."""
        posterior = cls(arrays[1])
        posterior.mean, _, *arms = arrays
        posterior.deviation_offset, posterior.coupling, posterior.deviation_cov = arms
        return posterior

    @property
    def arrays(self) -> tuple[Matrix, ...]:
        """The whole state: mean, cov, deviation_offset, coupling, deviation_cov."""
        return self.mean, self.cov, self.deviation_offset, self.coupling, self.deviation_cov

    def add_arm(self, variance: Vector) -> None:
        """Add an arm with deviations of mean 0 and the variances `variance`, (S,)."""
        terms = len(variance)
        self._append(np.zeros(terms), np.zeros((terms, terms)), np.diag(variance))

    def add_arm_from(self, other: "QualityPosterior", row: int, extra_variance: Vector) -> None:
        """Add an arm expected not to depart from the one at `row` of `other`, a less local model.

        It is as uncertain as that one is now, and by `extra_variance`, (S,), more.
        """
        spread = other.deviation_cov[row] + np.diag(extra_variance)
        self._append(np.zeros(len(extra_variance)), other.coupling[row], spread)

    def add_variant(self, row: int) -> None:
        """Add an arm like the one at `row`, but more uncertain."""
        extra_variance = np.full(len(self.mean), VARIANT_SD * VARIANT_SD / 2)
        spread = self.deviation_cov[row] + np.diag(extra_variance)
        self._append(self.deviation_offset[row], self.coupling[row], spread)

    def predict_means(self, design: Vector, rows: slice) -> Vector:
        """Return the expected values alone of the arms in `rows`, (A,), at less cost."""
        if self._deviation_means is None:
            self._deviation_means = self.deviation_offset - self.mean @ self.coupling
        return self._deviation_means[rows] @ design + float(design @ self.mean)

    def predict(self, design: Vector, rows: slice = ALL_ROWS) -> ArmMoments:
        """Return the moments of the arms in `rows` at `design`, (S,)."""
        coupling, spread = self.coupling[rows], self.deviation_cov[rows]
        arms, terms, _ = coupling.shape
        loading = design - (coupling.reshape(arms * terms, terms) @ design).reshape(arms, terms)
        gain = (spread.reshape(arms * terms, terms) @ design).reshape(arms, terms)
        mean = self.deviation_offset[rows] @ design + loading @ self.mean
        return ArmMoments(mean, gain @ design, loading, self.cov)

    def predict_arm(self, row: int, design: Vector) -> tuple[float, float]:
        """Return the mean and the variance of one arm's value, the shared line's part included."""
        loading = design - self.coupling[row] @ design
        mean = float(self.deviation_offset[row] @ design + loading @ self.mean)
        own = float(design @ self.deviation_cov[row] @ design)
        return mean, own + float(loading @ self.cov @ loading)

    def update(self, row: int, design: Vector, value: float, noise_variance: float) -> None:
        """Update by one outcome of the arm at `row`, observed with `noise_variance`."""
        self._deviation_means = None
        arm_gain = self.deviation_cov[row] @ design
        own_variance = noise_variance + float(design @ arm_gain)
        loading = design - self.coupling[row] @ design
        line_gain = self.cov @ loading
        total = own_variance + float(loading @ line_gain)
        own = float(self.deviation_offset[row] @ design)
        surprise = value - own - float(loading @ self.mean)
        self.mean += line_gain * (surprise / total)
        self.cov -= np.outer(line_gain, line_gain / total)
        gain = arm_gain / own_variance
        self.deviation_offset[row] += gain * (value - own)
        self.coupling[row] += np.outer(loading, gain)
        self.deviation_cov[row] -= np.outer(arm_gain, gain)

    def has_outcomes(self, row: int) -> bool:
        """Return whether there was an outcome of the arm at `row`."""
        return bool(self.coupling[row].any())

    def reset_arm(self, row: int, variance: Vector) -> None:
        """Replace the variances, (S,), of an arm without outcomes."""
        self.deviation_cov[row] = np.diag(variance)

    def inflate_variance(self, row: int, variance: Vector) -> None:
        """Add `variance`, (S,), to an arm's deviation, so that its past counts less."""
        self.deviation_cov[row] += np.diag(variance)

    def deviation_moments(self, row: int) -> tuple[Vector, Vector]:
        """Return the mean and the variance of each term of one arm's deviation, (S,) each."""
        coupling = self.coupling[row]
        mean = self.deviation_offset[row] - self.mean @ coupling
        shared = ((self.cov @ coupling) * coupling).sum(axis=0)
        return mean, np.diag(self.deviation_cov[row]) + shared

    def _append(self, offset: Vector, coupling: Matrix, spread: Matrix) -> None:
        self._deviation_means = None
        self.deviation_offset = np.concatenate([self.deviation_offset, offset[None]])
        self.coupling = np.concatenate([self.coupling, coupling[None]])
        self.deviation_cov = np.concatenate([self.deviation_cov, spread[None]])
