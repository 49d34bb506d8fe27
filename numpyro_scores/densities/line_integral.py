# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The log density of a lone score: a line integral from a reference point."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._callables import Score
from numpyro_scores._validation import check_count


@dataclass(frozen=True)
class LineIntegral:
    r"""
    :math:`\log p(x) - \log p(r) = \int_0^1 s(r + t (x - r)) \cdot (x - r)\, dt` by Gauss-Legendre
    nodes: exact for a score that is a polynomial of degree below `2 * num_nodes`. It is the log
    density of a gradient field; of another it is the value along this one path.

    :param num_nodes: number of score evaluations.
    """

    num_nodes: int = 32

    def __post_init__(self):
        check_count("num_nodes", self.num_nodes)

    def __call__(self, score: Score, reference: Array, x: Array) -> Array:
        """
        :param score: the score of one point.
        :param reference: the point at which the integral is zero.
        :param x: a point.
        :return: :math:`\\log p(x) - \\log p(r)`, shape `()`.
        """
        nodes, weights = gauss_legendre(self.num_nodes, x.dtype)
        scores = jax.vmap(lambda t: score(reference + t * (x - reference)))(nodes)
        # In full precision: of a matrix product an accelerator may keep three digits.
        mean = jnp.tensordot(weights, scores, axes=1, precision="highest")
        return jnp.vdot(mean, x - reference, precision="highest")

    @property
    def num_score_evals(self) -> int:
        """Scores of one integral."""
        return self.num_nodes


def gauss_legendre(num_nodes: int, dtype) -> tuple[Array, Array]:
    """Nodes and weights of the Gauss-Legendre rule on [0, 1]."""
    nodes, weights = map(np.asarray, np.polynomial.legendre.leggauss(num_nodes))
    return jnp.asarray((nodes + 1) / 2, dtype), jnp.asarray(weights / 2, dtype)
