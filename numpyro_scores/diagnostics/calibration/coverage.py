# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether credible intervals hold the truth as often as they say."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from numpyro_scores._validation import check_key
from numpyro_scores.diagnostics.calibration.ranks import ranks_among, uniformity

LEVELS = (0.5, 0.8, 0.9, 0.95)


class Coverage(NamedTuple):
    """
    What :func:`coverage` returns, NumPy arrays.

    - **statistic**, **p_value** - of the hypothesis that ranks are uniform, shape `event_shape`: a
      test of each quantity by itself.
    - **ranks** - how many draws lie below the truth, shape `(num_simulations, *event_shape)`.
    - **levels** - of the central credible intervals, shape `(num_levels,)`: those asked for,
      rounded to what so many draws can tell.
    - **inside** - whether an interval holds the truth, `(num_levels, num_simulations,
      *event_shape)`.
    - **coverage** - share of the intervals that hold the truth, `(num_levels, *event_shape)`.
    - **standard_error** - of the coverage if it is as it should be, `(num_levels,)`.
    - **ecdf** - empirical distribution function of the ranks, `(num_draws + 1, *event_shape)`.
    - **lower**, **upper** - bands that hold all of it with probability 0.95, `(num_draws + 1,)`.
    """

    statistic: np.ndarray
    p_value: np.ndarray
    ranks: np.ndarray
    levels: np.ndarray
    inside: np.ndarray
    coverage: np.ndarray
    standard_error: np.ndarray
    ecdf: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def coverage(draws: Any, truth: Any, *, key: Array, levels: Sequence[float] = LEVELS) -> Coverage:
    """
    How often central credible intervals hold the truth, and whether the ranks of the truth among
    posterior draws are uniform, as they are if the truth was drawn from the prior and the draws are
    right (Talts et al. 2018), with simultaneous bands (Säilynoja, Bürkner & Vehtari 2022). Draws
    must be independent: thin a chain, or its ranks pile up at both ends.

    :param draws: posterior draws of each simulation, shape `(num_simulations, num_draws,
        *event_shape)`.
    :param truth: what the data of each simulation were made from, `(num_simulations,
        *event_shape)`.
    :param key: key of ties.
    :param levels: of the intervals, between 0 and 1.
    :raises ValueError: if the shapes do not fit, there are fewer than 10 simulations, or a value is
        not finite.
    """
    check_key("coverage", key)
    draws, truth = checked(draws, truth)
    asked = np.asarray(levels, float)
    if asked.ndim != 1 or not np.all((asked > 0) & (asked < 1)):
        raise ValueError(f"levels must be numbers between 0 and 1, got {levels}.")
    ranks = ranks_among(draws, truth, key)
    num_ranks = draws.shape[1] + 1
    test = uniformity(ranks, num_ranks)
    # A central interval is that of the middle ranks, as many as the level comes closest to.
    outside = np.clip(np.round((1 - asked) / 2 * num_ranks), 0, (num_ranks - 1) // 2).astype(int)
    low = outside.reshape(-1, *(1,) * ranks.ndim)
    inside = (ranks >= low) & (ranks < num_ranks - low)
    exact = 1 - 2 * outside / num_ranks
    return Coverage(
        statistic=test.statistic,
        p_value=test.p_value,
        ranks=ranks,
        levels=exact,
        inside=inside,
        coverage=np.mean(inside, axis=1),
        standard_error=np.sqrt(exact * (1 - exact) / len(ranks)),
        ecdf=test.ecdf,
        lower=test.lower,
        upper=test.upper,
    )


def checked(draws: Any, truth: Any) -> tuple[np.ndarray, np.ndarray]:
    """Draws and truths as NumPy arrays that fit each other."""
    draws, truth = np.asarray(jax.device_get(draws)), np.asarray(jax.device_get(truth))
    if draws.ndim < 2 or truth.ndim < 1 or (len(draws), *draws.shape[2:]) != truth.shape:
        raise ValueError(
            "draws must have shape (num_simulations, num_draws, *event_shape) and truth "
            f"(num_simulations, *event_shape), got {draws.shape} and {truth.shape}."
        )
    if len(truth) < 10 or draws.shape[1] < 1:
        raise ValueError(
            f"At least 10 simulations and 1 draw of each are needed, got {draws.shape[:2]}: "
            "simulate more."
        )
    for name, values in (("draws", draws), ("truth", truth)):
        finite = np.isfinite(values).reshape(len(truth), -1).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{name} must be finite, but those of {np.sum(~finite)} of {len(truth)} "
                f"simulations are not, the first at index {np.argmin(finite)}: a sampler that "
                "fails there is not calibrated, so mend it rather than leave them out."
            )
    return draws, truth
