# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Bethe approximation where it is a bound: two states that attract each other."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import entr

from numpyro_scores._validation import check_count, is_concrete
from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.distributions.boltzmann.states import forbidden, lowered
from numpyro_scores.normalizers._one_sided import OneSidedMethod
from numpyro_scores.normalizers._pairwise import PairwiseForm, pairwise_form
from numpyro_scores.normalizers.tree_reweighted import beliefs, propagated

NEARLY_NONE = 1e-6


@dataclass(frozen=True)
class BetheBound(OneSidedMethod):
    r"""
    The Bethe approximation of :math:`\log Z` of sites with two states whose interactions attract,
    :math:`J_{ij} = w_{ij}(0, 0) + w_{ij}(1, 1) - w_{ij}(0, 1) - w_{ij}(1, 0) \ge 0`: then it is a
    lower bound (Ruozzi 2012, "The Bethe partition function of log-supermodular graphical models"),

    .. math:: \log Z \ge \sum_{ij} E_{\tau_{ij}} w_{ij} + \sum_i E_{\tau_i} h_i
        + \sum_{ij} H(\tau_{ij}) + \sum_i (1 - d_i) H(\tau_i),

    for marginals of sites and of pairs that agree, here those of belief propagation for the sites
    and the best ones of pairs given those of sites (Welling & Teh 2001); :math:`d_i` is the number
    of neighbours. It is equal on a tree.

    :param num_steps: steps of belief propagation, each half way.
    :raises ValueError: if it is no positive integer, for more than two states, or for an
        interaction that is known to repel.
    """

    num_steps: int = 200

    def __post_init__(self):
        check_count("num_steps", self.num_steps)

    is_lower = True

    def refusal(self, distribution: BoltzmannDistribution) -> str | None:
        if reason := super().refusal(distribution):
            return reason
        _, form = pairwise_form(distribution)
        if form.fields.shape[1] != 2:
            return f"is a bound for two states, not for {form.fields.shape[1]}."
        weakest = jnp.min(_attractions(form.softened()), initial=0.0)
        if is_concrete(weakest) and weakest < 0:
            return (
                "is a bound where all pairs attract, but there is an interaction of "
                f"{float(weakest):.3g}: MeanFieldBound has no such condition."
            )
        return None

    def _bound(self, distribution: BoltzmannDistribution, key: Array) -> Array:
        edges, form = pairwise_form(distribution)
        still = jax.tree.map(lax.stop_gradient, form.softened())
        shares = jnp.ones(len(edges), form.fields.dtype)
        # From all sites in the one or the other state, beside a start without a preference.
        pushes = [0.0, 1.0, -1.0]
        values = []
        for push in pushes:
            pushed = still._replace(fields=still.fields + push * jnp.array([-0.5, 0.5]))
            messages = propagated(edges, pushed, shares, self.num_steps // 4 + 1)
            messages = propagated(edges, still, shares, self.num_steps, messages)
            up = jax.nn.softmax(beliefs(edges, still.fields, shares, messages))[:, 1]
            values.append(bethe(edges, form, _attractions(still), up))
        return jnp.max(jnp.stack(values))


def bethe(edges: np.ndarray, form: PairwiseForm, attractions: Array, up: Array) -> Array:
    """
    The Bethe approximation with the best marginals of pairs.

    :param up: the probability of the second state at each site, shape `(n,)`.
    """
    first, second = (up[nodes] for nodes in edges.T)
    both = _both_up(attractions, first, second)
    rows = [[1 - first - second + both, second - both], [first - both, both]]
    pairs = jnp.maximum(jnp.moveaxis(jnp.array(rows), -1, 0), 0.0)
    sites = jnp.stack([1 - up, up], -1)
    weight = jnp.sum(lowered(form.tables) * pairs) + jnp.sum(lowered(form.fields) * sites)
    degrees = jnp.asarray(np.bincount(edges.reshape(-1), minlength=len(up)), up.dtype)
    of_sites = jnp.sum((1 - degrees) * jnp.sum(entr(sites), -1))
    return form.constant + forbidden(weight) + jnp.sum(entr(pairs)) + of_sites


def _attractions(form: PairwiseForm) -> Array:
    w = form.tables
    return w[:, 0, 0] + w[:, 1, 1] - w[:, 0, 1] - w[:, 1, 0]


def _both_up(attractions: Array, first: Array, second: Array) -> Array:
    r"""
    :math:`\xi` with :math:`\xi (1 - x - y + \xi) = e^J (x - \xi)(y - \xi)`, the smaller root; the
    form without the difference of two large numbers.
    """
    a = 1 / jnp.expm1(jnp.maximum(attractions, NEARLY_NONE))
    s = a + first + second
    product = (1 + a) * first * second
    both = 2 * product / (s + jnp.sqrt(jnp.maximum(s**2 - 4 * product, 0.0)))
    both = jnp.where(attractions > NEARLY_NONE, both, first * second)
    return jnp.clip(both, jnp.maximum(0.0, first + second - 1), jnp.minimum(first, second))
