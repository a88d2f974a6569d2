"""Decision trees as flat arrays, walked for a single row."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.policies.policy import Vector


class Trees(Struct, frozen=True, array_like=True):
    """Trees one after the other; a leaf is its own child on both sides.

    Attributes:
        roots: shape (T,), where each tree begins.
        feature, threshold, left, right: shape (nodes,); a row goes left when its feature is not
            above the threshold.
        value: shape (nodes, outputs), what a leaf says.
        depth: the most steps from a root to a leaf.
    """

    roots: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    depth: int

    def leaves(self, row: Vector) -> NDArray[np.int32]:
        """Return the leaf that a row reaches in each tree, (T,)."""
        node = self.roots
        for _ in range(self.depth):
            above = row[self.feature[node]] > self.threshold[node]
            node = np.where(above, self.right[node], self.left[node])
        return node

    def say(self, row: Vector) -> NDArray[np.float64]:
        """Return what each tree says of a row, (T, outputs)."""
        return self.value[self.leaves(row)]

    def pack(self) -> "PackedTrees":
        """Return the arrays as bytes."""
        return PackedTrees(
            self.roots.tobytes(),
            self.feature.tobytes(),
            self.threshold.tobytes(),
            self.left.tobytes(),
            self.right.tobytes(),
            self.value.tobytes(),
            self.value.shape[1],
            self.depth,
        )


class PackedTrees(Struct, frozen=True, array_like=True):
    """Trees as bytes, for a snapshot."""

    roots: bytes
    feature: bytes
    threshold: bytes
    left: bytes
    right: bytes
    value: bytes
    outputs: int
    depth: int

    def unpack(self) -> Trees:
        """Return the trees, bit for bit."""
        return Trees(
            np.frombuffer(self.roots, np.int32),
            np.frombuffer(self.feature, np.int32),
            np.frombuffer(self.threshold),
            np.frombuffer(self.left, np.int32),
            np.frombuffer(self.right, np.int32),
            np.frombuffer(self.value).reshape(-1, self.outputs),
            self.depth,
        )
