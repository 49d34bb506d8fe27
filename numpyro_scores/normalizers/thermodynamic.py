# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Thermodynamic integration: the normaliser as an integral over inverse temperatures."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._validation import check_count
from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.normalizers._base import LogNormalizer
from numpyro_scores.normalizers._path import Path, check_chains, checked_key, path_to


@dataclass(frozen=True, eq=False)
class ThermodynamicIntegration:
    r"""
    :math:`\log Z` by thermodynamic integration (Kirkwood 1935; Gelman & Meng 1998, "Simulating
    normalizing constants"),

    .. math:: \log Z = \log Z_0 + \int_0^1 E_\beta \left[ \frac{d}{d\beta} \log
        \tilde p_\beta(y) \right] d\beta,

    on the path of `AnnealedImportanceSampling`, where the integrand is the mean of
    :math:`\ell - \ell_0`, with the largest block averaged out. Chains climb through
    `num_levels + 1` inverse temperatures, with `num_steps` sweeps at each, of which the later half
    is averaged; the integral is Simpson's rule.

    `standard_error` is that of the mean over chains of each chain's own integral, in which the
    correlation between levels is counted, and in quadrature the error of the rule, taken to be the
    difference from the trapezoid rule. `lower` and `upper` are two of them away from the estimate:
    an interval, **not a bound**. Chains that lag behind the temperatures, as they do near a phase
    transition, make the estimate too low, and the interval does not know: compare with twice the
    `num_steps`, or with the bracket of `AnnealedImportanceSampling`.

    The time is that of `num_levels * num_steps` sweeps and log weights of all chains.

    :param num_chains: number of chains, at least 2.
    :param num_levels: number of intervals of :math:`\beta`, even.
    :param num_steps: sweeps at each level.
    :param base: as for `AnnealedImportanceSampling`.
    :raises ValueError: for fewer than two chains, an odd number of levels, or no step.
    """

    num_chains: int = 128
    num_levels: int = 64
    num_steps: int = 32
    base: BoltzmannDistribution | None = None

    def __post_init__(self):
        check_chains(self.num_chains)
        check_count("num_levels", self.num_levels)
        check_count("num_steps", self.num_steps)
        if self.num_levels % 2:
            raise ValueError(f"num_levels must be even, for Simpson's rule, got {self.num_levels}.")

    def __call__(
        self, distribution: BoltzmannDistribution, key: Array | None = None
    ) -> LogNormalizer:
        """
        :param key: a random key.
        :raises ValueError: without a key, for a distribution without blocks, or a base of another
            kind.
        :raises TypeError: if the result is differentiated.
        """
        name = type(self).__name__
        key = checked_key(key, name)
        path = path_to(distribution, self.base, name)
        return _integral(path, key, self.num_chains, self.num_levels, self.num_steps)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _integral(
    path: Path, key: Array, num_chains: int, num_levels: int, num_steps: int
) -> LogNormalizer:
    def step(blocks, inputs):
        beta, key = inputs
        blocks = path.sweep(beta, key, blocks)
        return blocks, path.slope(beta, blocks)

    def level(blocks, inputs):
        beta, key = inputs
        keys = random.split(key, num_steps)
        blocks, slopes = lax.scan(step, blocks, (jnp.full(num_steps, beta), keys))
        return blocks, jnp.mean(slopes[num_steps // 2 :], 0)

    key_base, key_levels = random.split(key)
    betas = jnp.arange(num_levels + 1) / num_levels
    blocks = path.base_blocks(key_base, num_chains)
    log_z_base = path.base_log_normalizer(blocks)
    _, slopes = lax.scan(level, blocks, (betas, random.split(key_levels, num_levels + 1)))

    fine, coarse = _trapezoid(slopes), _trapezoid(slopes[::2])
    integrals = fine + (fine - coarse) / 3  # Simpson's rule, for each chain
    of_mean = jnp.std(integrals, ddof=1) / math.sqrt(num_chains)
    of_rule = jnp.mean(integrals - fine)
    estimate = log_z_base + jnp.mean(integrals)
    standard_error = jnp.hypot(of_mean, of_rule)
    return LogNormalizer(
        estimate, standard_error, estimate - 2 * standard_error, estimate + 2 * standard_error
    )


def _trapezoid(values: Array) -> Array:
    """The integral over [0, 1] of values at evenly spaced points, on the first axis."""
    return (jnp.sum(values, 0) - (values[0] + values[-1]) / 2) / (len(values) - 1)
