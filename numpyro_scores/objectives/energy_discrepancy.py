# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energy discrepancy."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.objectives._energy import check_unnormalised, free_energy_of
from numpyro_scores.objectives._points import as_float_points


@dataclass(frozen=True)
class EnergyDiscrepancy:
    r"""
    Energy discrepancy with Gaussian perturbations (Schroder, Ou, Lim, Li, Vollmer & Duncan 2023,
    "Energy discrepancies: a score-independent loss for energy-based models"). Each point `x` is
    moved to `y` and from there, anew, to `m` negative samples:

    .. math::
        \mathbb E \log \Big( \frac wm + \frac1m \sum_{j=1}^m e^{E(x) - E(x_j)} \Big), \quad
        y = x + \sigma z, \quad x_j = y + \sigma z_j.

    It needs no derivative, no chain and no normaliser. As :math:`m \to \infty` it becomes the
    energy discrepancy :math:`\mathbb E[E(x)] + \mathbb E \log \int N(x'; y, \sigma^2)
    e^{-E(x')} dx'`, whose minimum is at :math:`E = -\log p` up to a constant; small :math:`\sigma`
    make it score matching, large ones maximum likelihood.

    With :math:`w = 1` that is the minimum for **every** `m`: up to a constant the loss is then that
    of finding `x` among itself and its negative samples, given `y`, and the ratio of what `x` and
    they are drawn from is `p(x)` up to a factor of `y`. Any other `w` biases the minimum, the less
    the larger `m`: below 1 toward energies that vary too much (with :math:`w = 0, m = 1` the loss
    has no minimum at all), above 1 toward too flat ones.

    Of a distribution with a bounded support points are moved in its unconstrained coordinates `z`,
    and :math:`E(x(z)) - \log |\det \partial x / \partial z|` stands for the energy: the argument
    above is one about the density of `z`, which that is.

    :param noise_scale: :math:`\sigma`, the square root of the paper's `t`, in the units of the
        data (or of the unconstrained coordinates, as those of :math:`\log x` for positive data):
        large enough to reach from mode to mode if their weights matter.
    :param num_negatives: `m`, negative samples for each point, fresh at every call.
    :param stabilizer: `w`; leave it at 1 unless a paper's numbers are to be repeated.
    """

    noise_scale: float
    num_negatives: int = 16
    stabilizer: float = 1.0

    def __post_init__(self):
        check_positive("noise_scale", self.noise_scale)
        check_count("num_negatives", self.num_negatives)
        if not 0 <= self.stabilizer < math.inf:
            raise ValueError(f"stabilizer must be finite and >= 0, got {self.stabilizer!r}.")

    def __call__(self, module: Any, x: Array, *, key: Array) -> Array:
        """
        :param module: an energy, `x -> ()`, or an unnormalised distribution.
        :param x: points, shape `(n, *event_shape)`.
        :param key: key of the perturbations.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch, or the module is no energy of such points.
        """
        check_unnormalised(module)
        one_energy, x, _ = free_energy_of(module, as_float_points(x))
        energy = jax.vmap(one_energy)
        key_there, key_back = random.split(key)
        y = x + self.noise_scale * random.normal(key_there, x.shape, x.dtype)
        z = random.normal(key_back, (self.num_negatives, *x.shape), x.dtype)
        falls = energy(x)[None] - jax.vmap(energy)(y[None] + self.noise_scale * z)
        log_stabilizer = jnp.log(jnp.full((1, len(x)), self.stabilizer, falls.dtype))
        log_sums = jax.nn.logsumexp(jnp.concatenate([log_stabilizer, falls]), axis=0)
        return jnp.mean(log_sums) - jnp.log(self.num_negatives)
