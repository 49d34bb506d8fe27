# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Conditional noise-contrastive estimation: telling data from data with noise."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.objectives._energy import check_unnormalised, free_energy_of
from numpyro_scores.objectives._points import as_float_points


@dataclass(frozen=True)
class ConditionalNoiseContrastiveEstimation:
    r"""
    Conditional noise-contrastive estimation (Ceylan & Gutmann 2018, "Conditional noise-contrastive
    estimation of unnormalised models") with Gaussian noise: which of two points is the one from
    the data?

    .. math::
        2\, \mathbb E_{x, z} \log \left( 1 + e^{E(x) - E(y)} \right), \quad y = x + \epsilon z.

    The noise is symmetric, so it cancels, and so does the normaliser. The minimum is at
    :math:`E = -\log p` up to a constant for every :math:`\epsilon`. Small ones make it score
    matching: :math:`2 \log 2 + \epsilon^2 J / 2 + O(\epsilon^4)`, with the loss `J` of
    :class:`ImplicitScoreMatching`.

    Of a distribution with a bounded support the noise is on its unconstrained coordinates,
    :math:`z' = z + \epsilon \zeta`, where it is symmetric, and
    :math:`E(x(z)) - \log |\det \partial x / \partial z|`, the energy of the density of `z`, stands
    for the energy. In `x` that is a proposal which is not symmetric, with the ratio of its two
    densities in the loss (their equation 11).

    :param noise_scale: :math:`\epsilon`, in the units of the data (or of the unconstrained
        coordinates, as those of :math:`\log x` for positive data), of the size of their smallest
        structures or larger: where the loss is near :math:`2 \log 2` it was too small to tell the
        two points apart, near 0 too large to be hard.
    :param num_noise: noisy points for each point of the data, fresh at every call.
    """

    noise_scale: float
    num_noise: int = 10

    def __post_init__(self):
        check_positive("noise_scale", self.noise_scale)
        check_count("num_noise", self.num_noise)

    def __call__(self, module: Any, x: Array, *, key: Array) -> Array:
        """
        :param module: an energy, `x -> ()`, or an unnormalised distribution.
        :param x: points, shape `(n, *event_shape)`.
        :param key: key of the noise.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch, or the module is no energy of such points.
        """
        check_unnormalised(module)
        one_energy, x, _ = free_energy_of(module, as_float_points(x))
        energy = jax.vmap(one_energy)
        z = random.normal(key, (self.num_noise, *x.shape), x.dtype)
        noisy = jax.vmap(energy)(x[None] + self.noise_scale * z)
        return 2 * jnp.mean(jax.nn.softplus(energy(x)[None] - noisy))
