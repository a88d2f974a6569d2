"""Priors read as one table: what arms and tasks have in common is kept, single luck is not."""

from collections.abc import Mapping

import numpy as np

from sophia.routing.policies.policy import Prior, Vector

LEAST_SIDE = 3


def pooled(priors: Mapping[str, Prior]) -> dict[str, Prior]:
    """Return the priors with their means drawn to what the whole table of means suggests.

    For tables of scores as they were measured, whose `sd` is their error: the highest of many such
    scores is too high by its luck, and who trusts it takes the lucky arm. Means of arms and of
    tasks stay. What is left is shrunk singular value by singular value, by the amounts that are
    best against white noise of that sd (Gavish and Donoho, 2017). Tables of fewer than three arms
    or tasks say too little and are returned as they are.
    """
    arms = list(priors)
    if len(arms) < LEAST_SIDE or len(priors[arms[0]].mean) < LEAST_SIDE:
        return dict(priors)
    means = np.stack([priors[arm].mean for arm in arms])
    error = float(np.sqrt(np.mean([priors[arm].sd ** 2 for arm in arms])))
    common = means.mean(axis=1, keepdims=True) + means.mean(axis=0) - means.mean()
    left, values, right = np.linalg.svd(means - common, full_matrices=False)
    kept = common + (left * _shrunk(values, error, means.shape)) @ right
    return {
        arm: Prior(np.clip(row, 0.0, 1.0), priors[arm].sd)
        for arm, row in zip(arms, kept, strict=True)
    }


def _shrunk(values: Vector, error: float, shape: tuple[int, ...]) -> Vector:
    """Return singular values without what noise of sd `error` adds to them."""
    if error <= 0.0:
        return values
    unit = error * np.sqrt(max(shape))
    ratio = min(shape) / max(shape)
    scaled = np.maximum(values / unit, 1e-12)
    square = np.maximum((scaled**2 - ratio - 1.0) ** 2 - 4.0 * ratio, 0.0)
    shrunk: Vector = np.where(scaled > 1.0 + np.sqrt(ratio), np.sqrt(square) / scaled * unit, 0.0)
    return shrunk
