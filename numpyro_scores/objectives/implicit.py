# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Implicit score matching."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import Energy, Score, as_score
from numpyro_scores.densities.traces import ExactTrace, TraceEstimator
from numpyro_scores.objectives._energy import free_field_of
from numpyro_scores.objectives._points import as_float_points


@dataclass(frozen=True)
class ImplicitScoreMatching:
    r"""
    Implicit score matching (Hyvarinen 2005, theorem 1):

    .. math::
        \mathbb E_x \left[ \tfrac12 |s(x)|^2 + \operatorname{tr} \nabla s(x) \right],

    summed over the entries of a point and averaged over the batch. It equals the Fisher divergence
    :math:`\tfrac12 \mathbb E |s(x) - \nabla \log p(x)|^2` up to a constant of the data, so it is
    negative at its minimum: :math:`-\tfrac12 \operatorname{tr} C^{-1}` for data
    :math:`\mathcal N(0, C)`.

    Of a distribution with a bounded support it is the loss of its density in the coordinates of
    NumPyro's `biject_to`, :math:`z(x)`, on :math:`-\log p(x(z)) - \log |\det \partial x /
    \partial z|`: at the border of the support the integration by parts leaves a term that is not
    zero, in `z` there is no border. For positive data, :math:`z = \log x`, that is the score
    matching of non-negative data (Hyvarinen 2007, "Some extensions of score matching", section 3),
    generalised score matching with :math:`h(x) = (\partial x / \partial z)^2` (Yu, Drton & Shojaie
    2019, "Generalized score matching for non-negative data"). A plain energy has no support: it is
    taken for one on all real numbers.

    :param trace: how the trace is found. `ExactTrace()` costs `d` Jacobian-vector products a point.
        `HutchinsonTrace` keeps its probes through the whole training, which then fits these
        probes only: for fresh ones at every step see :class:`SlicedScoreMatching`.
    """

    trace: TraceEstimator = ExactTrace()

    def __call__(self, module: Energy | Score, x: Array, *, key: Array | None = None) -> Array:
        """
        :param module: an energy, `x -> ()`, or a score, `x -> x.shape`, on one unbatched point, or
            an unnormalised distribution.
        :param x: points, shape `(n, *event_shape)`.
        :param key: not used, there is nothing random.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch or the output has another shape.
        """
        field, x = free_field_of(module, as_float_points(x))
        score = as_score(field, x[0])

        def loss(x):
            s, trace = self.trace(score, x)
            return jnp.vdot(s, s) / 2 + trace

        return jnp.mean(jax.vmap(loss)(x))
