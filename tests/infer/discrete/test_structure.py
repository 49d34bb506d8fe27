# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What discrete kernels find out about a model: at each `init`, and beside large constants."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = np.random.default_rng(0).normal(size=(2, 4))


def test_values_decide_the_states_and_what_depends_on_what():
    """Arguments of the same shapes: another number of states, another index."""

    def trials(n, y):
        k = numpyro.sample("k", dist.Binomial(total_count=n, probs=0.5))
        numpyro.sample("y", dist.Normal(k, 1.0), obs=y)

    kernel = ns.BlockGibbs(trials)
    for n in (3, 10, 3):
        kernel.init(random.key(0), 0, None, (jnp.array(n), jnp.array(2.0)), {})
        (update,) = kernel._found.plan
        assert update.states == tuple(range(n + 1))

    def groups(y, group):
        with numpyro.plate("elements", 4):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(z[group], 1.0).to_event(1), obs=y)

    kernel = ns.BlockGibbs(groups)
    kernel.init(random.key(0), 0, None, (DATA[0], np.arange(4)), {})
    with pytest.raises(ValueError, match="is not a sum over single"):
        kernel.init(random.key(0), 0, None, (DATA[0], np.array([0, 0, 0, 3])), {})


def test_a_model_that_reads_a_global_is_looked_at_again():
    offset = np.array(0.0)

    def model():
        x = numpyro.sample("x", ns.Ising((2, 2), 0.3))
        numpyro.sample(
            "y", dist.Normal(x + offset * jnp.roll(x, 1), 1).to_event(2), obs=DATA[:, :2]
        )

    kernel = ns.BlockGibbs(model)
    kernel.init(random.key(0), 0, None, (), {})
    offset = np.array(1.0)
    with pytest.raises(ValueError, match="is not a sum over single"):
        kernel.init(random.key(0), 0, None, (), {})


def large_constant(coupling):
    level = 1e6 * np.log(1e6) - 1e6
    with numpyro.plate("elements", 6):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
    s = 2.0 * z - 1
    numpyro.factor("f", level + coupling * s * jnp.roll(s, 1) + 100.0 * s)


def check_large_constant():
    kernel = ns.BlockGibbs(large_constant)
    kernel.init(random.key(0), 0, None, (0.0,), {})
    with pytest.raises(ValueError, match="large beside what an element changes"):
        kernel.init(random.key(0), 0, None, (0.8,), {})


def test_a_large_constant_does_not_hide_a_dependence():
    check_large_constant()


def test_a_large_constant_does_not_hide_a_dependence_in_float64(x64):
    check_large_constant()


def test_states_that_depend_on_another_site_are_told():
    def model(y):
        n = numpyro.sample("n", dist.Categorical(np.ones(5) / 5))
        numpyro.sample("k", dist.Binomial(n, 0.5))

    for kernel in (ns.BlockGibbs, ns.GibbsWithGradients, ns.DiscreteLangevin):
        with pytest.raises(ValueError, match=r"site 'k' depend on \['n'\]"):
            kernel(model).init(random.key(0), 0, None, (DATA,), {})
