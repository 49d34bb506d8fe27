# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Ratio matching, for discrete energies without chains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from numpyro_scores.objectives._sites import shares_of_neighbours


@dataclass(frozen=True)
class RatioMatching:
    r"""
    Ratio matching (Hyvarinen 2007, "Some extensions of score matching", equation 15, for binary
    data), of each site against each of its other states,

    .. math::
        \operatorname{mean}_x \sum_i \sum_{k \ne x_i}
        \left( \frac{p(x^{i \to k})}{p(x) + p(x^{i \to k})} \right)^2,

    with the state `k` at the site `i` of :math:`x^{i \to k}`. It needs no normaliser and no chain.

    For two states the fraction is :math:`1 - p(x_i \mid x_{\setminus i})`, and that is the paper's
    loss. For more its argument holds for each pair :math:`x, x' = x^{i \to k}`: with :math:`\pi`
    the data's probability of `x` among the two, the two terms of the pair are
    :math:`\pi (1 - q)^2 + (1 - \pi) q^2 = (q - \pi)^2 + \pi (1 - \pi)`, times their probability,
    with :math:`q = p(x) / (p(x) + p(x'))`. So the minimum is where all ratios are those of the
    data, which the true parameters give. The sum of :math:`(1 - p(x_i \mid x_{\setminus i}))^2`
    itself has another minimum as soon as there are three states.

    :param states: the states of a site, for an energy of floats; a distribution knows its own.
    """

    states: Sequence[float] | None = None

    def __call__(self, module: Any, x: Array, *, key: Array | None = None) -> Array:
        """
        :param module: a lattice, a random field or a machine, another distribution with few integer
            states, or an energy, `x -> ()`.
        :param x: points, shape `(n, *event_shape)`.
        :param key: not used, there is nothing random.
        :return: the loss, shape `()`; infinite if a site has none of the states.
        :raises ValueError: if `x` is no batch of such points, or the states are not known.
        """
        return jnp.mean(jnp.sum(shares_of_neighbours(module, x, self.states) ** 2, (1, 2)))
