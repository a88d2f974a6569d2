"""The exact Gaussian posterior of one line that all arms share and one deviation per arm."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.policies.policy import Vector

Matrix = NDArray[np.float64]
Frozen = tuple[tuple[int, ...], bytes]

EVERY = slice(None)


def freeze(array: Matrix) -> Frozen:
    """Return the shape and the bytes of an array, for a snapshot."""
    return array.shape, array.tobytes()


def thaw(frozen: Frozen) -> Matrix:
    """Return the array that was frozen, writable."""
    shape, data = frozen
    return np.frombuffer(bytearray(data)).reshape(shape) if data else np.zeros(shape)


class Means(Struct, frozen=True):
    """What a request may expect of every arm: the mean and the parts of its variance.

    Attributes:
        mean: shape (A,), the expected value.
        own: shape (A,), the variance of the deviation when the shared line is known.
        loading: shape (A, S), how far each arm's value moves with the shared line.
    """

    mean: Vector
    own: Vector
    loading: Matrix


class Joint:
    """y = phi·s + psi·d_arm + noise, with Gaussian beliefs of s and of every d_arm.

    The beliefs are kept as s ~ N(mean, cov) and d | s ~ N(offset - tie'·s, spread), arm by arm:
    given the line the arms are independent, so an outcome changes one arm and the line, by outer
    products, and nothing is approximated.

    Attributes:
        mean: shape (S,). cov: shape (S, S).
        offset: shape (A, P). tie: shape (A, S, P). spread: shape (A, P, P).
        lines: shape (A, P), each arm's expected line; None until somebody asks for it.
    """

    __slots__ = ("cov", "lines", "mean", "offset", "spread", "tie")

    def __init__(self, shared: Vector, own: int) -> None:
        """Begin with the variances `shared`, shape (S,), and no arms of `own` terms each."""
        terms = len(shared)
        self.mean = np.zeros(terms)
        self.cov = np.diag(shared)
        self.offset = np.zeros((0, own))
        self.tie = np.zeros((0, terms, own))
        self.spread = np.zeros((0, own, own))
        self.lines: Matrix | None = None

    @classmethod
    def of(cls, arrays: Sequence[Matrix]) -> Self:
        """Return the posterior that `arrays` gave."""
        joint = cls.__new__(cls)
        joint.mean, joint.cov, joint.offset, joint.tie, joint.spread = arrays
        joint.lines = None
        return joint

    @property
    def arrays(self) -> tuple[Matrix, ...]:
        """The whole state: mean, cov, offset, tie, spread."""
        return self.mean, self.cov, self.offset, self.tie, self.spread

    def add(self, variance: Vector) -> None:
        """Add an arm whose deviation is expected to be nought, give or take `variance`, (P,)."""
        terms = len(self.mean)
        self.lines = None
        self.offset = np.concatenate([self.offset, np.zeros((1, len(variance)))])
        self.tie = np.concatenate([self.tie, np.zeros((1, terms, len(variance)))])
        self.spread = np.concatenate([self.spread, np.diag(variance)[None]])

    def fork(self, terms: int, doubt: Vector) -> "Joint":
        """Return a posterior of departures from this one, over the first `terms` terms of the line.

        They are expected to be nought, as uncertain as this is now, and by `doubt`, (terms,), more.
        It has no arms yet.
        """
        forked = Joint(doubt, terms)
        forked.cov += self.cov[:terms, :terms]
        return forked

    def adopt(self, other: "Joint", row: int, doubt: Vector) -> None:
        """Add the arm at `row` of the posterior that this was forked from, (P,) of doubt added."""
        terms = len(doubt)
        self.lines = None
        self.offset = np.concatenate([self.offset, np.zeros((1, terms))])
        self.tie = np.concatenate([self.tie, other.tie[row, :terms, :terms][None]])
        spread = other.spread[row, :terms, :terms] + np.diag(doubt)
        self.spread = np.concatenate([self.spread, spread[None]])

    def split(self, row: int, doubt: Vector) -> None:
        """Add an arm that is believed to be like the one at `row`, give or take `doubt`, (P,)."""
        self.lines = None
        self.offset = np.concatenate([self.offset, self.offset[row][None]])
        self.tie = np.concatenate([self.tie, self.tie[row][None]])
        spread = self.spread[row] + np.diag(doubt)
        self.spread = np.concatenate([self.spread, spread[None]])

    def remove(self, row: int) -> None:
        """Forget the arm at `row`; those after it move up by one."""
        self.lines = None
        self.offset = np.delete(self.offset, row, axis=0)
        self.tie = np.delete(self.tie, row, axis=0)
        self.spread = np.delete(self.spread, row, axis=0)

    def means(self, phi: Vector, psi: Vector, rows: slice = EVERY) -> Vector:
        """Return the expected values alone of the arms in `rows`, (A,), at less cost."""
        if self.lines is None:
            self.lines = self.offset - self.mean @ self.tie
        return self.lines[rows] @ psi + float(phi @ self.mean)

    def expect(self, phi: Vector, psi: Vector, rows: slice = EVERY) -> Means:
        """Return what to expect of the arms in `rows` at `phi`, (S,), and `psi`, (P,)."""
        tie, spread = self.tie[rows], self.spread[rows]
        arms, terms, own = tie.shape
        loading = phi - (tie.reshape(arms * terms, own) @ psi).reshape(arms, terms)
        pulled = (spread.reshape(arms * own, own) @ psi).reshape(arms, own)
        return Means(self.offset[rows] @ psi + loading @ self.mean, pulled @ psi, loading)

    def at(self, row: int, phi: Vector, psi: Vector) -> tuple[float, float]:
        """Return the mean and the variance of one arm's value, the shared line's part included."""
        loading = phi - self.tie[row] @ psi
        mean = float(self.offset[row] @ psi + loading @ self.mean)
        own = float(psi @ self.spread[row] @ psi)
        return mean, own + float(loading @ self.cov @ loading)

    def learn(self, row: int, phi: Vector, psi: Vector, value: float, noise: float) -> None:
        """Take in one outcome of the arm at `row`, observed with the variance `noise`."""
        self.lines = None
        pulled = self.spread[row] @ psi
        known = noise + float(psi @ pulled)
        loading = phi - self.tie[row] @ psi
        moved = self.cov @ loading
        total = known + float(loading @ moved)
        own = float(self.offset[row] @ psi)
        surprise = value - own - float(loading @ self.mean)
        self.mean += moved * (surprise / total)
        self.cov -= np.outer(moved, moved / total)
        gain = pulled / known
        self.offset[row] += gain * (value - own)
        self.tie[row] += np.outer(loading, gain)
        self.spread[row] -= np.outer(pulled, gain)

    def is_taught(self, row: int) -> bool:
        """Say whether an outcome of the arm at `row` was taken in."""
        return bool(self.tie[row].any())

    def doubt(self, row: int, variance: Vector) -> None:
        """Begin anew with an arm that was not taught, its deviation doubted by `variance`, (P,)."""
        self.spread[row] = np.diag(variance)

    def widen(self, row: int, variance: Vector) -> None:
        """Doubt an arm: its deviation may have moved by `variance`, (P,), whichever way."""
        self.spread[row] += np.diag(variance)

    def deviation(self, row: int) -> tuple[Vector, Vector]:
        """Return the mean and the variance of each term of one arm's deviation, (P,) each."""
        tie = self.tie[row]
        mean = self.offset[row] - self.mean @ tie
        shared = ((self.cov @ tie) * tie).sum(axis=0)
        return mean, np.diag(self.spread[row]) + shared
