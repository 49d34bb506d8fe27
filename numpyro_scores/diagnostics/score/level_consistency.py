# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether the densities of an energy at its noise levels are those of one density with noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.typing import ArrayLike

from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_count, check_key
from numpyro_scores.densities.noise_path import default_trace
from numpyro_scores.diagnostics._samples import as_samples


class LevelConsistency(NamedTuple):
    r"""
    What :func:`level_consistency` returns.

    - **sigma** - the noise levels, from large to small.
    - **residual** - mean over the points of :math:`r` at each level, in nats for each factor `e` of
      the noise level.
    - **spread** - standard deviation over the points.
    - **nats** - of each point, the integral of `r` over :math:`\ln \sigma`: by so much its log
      density at the smallest level is another than the scores of all levels say.
    """

    sigma: Array
    residual: Array
    spread: Array
    nats: Array

    @property
    def size(self) -> float:
        """Root mean square of `nats`: what a difference of two log densities may be off by."""
        return float(np.sqrt(np.mean(np.square(self.nats))))

    def __str__(self) -> str:
        rows = ["    sigma      residual"]
        rows += [
            f"{sigma:9.3g}  {mean:+8.3f} +- {spread:<6.3f}"
            for sigma, mean, spread in zip(self.sigma, self.residual, self.spread, strict=True)
        ]
        rows.append(f"along all levels {np.mean(self.nats):+.2f} +- {np.std(self.nats):.2f} nats")
        return "\n".join(rows)


def level_consistency(
    prior: Any, points: ArrayLike, key: Array, *, num_levels: int = 16
) -> LevelConsistency:
    r"""
    How far an energy :math:`U(x, \sigma)` is from :math:`-\log` of one density that has noise added
    to it. Of such densities the heat equation holds, :math:`\partial_t p = \tfrac12 \Delta p` with
    :math:`t = \sigma^2` (the Fokker-Planck equation of the noise; Lai et al. 2023, "FP-diffusion"),

    .. math:: r(x, \sigma) = \sigma\, \partial_\sigma U
              - \sigma^2 \left( \Delta U - |\nabla U|^2 \right) = 0.

    It is taken at points with noise, from the smallest level of the process to the largest. Where
    it is not small, the score and the values of the energy are those of different densities: what
    goes through the levels by the score (draws of the prior, the flow, annealing) and what compares
    values (Metropolis tests, weights, evidence) then disagree. That it is small says nothing of the
    data: see :func:`~numpyro_scores.diagnostics.level_normalizers` for mass where there are none.

    :param prior: a :class:`~numpyro_scores.DiffusionPrior` of an energy.
    :param points: data, or draws of the prior, shape `(n, *event_shape)`.
    :param key: key of the noise.
    :param num_levels: number of noise levels, geometric.
    :raises ValueError: if the prior has no energy, or the points are of another shape.
    """
    energy = getattr(prior, "energy", None)
    if energy is None or not hasattr(prior, "process"):
        raise ValueError(
            "level_consistency is of a DiffusionPrior that is made of an energy, energy(x, sigma) "
            f"-> (), got {prior!r}: a denoiser has no other values than those of its score."
        )
    key = check_key("level_consistency", key)
    check_count("num_levels", num_levels)
    if num_levels < 2:
        raise ValueError(f"num_levels must be at least 2, got {num_levels}.")
    x = as_samples("points", points)
    if x.shape[1:] != prior.event_shape:
        raise ValueError(
            f"points must have the shape (n, *{prior.event_shape}) of the prior's, got {x.shape}."
        )
    ends = np.log([float(prior.process.sigma_max), float(prior.process.sigma_min)])
    levels = jnp.asarray(np.exp(np.linspace(*ends, num_levels)), x.dtype)
    residuals = compiled(_residuals, prior.denoiser, jnp.asarray(x), levels, key)
    nats = -jnp.trapezoid(residuals, jnp.log(levels), axis=0)
    return LevelConsistency(levels, jnp.mean(residuals, axis=1), jnp.std(residuals, axis=1), nats)


def _residuals(denoiser: Any, x: Array, levels: Array, key: Array) -> Array:
    """Of each level and point; the noise of a point is the same at all levels, but for its size."""
    z = random.normal(key, x.shape, x.dtype)
    energy, trace = denoiser.energy, default_trace(x[0].size)

    def at(x, sigma):
        grad, laplacian = trace(lambda x: jax.grad(energy)(x, sigma), x)
        slope = jax.grad(energy, argnums=1)(x, sigma)
        return sigma * slope - sigma**2 * (laplacian - jnp.sum(grad**2))

    def level(sigma):
        # The points are of the smallest level, but for what is left of it in data without noise.
        added = jnp.sqrt(jnp.maximum(sigma**2 - levels[-1] ** 2, 0))
        return jax.vmap(at, (0, None))(x + added * z, sigma)

    return lax.map(level, levels)
