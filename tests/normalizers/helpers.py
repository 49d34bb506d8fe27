# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Distributions that are small enough to enumerate."""

import itertools

import jax.numpy as jnp
import numpy as np

import numpyro_scores as ns
from numpyro_scores.distributions.boltzmann.blocks import graph_blocks


def rbm(num_visible=4, num_hidden=3, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (num_visible, num_hidden), num_visible, num_hidden
    return ns.BernoulliRBM(*(1.5 * rng.normal(size=shape) for shape in shapes))


def ising():
    return ns.Ising((2, 2), 0.4, np.random.default_rng(0).normal(size=(2, 2)))


def potts():
    return ns.Potts((2, 2), 3, 0.9, [0.3, -0.2, 0.1], periodic=False)


def triangles():
    graph_blocks.cache_clear()  # JAX remembers the precision of its index arrays
    rng = np.random.default_rng(0)
    edges = [[0, 1], [2, 1], [0, 2], [2, 3]]  # three colours
    return ns.PairwiseMRF(edges, rng.normal(size=(4, 3, 3)), rng.normal(size=(4, 3)), 3)


def gaussian_rbm():
    weights, bias = np.array([[0.5, -1.0, 0.3], [0.8, 0.2, -0.6]]), [0.3, -0.5, 0.1]
    return ns.GaussianBernoulliRBM(weights, [0.5, -0.2], [0.8, 1.3], bias, log_normalizer=1.0)


def exact(d):
    return ns.log_normalizer(d, method=ns.Enumeration()).estimate


def points_of(d):
    """All points of a discrete distribution with blocks."""
    states = d.conditional(0, jnp.zeros(d.event_shape)).enumerate_support(False).reshape(-1)
    points = np.array(
        list(itertools.product(np.asarray(states), repeat=int(np.prod(d.event_shape))))
    )
    return jnp.asarray(points.reshape(-1, *d.event_shape), jnp.int8)
