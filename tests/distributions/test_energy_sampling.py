# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Draws of an energy by short runs of a kernel."""

import pickle
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_no_rejection, whitened
from jax import random
from numpyro.distributions import constraints
from numpyro.infer import Predictive
from scipy import stats

import numpyro_scores as ns
from numpyro_scores._compile import _program

pytestmark = pytest.mark.usefixtures("quick_compilation")

MEAN = np.array([2.0, -1.0])
COVARIANCE = np.array([[1.0, 0.6], [0.6, 0.5]])
LONG = partial(ns.MALA, step_size=0.15, num_steps=200)


def gaussian(x):
    return (x - MEAN) @ np.linalg.inv(COVARIANCE) @ (x - MEAN) / 2


def standard(x):
    return jnp.sum(x**2) / 2


def gamma(x):
    return jnp.sum(3 * x - 1.5 * jnp.log(x))


class Descent:
    """Nothing of a kernel but what a sampler needs: one step down the gradient."""

    class State(NamedTuple):
        place: jax.Array

    sample_field = "place"

    def __init__(self, potential_fn, step_size=0.25):
        self.potential_fn = potential_fn
        self.step_size = step_size

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        return self.State(init_params)

    def sample(self, state, model_args, model_kwargs):
        grad = jax.grad(self.potential_fn)(state.place)
        return self.State(state.place - self.step_size * grad)


QUICK = ns.EnergyDistribution(standard, 2, sampler=Descent)


def test_long_runs_have_the_law_of_the_energy():
    """Kolmogorov-Smirnov; of 8,000 numbers it would notice 0.03 in the distribution function."""
    d = ns.EnergyDistribution(gaussian, 2, sampler=LONG)
    z = whitened(d.sample(random.key(0), (4000,)), MEAN, COVARIANCE)
    turned = {"sum": z @ [0.6, 0.8], "difference": z @ [0.8, -0.6], "all": z.ravel()}
    assert_no_rejection({name: stats.kstest(x, "norm").pvalue for name, x in turned.items()})


def test_long_runs_have_the_law_on_a_support():
    """Without the volume of the transform it would be Gamma(1.5), not Gamma(2.5)."""
    sampler = partial(ns.MALA, step_size=0.05, num_steps=200)
    d = ns.EnergyDistribution(gamma, 2, support=constraints.positive, sampler=sampler)
    draws = np.ravel(d.sample(random.key(1), (2000,)))
    assert stats.kstest(draws, stats.gamma(2.5, scale=1 / 3).cdf).pvalue > 1e-6


def test_a_short_run_remembers_its_start():
    """k unadjusted steps from N(0, 1): the law is N(0, a^2k + 2 h (1 + a^2 + ...)), a = 1 - h l."""
    h, precision, k = 0.1, 4.0, 3
    d = ns.EnergyDistribution(
        lambda x: precision * standard(x), 1, sampler=partial(ns.ULA, step_size=h, num_steps=k)
    )
    powers = (1 - h * precision) ** (2 * np.arange(k + 1))
    scale = np.sqrt(powers[k] + 2 * h * powers[:k].sum())
    draws = np.ravel(d.sample(random.key(2), (20_000,)))
    assert stats.kstest(draws / scale, "norm").pvalue > 1e-6
    assert abs(scale - 0.5) > 0.05  # which the law of the energy is not


@pytest.mark.parametrize("parallel", [False, True])
def test_predictive_draws_the_prior_and_the_data(parallel):
    # Right on Gaussians, and compiled sooner than MALA.
    exact = partial(
        ns.OverdampedLangevin,
        step_size=0.1,
        num_steps=60,
        integrator=ns.LeimkuhlerMatthews(),
    )

    def model():
        # Its parameters are latent too, and the normaliser is not needed for a draw.
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
        energy = jax.tree_util.Partial(lambda shift, x: standard(2 * (x - shift)), shift)
        with numpyro.plate("pair", 2):
            x = numpyro.sample("x", ns.EnergyDistribution(energy, 1, sampler=exact))
        numpyro.sample("y", dist.Normal(x.sum(), 0.5))

    draws = Predictive(model, num_samples=2000, parallel=parallel)(random.key(3))
    x = 2 * (draws["x"][..., 0] - draws["shift"][:, None])
    assert_no_rejection(
        {
            "shift": stats.kstest(draws["shift"], "norm").pvalue,
            "x": stats.kstest(np.ravel(x), "norm").pvalue,
            "pair": stats.kstest(np.asarray(x[:, 0] - x[:, 1]) / np.sqrt(2), "norm").pvalue,
            "y": stats.kstest(draws["y"] / np.sqrt(4 + 2 / 4 + 1 / 4), "norm").pvalue,
        }
    )


