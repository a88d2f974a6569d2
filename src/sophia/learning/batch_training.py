"""Training of the policies that need scikit-learn; what they learn is handed over as arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sophia.routing.policies.boosted import Boosts
from sophia.routing.policies.lessons import Examples
from sophia.routing.policies.logistic import Lines
from sophia.routing.policies.policy import Vector
from sophia.routing.policies.random_forest import Forest
from sophia.routing.policies.trees import Trees

Matrix = NDArray[np.float64]

PENALTY, PATIENCE = 300.0, 12
TREES, LEAF = 100, 5
ROUNDS, LEAVES, RATE, BOOST_LEAF = 40, 8, 0.08, 30


def train_logistic(examples: Examples, penalty: float = PENALTY) -> Lines:
    """Return a penalised logistic line per arm, by Newton's method."""
    centre, spread = examples.designs.mean(axis=0), examples.designs.std(axis=0)
    spread = np.where(spread > 1e-9, spread, np.inf)
    standard = np.clip((examples.designs - centre) / spread, -4.0, 4.0)
    weights = np.zeros((len(examples.arms), standard.shape[1]))
    bias = np.zeros(len(examples.arms))
    for arm in range(len(examples.arms)):
        of_arm = examples.arm == arm
        rows = examples.row[of_arm]
        weights[arm], bias[arm] = _newton(
            standard[rows], examples.quality[of_arm], examples.weight[of_arm], penalty
        )
    return Lines(examples.arms, weights, bias, centre, spread)


def train_boosted(examples: Examples, rounds: int = ROUNDS) -> Boosts:
    """Return boosted trees per arm; an arm with few outcomes keeps to its mean."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    base, owner, grown = np.zeros(len(examples.arms)), [], []
    for arm in range(len(examples.arms)):
        of_arm = examples.arm == arm
        design, quality = examples.designs[examples.row[of_arm]], examples.quality[of_arm]
        weight = examples.weight[of_arm]
        base[arm] = float(np.average(quality, weights=weight))
        if len(quality) < 2 * BOOST_LEAF:
            continue
        model = HistGradientBoostingRegressor(
            max_iter=rounds,
            max_leaf_nodes=LEAVES,
            learning_rate=RATE,
            min_samples_leaf=BOOST_LEAF,
            early_stopping=False,
            random_state=0,
        ).fit(design, quality, weight)
        base[arm] = float(np.ravel(model._baseline_prediction)[0])  # noqa: SLF001 # no public way
        for (stage,) in model._predictors:  # noqa: SLF001 # the same
            grown.append(_of_boost(stage.nodes))
            owner.append(float(arm))
    return Boosts(examples.arms, base, np.array(owner), _join(grown))


def train_forest(examples: Examples, seed: int = 0, trees: int = TREES) -> Forest:
    """Return a forest that names the arm of an outcome, each outcome counted by its quality."""
    from sklearn.ensemble import RandomForestClassifier

    weight = examples.weight * np.maximum(examples.quality, 1e-6)
    model = RandomForestClassifier(trees, min_samples_leaf=LEAF, random_state=seed).fit(
        examples.designs[examples.row], examples.arm, weight
    )
    share = np.bincount(examples.arm, examples.weight, len(examples.arms))
    # The classifier sorts its labels, so its columns must be named anew.
    arms = tuple(examples.arms[label] for label in model.classes_)
    return Forest(
        arms,
        share[model.classes_] / share.sum(),
        float(np.average(examples.quality, weights=examples.weight)),
        _join([_of_forest(one.tree_) for one in model.estimators_]),
    )


_Tree = tuple[NDArray[np.int32], Vector, NDArray[np.int32], NDArray[np.int32], Matrix]


def _of_forest(tree: object) -> _Tree:
    leaf = tree.children_left < 0  # type: ignore[attr-defined] # sklearn has no types
    own = np.arange(len(leaf))
    value = tree.value[:, 0, :]  # type: ignore[attr-defined] # sklearn has no types
    return (
        np.where(leaf, 0, tree.feature).astype(np.int32),  # type: ignore[attr-defined] # same
        np.where(leaf, np.inf, tree.threshold),  # type: ignore[attr-defined] # same
        np.where(leaf, own, tree.children_left).astype(np.int32),  # type: ignore[attr-defined] # same
        np.where(leaf, own, tree.children_right).astype(np.int32),  # type: ignore[attr-defined] # same
        value / value.sum(axis=1, keepdims=True),
    )


def _of_boost(nodes: NDArray[np.void]) -> _Tree:
    leaf = nodes["is_leaf"].astype(bool)
    own = np.arange(len(leaf))
    return (
        np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32),
        np.where(leaf, np.inf, nodes["num_threshold"]),
        np.where(leaf, own, nodes["left"]).astype(np.int32),
        np.where(leaf, own, nodes["right"]).astype(np.int32),
        nodes["value"][:, None].astype(np.float64),
    )


def _join(trees: Sequence[_Tree]) -> Trees:
    if not trees:
        nothing = np.zeros(0, np.int32)
        return Trees(nothing, nothing, np.zeros(0), nothing, nothing, np.zeros((0, 1)), 0)
    sizes = np.array([len(tree[0]) for tree in trees])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    shift = np.repeat(roots, sizes)
    feature, threshold, left, right, value = (
        np.concatenate([tree[part] for tree in trees]) for part in range(5)
    )
    joined = (left + shift).astype(np.int32), (right + shift).astype(np.int32)
    return Trees(roots, feature, threshold, *joined, value, max(map(_depth, trees)))


def _depth(tree: _Tree) -> int:
    level, depth = np.zeros(1, np.int32), 0
    while True:
        after = np.unique(np.concatenate([tree[2][level], tree[3][level]]))
        if len(after) == len(level) and (after == level).all():
            return depth
        level, depth = after, depth + 1


def _newton(
    design: Matrix, quality: Vector, weight: Vector, strength: float
) -> tuple[Vector, float]:
    """Return weights and bias that make `quality` likeliest under a normal prior on the weights."""
    whole = np.hstack([design, np.ones((len(design), 1))])
    penalty = np.full(whole.shape[1], strength)
    penalty[-1] = 1.0
    found: Vector = np.zeros(whole.shape[1])
    for _ in range(PATIENCE):
        chance = 1.0 / (1.0 + np.exp(-np.clip(whole @ found, -30.0, 30.0)))
        slope = whole.T @ (weight * (quality - chance)) - penalty * found
        scaled = whole * (weight * np.maximum(chance * (1.0 - chance), 1e-4))[:, None]
        step = np.linalg.solve(whole.T @ scaled + np.diag(penalty), slope)
        found = found + step
        if float(np.abs(step).max()) < 1e-6:
            break
    return found[:-1], float(found[-1])
