# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Lattices, random fields and machines as one thing: tables on the edges of a graph."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores.distributions import (
    BernoulliRBM,
    BoltzmannDistribution,
    GaussianBernoulliRBM,
    PairwiseMRF,
)
from numpyro_scores.distributions.boltzmann.joint_rbm import JointRBM
from numpyro_scores.distributions.boltzmann.lattices import Lattice
from numpyro_scores.distributions.boltzmann.states import clamped

# What is forbidden weighs e^-100 of what is allowed where it must not weigh nothing.
FAR = 100.0


class PairwiseForm(NamedTuple):
    r"""
    :math:`Z = e^c \sum_x e^{\sum_{e = (i, j)} w_e(x_i, x_j) + \sum_i h_i(x_i)}` over the states of
    `n` nodes.

    - **tables** - :math:`w`, shape `(m, q, q)`.
    - **fields** - :math:`h`, shape `(n, q)`.
    - **constant** - :math:`c`, shape `()`.
    """

    tables: Array
    fields: Array
    constant: Array

    def softened(self) -> "PairwiseForm":
        """With weights far below all others in place of minus infinity: Z is no smaller."""
        largest = jnp.zeros(())
        for weights in (self.tables, self.fields):
            finite = jnp.where(jnp.isneginf(weights), 0.0, jnp.abs(weights))
            largest = jnp.maximum(largest, jnp.max(finite, initial=0.0))
        low = -(FAR + largest)
        tables, fields = (jnp.where(jnp.isneginf(w), low, w) for w in self[:2])
        return PairwiseForm(tables, fields, self.constant)


def is_pairwise(distribution: BoltzmannDistribution) -> bool:
    if isinstance(distribution, JointRBM):
        distribution = distribution.rbm
    return isinstance(distribution, Lattice | PairwiseMRF | BernoulliRBM | GaussianBernoulliRBM)


def pairwise_form(distribution: BoltzmannDistribution) -> tuple[np.ndarray, PairwiseForm]:
    """
    The edges, pairs of nodes of shape `(m, 2)`, and what stands on them. Continuous visible units
    are integrated out, which joins all hidden ones in pairs.
    """
    if isinstance(distribution, JointRBM):
        distribution = distribution.rbm
    if isinstance(distribution, Lattice):
        return _of_lattice(distribution)
    if isinstance(distribution, PairwiseMRF):
        form = PairwiseForm(distribution._tables, distribution.fields, jnp.zeros(()))
        return np.asarray(distribution.edges), form
    if isinstance(distribution, BernoulliRBM):
        return _of_machine(distribution)
    assert isinstance(distribution, GaussianBernoulliRBM)
    return _of_gaussian_machine(distribution)


def _of_lattice(d: Lattice) -> tuple[np.ndarray, PairwiseForm]:
    sites = np.arange(d.event_shape[0] * d.event_shape[1]).reshape(d.event_shape)
    pairs = [np.zeros((0, 2), np.int64)]
    for axis, size in enumerate(d.event_shape):
        if size > 1:
            ahead = np.stack([sites, np.roll(sites, -1, axis)], -1)
            inner = np.moveaxis(ahead, axis, 0)[: size if d.periodic else size - 1]
            pairs.append(inner.reshape(-1, 2))
    # Two sites in a row of a torus are joined twice.
    edges, counts = np.unique(np.sort(np.concatenate(pairs)), axis=0, return_counts=True)
    tables = jnp.asarray(counts)[:, None, None] * d.pair_weights()
    fields = d.site_weights().reshape(sites.size, -1)
    return edges, PairwiseForm(tables, fields, jnp.zeros(()))


def _of_machine(d: BernoulliRBM) -> tuple[np.ndarray, PairwiseForm]:
    num_visible, num_hidden = d.weights.shape
    edges = np.array(list(np.ndindex(num_visible, num_hidden)), np.int64).reshape(-1, 2)
    biases = jnp.concatenate([d.visible_bias, d.hidden_bias])
    return edges + [0, num_visible], _of_units(d.weights.reshape(-1), biases, jnp.zeros(()))


def _of_gaussian_machine(d: GaussianBernoulliRBM) -> tuple[np.ndarray, PairwiseForm]:
    """The exponent :math:`(W h) (2 \\mu + W h) / (2 \\sigma^2)` is quadratic in `h`."""
    num_visible, num_hidden = d.weights.shape
    mean, scale = (jnp.broadcast_to(p, (num_visible,)) for p in (d.visible_mean, d.visible_scale))
    pairs = (d.weights / scale[:, None] ** 2).T @ d.weights
    biases = d.hidden_bias + (mean / scale**2) @ d.weights + jnp.diagonal(pairs) / 2
    first, second = np.triu_indices(num_hidden, 1)
    constant = jnp.sum(jnp.log(scale) + 0.5 * jnp.log(2 * jnp.pi))
    return np.stack([first, second], -1), _of_units(pairs[first, second], biases, constant)


def _of_units(weights: Array, biases: Array, constant: Array) -> PairwiseForm:
    both = jnp.zeros((2, 2)).at[1, 1].set(1.0)
    return PairwiseForm(weights[:, None, None] * both, jnp.stack(clamped(biases), -1), constant)
