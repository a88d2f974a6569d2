"""Low-rank denoising of a table of priors by shrinkage of its singular values."""

from collections.abc import Mapping

import numpy as np

from sophia.routing.bandit.policy import Prior, Vector

MIN_TABLE_SIDE = 3


def denoise_priors(priors: Mapping[str, Prior]) -> dict[str, Prior]:
    """Return the priors with means denoised jointly over arms and tasks.

    For tables of raw scores with errors `sd`, where the highest scores are biased upwards. Means of
    arms and of tasks are unchanged; the singular values of the interaction are shrunk optimally
    for white noise of that sd (Gavish and Donoho, 2017). Tables with fewer than three arms or tasks
    are returned unchanged.
    """
    arms = list(priors)
    if len(arms) < MIN_TABLE_SIDE or len(priors[arms[0]].mean) < MIN_TABLE_SIDE:
        return dict(priors)
    means = np.stack([priors[arm].mean for arm in arms])
    error = float(np.sqrt(np.mean([priors[arm].sd ** 2 for arm in arms])))
    common = means.mean(axis=1, keepdims=True) + means.mean(axis=0) - means.mean()
    left, values, right = np.linalg.svd(means - common, full_matrices=False)
    kept = common + (left * _shrink(values, error, means.shape)) @ right
    return {
        arm: Prior(np.clip(row, 0.0, 1.0), priors[arm].sd)
        for arm, row in zip(arms, kept, strict=True)
    }


def _shrink(values: Vector, error: float, shape: tuple[int, ...]) -> Vector:
    """Return singular values shrunk for noise of sd `error`."""
    if error <= 0.0:
        return values
    unit = error * np.sqrt(max(shape))
    ratio = min(shape) / max(shape)
    scaled = np.maximum(values / unit, 1e-12)
    square = np.maximum((scaled**2 - ratio - 1.0) ** 2 - 4.0 * ratio, 0.0)
    shrunk: Vector = np.where(scaled > 1.0 + np.sqrt(ratio), np.sqrt(square) / scaled * unit, 0.0)
    return shrunk
