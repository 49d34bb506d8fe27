# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The integral of a score along the segment between two points of a chain, with its error."""

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._callables import Score
from numpyro_scores._validation import check_positive

# Inner nodes of the rules on [-1, 1]: those of Lobatto's with 5 points, and Kronrod's extensions of
# the one with 4 (Gander & Gautschi 2000, section 4).
INNER_NODES = {
    5: [np.sqrt(3 / 7)],
    7: [np.sqrt(2 / 3), 1 / np.sqrt(5)],
    13: [
        0.942882415695480,
        np.sqrt(2 / 3),
        0.641853342345781,
        1 / np.sqrt(5),
        0.236383199662150,
    ],
}


@dataclass(frozen=True)
class SegmentIntegral:
    r"""
    :math:`\int_0^1 s(x + t (y - x)) \cdot (y - x)\, dt` by nested Lobatto rules (Gander & Gautschi
    2000, "Adaptive quadrature - revisited"), whose first and last node are `x` and `y` themselves:
    a kernel knows the scores there. Its error is measured on the same nodes. Were every second
    weight left out, the integral would be off by :math:`\sum_i d_i f_i`, with :math:`f_i` the
    integrand at node :math:`t_i \in [-1, 1]`; the estimate is

    .. math:: \sqrt{\Big(\sum_i d_i f_i\Big)^2 + \Big(c \sum_i t_i d_i f_i\Big)^2},
        \quad c = |d| \,/\, |t d|,

    since one of the two alone vanishes by chance where a score turns between two nodes (Berntsen &
    Espelid 1991). It is that of the lower rule, and above the true error by far where the score is
    smooth. From `y` to `x` the integral has the other sign, and the estimate is the same: a
    Metropolis kernel that refuses where it is above `tolerance` remains reversible.

    :param num_nodes: 5, 7 or 13, exact for a score that is a polynomial up to degree 7, 9 or 19;
        3, 5 or 11 scores besides those at the ends.
    :param tolerance: the largest estimate that is accepted, in nats.
    :raises ValueError: if an argument is none of these.
    """

    num_nodes: int = 7
    tolerance: float = 1.0

    def __post_init__(self):
        if self.num_nodes not in INNER_NODES:
            raise ValueError(
                f"SegmentIntegral has num_nodes of {list(INNER_NODES)}, got {self.num_nodes!r}. "
                "LineIntegral takes any number, and does not know its error."
            )
        check_positive("tolerance", self.tolerance)

    @property
    def num_score_evals(self) -> int:
        """Scores besides those at the ends."""
        return self.num_nodes - 2

    def __call__(
        self, score: Score, x: Array, y: Array, score_x: Array, score_y: Array
    ) -> tuple[Array, Array]:
        """
        :param score: the score of one point.
        :param x: a point.
        :param y: another.
        :param score_x: the score at `x`.
        :param score_y: the score at `y`.
        :return: the integral, and an estimate of its error, each of shape `()`.
        """
        rule = lobatto(self.num_nodes)
        nodes, weights, lower, odd_lower = (jnp.asarray(values, x.dtype) for values in rule)
        # From y to x, 1 - t and t are the same two numbers, and so the points are the same.
        t = ((1 + nodes[1:-1]) / 2).reshape(-1, *[1] * x.ndim)
        scores = jax.vmap(score)(t[::-1] * x[None] + t * y[None])
        scores = jnp.concatenate([score_x[None], scores, score_y[None]])
        # Products and sums, since a matrix product on an accelerator may round to three digits.
        integrand = jnp.sum(scores * (y - x)[None], axis=tuple(range(1, scores.ndim)))
        # Nor do sums and differences over nodes that are mirror images depend on the direction.
        middle = self.num_nodes // 2
        after, before = integrand[middle + 1 :], integrand[:middle][::-1]
        even = jnp.concatenate([integrand[middle : middle + 1], after + before])
        error = jnp.hypot(
            jnp.sum(lower[middle:] * even), jnp.sum(odd_lower[middle + 1 :] * (after - before))
        )
        return jnp.sum(weights[middle:] * even), error


@cache
def lobatto(num_nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """
    Of the rule on [-1, 1]: the nodes, and for an interval of length 1 the weights, what they are
    more than those of the rule of every second node, and the odd companion of this difference.
    """
    inner = np.array(INNER_NODES[num_nodes])
    nodes = np.concatenate([[-1.0], -inner, [0.0], inner[::-1], [1.0]])
    weights = interpolatory_weights(nodes)
    lower = weights.copy()
    lower[::2] -= interpolatory_weights(nodes[::2])
    odd = nodes * lower
    return nodes, weights, lower, odd * np.linalg.norm(lower) / np.linalg.norm(odd)


def interpolatory_weights(nodes: np.ndarray) -> np.ndarray:
    """Weights of the mean over [-1, 1] that are exact below a degree of the number of nodes."""
    degree = len(nodes) - 1
    # Of Legendre polynomials the first alone has a mean.
    means = np.eye(len(nodes))[0]
    return np.linalg.solve(np.polynomial.legendre.legvander(nodes, degree).T, means)
