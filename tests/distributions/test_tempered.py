# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Members of a family with scaled interactions: the geometric path to independent sites."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
assert_close = np.testing.assert_allclose


def machine():
    return ns.BernoulliRBM(
        RNG.normal(size=(3, 2)), RNG.normal(size=3), RNG.normal(size=2), log_normalizer=1.0
    )


def gaussian_machine():
    weights, bias = RNG.normal(size=(3, 2)), RNG.normal(size=2)
    return ns.GaussianBernoulliRBM(weights, [0.1, 0.2, 0.3], 0.7, bias, log_normalizer=1.0)


def field():
    edges, couplings = [[0, 1], [1, 2]], RNG.normal(size=(2, 3, 3))
    return ns.PairwiseMRF(edges, couplings, RNG.normal(size=(3, 3)), 3, log_normalizer=1.0)


WITH_BLOCKS = {
    "ising": lambda: ns.Ising((2, 4), 0.4, RNG.normal(size=(2, 4)), log_normalizer=1.0),
    "potts": lambda: ns.Potts((2, 2), 3, 0.4, RNG.normal(size=3), log_normalizer=1.0),
    "field": field,
    "machine": lambda: machine().joint(),
    "gaussian machine": lambda: gaussian_machine().joint(),
}


@pytest.mark.parametrize("make", WITH_BLOCKS.values(), ids=WITH_BLOCKS)
def test_the_log_weight_is_linear_on_the_way_to_independent_sites(x64, make):
    d = make()
    x, other = d.random_point(random.key(0)), d.random_point(random.key(1))
    ends = [d.tempered(beta).log_prob(x) for beta in (0.0, 1.0)]
    assert_close(ends[1], d.log_prob(x) + 1.0, rtol=1e-12)  # without the normaliser
    found = jax.jit(lambda beta: d.tempered(beta).log_prob(x))(0.3)
    assert_close(found, 0.7 * ends[0] + 0.3 * ends[1], rtol=1e-12)
    start = d.tempered(0.0)
    for block in range(d.num_blocks):

        @jax.jit
        def log_prob(y, block=block):
            return start.conditional(block, y).log_prob(start.split(x)[block])

        assert_close(log_prob(x), log_prob(other), rtol=1e-12)


@pytest.mark.parametrize("make", [machine, gaussian_machine])
def test_a_tempered_machine_is_the_marginal_of_its_joint_distribution(x64, make):
    d = make()
    visible = jnp.array([0.0, 1.0, 1.0])
    hidden = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    points = jnp.concatenate([jnp.broadcast_to(visible, (4, 3)), hidden], 1)
    expected = jax.nn.logsumexp(d.joint().tempered(0.3).log_prob(points))
    assert_close(d.tempered(0.3).log_prob(visible), expected, rtol=1e-12)
    assert d.log_normalizer == 1.0 and d.tempered(0.3).log_normalizer is None
