# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Pseudo-likelihood, for discrete energies without chains."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from numpyro_scores.objectives._sites import site_log_probs


@dataclass(frozen=True)
class PseudoLikelihood:
    r"""
    Minus the log pseudo-likelihood (Besag 1975, "Statistical analysis of non-lattice data"),

    .. math:: -\operatorname{mean}_x \sum_i \log p(x_i \mid x_{\setminus i}),

    the sum over the sites of a point, in nats. It needs no normaliser and no chain, and its minimum
    is at the true parameters if the model has them.

    :param states: the states of a site, for an energy of floats; a distribution knows its own.
    """

    states: Sequence[float] | None = None

    def __call__(self, module: Any, x: Array, *, key: Array | None = None) -> Array:
        """
        :param module: a distribution with `site_log_probs`, or an energy, `x -> ()`.
        :param x: points, shape `(n, *event_shape)`.
        :param key: not used, there is nothing random.
        :return: the loss, shape `()`; infinite if a site has none of the states.
        :raises ValueError: if `x` is no batch of such points, or the states are not known.
        """
        log_probs = site_log_probs(module, x, self.states)
        return -jnp.mean(jnp.sum(log_probs.reshape(len(log_probs), -1), axis=1))
