# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Down to which noise level the score of a learned denoiser is right."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.typing import ArrayLike

from numpyro_scores._callables import Denoiser, as_pytree, check_field
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.denoisers.score import score_by_denoiser
from numpyro_scores.densities.conservativeness import jacobian_asymmetry
from numpyro_scores.diagnostics._samples import as_samples

# Points a dimension from which on the inverse of a covariance is taken from them.
POINTS_PER_DIMENSION = 10
BLOCK_SIZE = 256


class ScoreByLevel(NamedTuple):
    """
    What :func:`score_by_level` returns; a row of each array is a noise level.

    - **sigma** - the noise levels, from large to small.
    - **explained** - how much of the score of the data the learned one explains, over what that of
      the best Gaussian explains: 1 or more for a right score, 0 for none at all, negative where it
      does harm.
    - **explained_error** - its standard error.
    - **slope** - the factor that the score is best multiplied with: 1 for a right score, less than
      1 for one that is too large.
    - **slope_error** - its standard error.
    - **asymmetry** - the antisymmetric part of the Jacobian over all of it, from 0, a gradient
      field, to 1.
    - **right** - whether `explained` and `slope` say so.
    - **smallest_right** - the smallest level that is right with all above it: a `sigma_min` to
      take. NaN if the largest is not.
    """

    sigma: np.ndarray
    explained: np.ndarray
    explained_error: np.ndarray
    slope: np.ndarray
    slope_error: np.ndarray
    asymmetry: np.ndarray
    right: np.ndarray
    smallest_right: float

    def __str__(self) -> str:
        rows = ["    sigma  explained         slope             asymmetry  right"]
        for i, sigma in enumerate(self.sigma):
            rows.append(
                f"{sigma:9.3g}  {self.explained[i]:6.2f} +- {self.explained_error[i]:<5.2f}  "
                f"{self.slope[i]:6.2f} +- {self.slope_error[i]:<5.2f}  {self.asymmetry[i]:9.3f}  "
                f"{'yes' if self.right[i] else 'NO'}"
            )
        nowhere = np.isnan(self.smallest_right)
        found = "nowhere." if nowhere else f"down to sigma = {self.smallest_right:.3g}."
        rows.append(
            "The score is right " + ("nowhere." if np.isnan(self.smallest_right) else found)
        )
        return "\n".join(rows)


def score_by_level(
    denoiser: Denoiser,
    x: ArrayLike,
    sigma: ArrayLike | None = None,
    *,
    key: Array,
    num_noises: int = 8,
    tolerance: float = 0.1,
) -> ScoreByLevel:
    r"""
    Measure the score :math:`s = (D(y, \sigma) - y) / \sigma^2` of a denoiser against the true one
    of noisy data, :math:`s^*`, which need not be known: with :math:`y = x + \sigma z`,

    .. math::
        G = E|s^*|^2 - E|s - s^*|^2 = \frac{d \sigma^2 - E|D(y, \sigma) - x|^2}{\sigma^4}
        = -E \left[ |s(y)|^2 + \tfrac 2\sigma z \cdot s(y) \right]

    (Vincent 2011; the noise comes in pairs :math:`\pm z`, so that the variance stays as
    :math:`\sigma \to 0`). `explained` is `G` over that of the best Gaussian score,
    :math:`\operatorname{tr} (C + \sigma^2 I)^{-1}` with the covariance `C` of the data, the least
    that :math:`E|s^*|^2` can be (Cramer and Rao); so it is 1 for the right score of a Gaussian,
    more for that of other data, 0 for a denoiser that returns its input, and :math:`1 -
    \epsilon^2` for the score of a Gaussian with a relative error of :math:`\epsilon`. `slope` is
    :math:`E[s \cdot s^*] / E|s|^2 = (G + E|s|^2) / 2 E|s|^2`, 1 for a right score of any data.

    Both are necessary, and not sufficient: data of more structure than a Gaussian have a score of
    which a network may miss a part and still explain more than the Gaussian does. A level is called
    right if `explained` is above `1 - tolerance` and `slope` within `tolerance` of 1, to two
    standard errors, which must not themselves be larger than the tolerance.

    With fewer than ten points a dimension, `C` is taken as diagonal, a weaker bound.

    :param denoiser: `denoiser(x, sigma) -> x.shape` on one unbatched point, or a
        :class:`~numpyro_scores.DiffusionPrior`.
    :param x: points that are **held out** from training, shape `(n, *event_shape)`; a few hundred.
    :param sigma: noise levels, in the units of the data; of a prior, by default, twelve from its
        process.
    :param key: key of the noise.
    :param num_noises: pairs of noise for each point; one will do in hundreds of dimensions. The
        cost of a level is `2 * num_noises * n` evaluations of the denoiser and some derivatives.
    :param tolerance: see above.
    :raises ValueError: if levels are missing or not positive, points are too few or not finite, or
        the denoiser is of other points.
    """
    check_count("num_noises", num_noises)
    key = check_key("score_by_level", key)
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be in (0, 1), got {tolerance!r}.")
    x = as_samples("x", x)
    levels = _levels(denoiser, sigma)
    function: Any = as_pytree("denoiser", getattr(_prior(denoiser), "denoiser", denoiser))
    check_field("The denoiser D(x, sigma)", function, x[0], jnp.asarray(levels[0], x.dtype))

    @jax.jit
    def of_level(function: Any, sigma: Array, key: Array) -> tuple[Array, Array, Array]:
        key_noise, key_points, key_probes = random.split(key, 3)

        def score(y: Array) -> Array:
            return score_by_denoiser(function, y, sigma)

        gains, sizes = _gains(score, x, sigma, key_noise, num_noises)
        some = x[: min(len(x), BLOCK_SIZE)]
        noisy = some + sigma * random.normal(key_points, some.shape, x.dtype)
        return gains, sizes, jacobian_asymmetry(score, noisy, key=key_probes)

    keys = random.split(key, len(levels))
    measured = [
        of_level(function, jnp.asarray(sigma, x.dtype), key)
        for sigma, key in zip(levels, keys, strict=True)
    ]
    gains, sizes, asymmetry = (np.asarray(part, float) for part in zip(*measured, strict=True))
    return _summary(levels, gains, sizes, asymmetry, _least_information(x, levels), tolerance)


