# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Restricted Boltzmann machines: energies, free energies and conditionals."""

import itertools

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import logsumexp

import numpyro_scores as ns
from numpyro_scores.distributions import VisibleHidden

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
assert_close = np.testing.assert_allclose
EXACT = {"rtol": 1e-12, "atol": 1e-12}
WEIGHTS, HIDDEN_BIAS = RNG.normal(size=(3, 2)), RNG.normal(size=2)
VISIBLE_BIAS, SCALE = RNG.normal(size=3), RNG.uniform(0.5, 2.0, 3)
HIDDEN = np.array(list(itertools.product([0, 1], repeat=2)))


def binary():
    return ns.BernoulliRBM(WEIGHTS, VISIBLE_BIAS, HIDDEN_BIAS)


def gaussian():
    return ns.GaussianBernoulliRBM(WEIGHTS, VISIBLE_BIAS, SCALE, HIDDEN_BIAS)


def energy(d, v, h):
    if d.is_discrete:
        return -v @ VISIBLE_BIAS - h @ HIDDEN_BIAS - v @ WEIGHTS @ h
    scaled = (v - VISIBLE_BIAS) / SCALE
    return scaled @ scaled / 2 - (v / SCALE**2) @ WEIGHTS @ h - HIDDEN_BIAS @ h


VISIBLE = {binary: np.array([1.0, 0.0, 1.0]), gaussian: RNG.normal(size=3)}
BOTH = pytest.mark.parametrize("make", [binary, gaussian])


@BOTH
def test_the_free_energy_sums_the_hidden_units_out(x64, make):
    d, v = make(), VISIBLE[make]
    energies = np.array([energy(d, v, h) for h in HIDDEN])
    x = np.concatenate([np.tile(v, (4, 1)), HIDDEN], -1)
    assert_close(jax.jit(d.joint().log_prob)(x), -energies, **EXACT)
    assert_close(jax.jit(d.log_prob)(v), logsumexp(-energies), **EXACT)
    assert_close(jax.jit(d.free_energy)(v[None]), [-logsumexp(-energies)], **EXACT)


@BOTH
def test_the_hidden_units_given_the_visible_ones(x64, make):
    """log p(v) + log p(h | v) = log p(v, h): so a model writes hidden units that are explicit."""
    d, v = make(), VISIBLE[make]
    energies = np.array([energy(d, v, h) for h in HIDDEN])
    conditional = d.conditional(visible=v)
    assert isinstance(conditional, dist.BernoulliLogits) and conditional.batch_shape == (2,)
    assert_close(conditional.log_prob(HIDDEN).sum(-1), -energies - logsumexp(-energies), **EXACT)


@BOTH
def test_the_visible_units_given_the_hidden_ones(x64, make):
    d, h = make(), HIDDEN[2]
    some = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
    conditional = d.conditional(hidden=h)
    assert isinstance(conditional, dist.BernoulliLogits if d.is_discrete else dist.Normal)
    assert conditional.batch_shape == (3,)
    energies = np.array([energy(d, v, h) for v in some])
    assert_close(np.diff(conditional.log_prob(some).sum(-1)), -np.diff(energies), **EXACT)


@BOTH
def test_the_blocks_of_the_joint_distribution_are_its_sides(x64, make):
    d, v, h = make().joint(), VISIBLE[make], HIDDEN[2]
    x = np.concatenate([v, h])
    blocks = d.split(x)
    assert isinstance(blocks, VisibleHidden) and d.num_blocks == 2
    np.testing.assert_array_equal(blocks.visible, v)
    np.testing.assert_array_equal(blocks.hidden, h)
    np.testing.assert_array_equal(d.join(blocks), x)
    visible, hidden = make().conditional(hidden=h), make().conditional(visible=v)
    assert_close(d.conditional(0, x).mean, visible.mean, **EXACT)
    assert_close(d.conditional(1, blocks).mean, hidden.mean, **EXACT)


def test_a_scalar_mean_and_scale_are_those_of_every_unit(x64):
    one = ns.GaussianBernoulliRBM(WEIGHTS, 0.3, 0.7, HIDDEN_BIAS)
    every = ns.GaussianBernoulliRBM(WEIGHTS, np.full(3, 0.3), np.full(3, 0.7), HIDDEN_BIAS)
    v = VISIBLE[gaussian]
    assert_close(one.log_prob(v), every.log_prob(v), **EXACT)