def test_every_draw_has_a_start_of_its_own():
    """One step down a quadratic: a quarter off a standard normal start."""
    draws = QUICK.expand((2, 3)).to_event(1).sample(random.key(4), (500, 2))
    assert draws.shape == (500, 2, 2, 3, 2)
    assert len(np.unique(draws.reshape(-1, 2), axis=0)) == 6000
    assert stats.kstest(np.ravel(draws) / 0.75, "norm").pvalue > 1e-6
    assert QUICK.sample(random.key(4)).shape == (2,)


def test_the_start_is_standard_normal_in_the_unconstrained_space():
    d = ns.EnergyDistribution(
        jnp.zeros_like, (), support=constraints.interval(1.0, 3.0), sampler=Descent
    )
    # The potential energy is minus the logarithm of the volume: z moves to z - h (2 s(z) - 1).
    draws = d.sample(random.key(5), (5000,))
    moved = np.log(draws - 1) - np.log(3 - draws)
    starts = np.linspace(-6, 6, 2001)
    ends = starts - 0.25 * np.tanh(starts / 2)
    assert stats.kstest(np.interp(moved, ends, starts), "norm").pvalue > 1e-6


def test_jit_and_vmap_change_no_draw():
    keys = random.split(random.key(6), 3)
    one_by_one = np.stack([QUICK.sample(key, (4,)) for key in keys])
    mapped = jax.jit(jax.vmap(lambda key: QUICK.sample(key, (4,))))(keys)
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-6)


def test_equal_samplers_are_not_traced_again():
    @jax.jit
    def draw(d, key):
        return d.sample(key)

    def make(**options):
        sampler = partial(partial(ns.ULA, num_steps=2), **options)
        return ns.EnergyDistribution(standard, 2, sampler=sampler)

    # A step size of its own: other tests of this process may have left programs behind.
    d = make(step_size=0.137)
    again = pickle.loads(pickle.dumps(d))
    assert jax.tree.structure(make(step_size=0.137)) == jax.tree.structure(d)
    assert jax.tree.structure(again) == jax.tree.structure(d)
    assert jax.tree.structure(make(step_size=0.2)) != jax.tree.structure(d)
    compiled = _program.cache_info().misses
    draws = [draw(d, random.key(0)) for d in (d, again, make(step_size=0.137))]
    draws += [d.sample(random.key(0)) for d in (d, again, make(step_size=0.137))]
    assert draw._cache_size() == 1 and _program.cache_info().misses == compiled + 1
    for other in draws[1:]:
        np.testing.assert_allclose(other, draws[0], rtol=1e-6)


@pytest.mark.parametrize(
    "sampler, shape",
    [
        (partial(ns.ULA, step_size=3.0, num_steps=500), ()),  # explodes: its steps are not made
        (partial(ns.MALA, step_size=1e6), (3,)),  # rejects everything
    ],
)
def test_a_run_that_has_not_moved_is_no_draw(sampler, shape):
    d = ns.EnergyDistribution(standard, 2, sampler=sampler)
    draws = d.sample(random.key(7), shape)
    assert draws.shape == (*shape, 2) and np.all(np.isnan(draws))


def test_a_run_that_has_moved_is_a_draw_though_proposals_were_rejected():
    """Half of the starts are outside of a hard wall, where nothing is accepted; the rest is it."""

    def walled(x):
        return jnp.where(x > 0, x**2 / 2, jnp.nan)

    sampler = partial(ns.MALA, step_size=0.15, num_steps=100)
    d = ns.EnergyDistribution(walled, (), sampler=sampler)
    draws = np.asarray(d.sample(random.key(8), (4000,)))
    missing = np.isnan(draws)
    assert abs(missing.mean() - 0.5) < 4 * 0.5 / np.sqrt(4000)
    assert stats.kstest(draws[~missing], "halfnorm").pvalue > 1e-6


@pytest.mark.parametrize(
    "sampler, message",
    [
        (3, "sampler must make a kernel, such as .*, got 3"),
        (ns.ULA(potential_fn=standard), "must make a kernel, .*, got <numpyro_scores.*object"),
        (lambda potential_fn: 3, "must return a kernel, with init, sample and .*, got int"),
        (partial(ns.ULA, step_size=np.ones(())), "must be hashable, numbers in place of arrays"),
        (partial(ns.ULA, steps=3), "unexpected keyword argument 'steps'"),
    ],
)
def test_what_is_no_sampler_is_told_at_once(sampler, message):
    with pytest.raises(TypeError, match=message):
        ns.EnergyDistribution(standard, 2, sampler=sampler)


def test_what_is_missing_for_a_draw_is_told():
    with pytest.raises(NotImplementedError, match=r"MCMC\(.*MALA.*sampler=functools.partial\("):
        ns.EnergyDistribution(standard, 2).sample(random.key(0))
    with pytest.raises(ValueError, match="needs a random key, got None"):
        QUICK.sample(None)