def _prior(denoiser: Any) -> Any:
    """The argument, if it is a prior."""
    return denoiser if hasattr(denoiser, "process") and hasattr(denoiser, "log_prob") else None


def _levels(denoiser: Any, sigma: Any) -> np.ndarray:
    prior = _prior(denoiser)
    if sigma is None and prior is None:
        raise ValueError(
            "sigma must be given: the noise levels to look at, such as "
            "jnp.geomspace(sigma_max, sigma_min, 12). Only of a DiffusionPrior they are known."
        )
    if sigma is None:
        sigma = np.geomspace(float(prior.process.sigma_max), float(prior.process.sigma_min), 12)
    levels: Any = np.sort(np.atleast_1d(np.asarray(sigma, float)))[::-1]
    if levels.ndim != 1 or not len(levels) or not np.all((levels > 0) & np.isfinite(levels)):
        raise ValueError(f"sigma must be finite positive noise levels, got {sigma!r}.")
    return levels


def _gains(score: Any, x: Array, sigma: Array, key: Array, num_noises: int) -> tuple[Array, Array]:
    """Of each point, means over its noise: :math:`-|s|^2 - 2 z . s / sigma` and :math:`|s|^2`."""

    def of_point(args: tuple[Array, Array]) -> tuple[Array, Array]:
        x, key = args

        def of_noise(z: Array) -> tuple[Array, Array]:
            above, below = score(x + sigma * z), score(x - sigma * z)
            size = (jnp.sum(above**2) + jnp.sum(below**2)) / 2
            return -size - jnp.sum(z * (above - below)) / sigma, size

        gains, sizes = jax.vmap(of_noise)(random.normal(key, (num_noises, *x.shape), x.dtype))
        return jnp.mean(gains), jnp.mean(sizes)

    return jax.lax.map(of_point, (x, random.split(key, len(x))), batch_size=BLOCK_SIZE)


def _least_information(x: Array, levels: np.ndarray) -> np.ndarray:
    """The trace of the inverse covariance of the noisy data, at each level."""
    points = np.asarray(x, float).reshape(len(x), -1)
    num_points, dim = points.shape
    if num_points < POINTS_PER_DIMENSION * dim:
        variances = points.var(axis=0, ddof=1)
    else:
        variances = np.maximum(np.linalg.eigvalsh(np.atleast_2d(np.cov(points.T))), 0)
    return np.sum(1 / (variances + levels[:, None] ** 2), axis=1)


def _summary(
    levels: np.ndarray,
    gains: np.ndarray,
    sizes: np.ndarray,
    asymmetry: np.ndarray,
    least: np.ndarray,
    tolerance: float,
) -> ScoreByLevel:
    gain, size = gains.mean(axis=1), sizes.mean(axis=1)
    root = np.sqrt(gains.shape[1])
    explained = gain / least
    explained_error = gains.std(axis=1, ddof=1) / root / least
    # A score of zero has no slope: it is called 0.
    safe = np.where(size > 0, size, 1)
    slope = np.where(size > 0, (gain + size) / (2 * safe), 0.0)
    # Of a ratio of means: the error of its linearisation.
    varying = (gains + sizes - 2 * slope[:, None] * sizes) / (2 * safe[:, None])
    slope_error = varying.std(axis=1, ddof=1) / root
    known = np.maximum(explained_error, slope_error) <= tolerance
    enough = explained >= 1 - tolerance - 2 * explained_error
    right = known & enough & (np.abs(slope - 1) <= tolerance + 2 * slope_error)
    num_right = len(levels) if right.all() else int(np.argmin(right))
    smallest = float(levels[num_right - 1]) if num_right else float("nan")
    return ScoreByLevel(
        levels, explained, explained_error, slope, slope_error, asymmetry, right, smallest
    )
