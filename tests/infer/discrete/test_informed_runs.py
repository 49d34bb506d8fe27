# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""GibbsWithGradients and DiscreteLangevin: draws, warmup, and models that do not fit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, draw, mean_and_error
from jax import random

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

of_both = pytest.mark.parametrize("make", [ns.GibbsWithGradients, ns.DiscreteLangevin])


def spins():
    numpyro.sample("x", ns.Ising((2, 4), 0.4, 0.3))


@pytest.mark.parametrize(
    "make, num_warmup",
    [(partial(ns.GibbsWithGradients, num_steps=12), 20), (ns.DiscreteLangevin, 80)],
)
def test_the_mean_spin_of_a_torus(make, num_warmup):
    """Grathwohl et al.'s Ising model of 5 x 5 spins, enumerated."""
    kernel = make(lambda: numpyro.sample("x", ns.Ising((5, 5), 0.2, 0.2)))
    num_chains = 100

    def step(state, _):
        state = kernel.sample(state, (), {})
        return state, (jnp.mean(1.0 * state.z["x"], axis=(1, 2)), state.accept_prob)

    @jax.jit
    def run(key):
        state = kernel.init(random.split(key, num_chains), num_warmup, None, (), {})
        return jax.lax.scan(step, state, length=num_warmup + 80)[1]

    x, accept_prob = (np.moveaxis(np.asarray(a)[num_warmup:], 0, 1) for a in run(random.key(0)))
    mean, error = mean_and_error(x)
    assert error < 0.01
    assert_within(mean, 0.4829698422, error)
    if make is ns.DiscreteLangevin:
        assert abs(accept_prob.mean() - 0.574) < 0.03


def test_levels_of_numbers_are_proposed_as_near_as_they_are_taken():
    """A first order of a square promises most of the furthest levels; hardly one would be taken."""
    levels = jnp.linspace(-3.0, 3.0, 30)

    def sums():
        x = numpyro.sample("x", dist.Categorical(logits=-(levels**2) / 2).expand([6]).to_event(1))
        x = levels[0] + (levels[1] - levels[0]) * x
        numpyro.sample("y", dist.Normal(x[:-1] + x[1:], 0.3).to_event(1), obs=jnp.ones(5))

    def acceptance(num_warmup, **settings):
        kernel = ns.GibbsWithGradients(sums, num_steps=20, **settings)

        def step(state, _):
            state = kernel.sample(state, (), {})
            return state, state.accept_prob

        state = kernel.init(random.split(random.key(0), 20), num_warmup, None, (), {})
        return jax.jit(lambda state: jax.lax.scan(step, state, length=60)[1])(state)[40:].mean()

    assert abs(acceptance(40) - 0.574) < 0.1
    assert acceptance(40, step_size=1e4, adapt_step_size=False) < 0.1


def test_warmup_ends_with_the_average_of_its_steps():
    kernel = ns.DiscreteLangevin(spins, num_steps=2)
    state = kernel.init(random.key(0), 5, None, (), {})
    steps = [float(state.adapt_state.step_size)]
    sample = jax.jit(lambda state: kernel.sample(state, (), {}))
    for _ in range(8):
        state = sample(state)
        steps.append(float(state.adapt_state.step_size))
    assert len(set(steps[:6])) == 6 and len(set(steps[5:])) == 1
    np.testing.assert_allclose(np.log(steps[-1]), state.adapt_state.averaging[1], rtol=1e-5)
    fixed = ns.DiscreteLangevin(spins, step_size=0.3, adapt_step_size=False)
    state = draw(fixed, random.key(0), 2, None, num_warmup=5)
    assert np.all(state.adapt_state.step_size == np.float32(0.3))


def test_without_a_metropolis_test_the_acceptance_tells_of_the_bias():
    def acceptance(step_size):
        kernel = ns.DiscreteLangevin(spins, adjusted=False, step_size=step_size, num_steps=20)
        return np.mean(draw(kernel, random.key(0), 50, None).accept_prob)

    assert acceptance(0.02) > 0.999 and acceptance(1.0) < 0.8


def indexed():
    with numpyro.plate("pixels", 3):
        x = numpyro.sample("x", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(jnp.array([0.0, 1.0])[x].sum(), 1.0), obs=1.0)


def compared():
    with numpyro.plate("pixels", 3):
        x = numpyro.sample("x", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(jnp.sum(x == 1), 1.0), obs=1.0)


def with_a_continuous_site():
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("x", dist.Bernoulli(jnp.exp(-scale)))


def with_continuous_elements():
    rbm = ns.GaussianBernoulliRBM(np.ones((2, 3)), np.ones(2), np.ones(2), np.ones(3))
    numpyro.sample("x", rbm.joint())


@pytest.mark.parametrize(
    "model, message",
    [
        (indexed, r"gradient.*does not exist.*low \+ \(high - low\) \* x"),
        (compared, r"density of 'y'.*is zero"),
        (with_a_continuous_site, r"\['scale'\] are continuous"),
        (lambda: numpyro.sample("x", dist.Poisson(2.0)), "states, but site 'x' is of Poisson"),
        (lambda: numpyro.sample("x", dist.Binomial(np.array([2, 3]), 0.5)), "all have the same"),
        (with_continuous_elements, "site 'x' of JointRBM has continuous ones too"),
        (lambda: numpyro.sample("x", dist.Normal(0, 1)), "are continuous"),
        (lambda: numpyro.sample("x", dist.Normal(0, 1), obs=1.0), "found no discrete latent site"),
    ],
)
@of_both
def test_models_that_do_not_fit(make, model, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make(model).init(random.key(0), 0, None, (), {})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"step_size": 0.0}, "step_size must be a finite positive number"),
        ({"num_steps": 0}, "num_steps must be a positive integer"),
        ({"adjusted": "yes"}, "adjusted must be True or False"),
        ({"target_accept_prob": 1.0}, r"target_accept_prob must be in \(0, 1\)"),
    ],
)
def test_arguments_out_of_their_range(settings, message):
    with pytest.raises(ValueError, match=message):
        ns.DiscreteLangevin(spins, **settings)
    if "adjusted" not in settings:
        with pytest.raises(ValueError, match=message):
            ns.GibbsWithGradients(spins, **settings)
