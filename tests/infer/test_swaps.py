# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Swaps of replicas, at the rates of theory."""

import copy
import itertools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from infer.helpers import assert_within
from infer.replicas import advance, flat, gaussian, run
from jax import random
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import potential_energy
from scipy import special

import numpyro_scores as ns
from numpyro_scores.infer.ladders import RUNG
from numpyro_scores.infer.replica_exchange import SWAP_INTEGRAL
from numpyro_scores.infer.swaps import even_odd_partners, share_of_log_ratio, swap, turn_round

pytestmark = pytest.mark.usefixtures("quick_compilation")


class Draw(NamedTuple):
    z: Any
    rng_key: Any


class ExactDraws(MCMCKernel):
    """Independent draws of the tempered N(0, I): all that is left to see are the swaps."""

    sample_field = "z"

    def __init__(self, model):
        self.model = model

    def wrap_model(self, wrapper):
        kernel = copy.copy(self)
        kernel.model = wrapper(self.model)
        return kernel

    def get_potential_fn(self, model_args=(), model_kwargs=None):
        return partial(potential_energy, self.model, model_args, model_kwargs)

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        return self.sample(Draw(None, rng_key), model_args, model_kwargs)

    def sample(self, state, model_args, model_kwargs):
        key, rng_key = random.split(state.rng_key)
        (d,) = model_args
        return Draw({"x": random.normal(key, (d,)) / jnp.sqrt(model_kwargs[RUNG])}, rng_key)

    def refresh(self, state, model_args, model_kwargs):
        return state


def swap_rate(d, low, high):
    """Of tempered Gaussians with independent draws: two ordered halves of a beta variable."""
    return 2 * special.betainc(d / 2, d / 2, low / (low + high))


@pytest.mark.parametrize(
    "d, beta, rate",
    [(10, 0.5, 0.28969), pytest.param(100, 0.8, 0.26623, marks=pytest.mark.slow)],
)
def test_swap_rate_of_tempered_gaussians(d, beta, rate):
    assert abs(swap_rate(d, beta, 1.0) - rate) < 1e-5
    kernel = ns.ReplicaExchange(ExactDraws(gaussian), ns.InverseTemperatures([1.0, beta]))
    state = kernel.init(random.split(random.key(0), 20_000), 0, None, (d,), {})
    state = jax.jit(lambda state: kernel.sample(state, (d,), {}))(state)
    error = np.std(state.swap_accept_prob) / np.sqrt(20_000)
    assert_within(np.mean(np.asarray(state.swap_accept_prob, np.float64)), rate, error)
    swapped = np.mean(state.walkers[:, 0] == 1)
    assert_within(swapped, rate, np.sqrt(rate * (1 - rate) / 20_000))


def test_even_pairs_in_even_draws_and_odd_pairs_in_odd_draws():
    assert even_odd_partners(0, 5).tolist() == [1, 0, 3, 2, 4]
    assert even_odd_partners(1, 5).tolist() == [0, 2, 1, 4, 3]
    assert even_odd_partners(2, 4).tolist() == [1, 0, 3, 2]
    assert even_odd_partners(3, 4).tolist() == [0, 2, 1, 3]


def test_swaps_that_are_not_finite_are_refused():
    """Pairs 0-1, 2-3, 4-5, 6-7: certain, not a number, from and to a vanishing density."""
    log_ratio = jnp.repeat(jnp.array([0.0, jnp.nan, jnp.inf, -jnp.inf]), 2)
    source, accept_prob = swap(random.key(0), log_ratio, even_odd_partners(0, 8))
    assert source.tolist() == [1, 0, 2, 3, 4, 5, 6, 7]
    assert accept_prob.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]


def test_a_walker_turns_at_both_ends_and_comes_back_after_a_round_trip():
    directions, trips = turn_round(jnp.array([-1, 0, 1]))
    assert directions.tolist() == [1, 0, -1] and trips == 1
    directions, trips = turn_round(jnp.array([0, -1, 0]))  # one that came down, but never went up
    assert directions.tolist() == [1, -1, 0] and trips == 0


def test_without_rejection_the_walkers_go_round_like_a_conveyor_belt():
    """Each goes up by one a draw, waits once at the top, and comes down: R / 2R trips a draw."""
    kernel = ns.ReplicaExchange(ExactDraws(flat), ns.InverseTemperatures([1.0, 0.7, 0.5, 0.2]))
    state = kernel.init(random.key(0), 16, None, (1,), {})
    assert state.walkers.tolist() == [0, 1, 2, 3]
    last, states = advance(kernel, state, 32, 1)
    rows = [[1, 0, 3, 2], [1, 3, 0, 2], [3, 1, 2, 0], [3, 2, 1, 0], [2, 3, 0, 1], [2, 0, 3, 1]]
    assert states.walkers[:8].tolist() == [*rows, [0, 2, 1, 3], [0, 1, 2, 3]]
    # In each half of the 32 draws a swap is tried every second time; warmup is not counted.
    assert last.num_swaps.tolist() == [8, 8, 8]
    assert last.swap_accept_prob.tolist() == [1.0, 1.0, 1.0]
    assert last.num_round_trips == 8 and last.round_trip_rate == 0.5
    assert states.num_swaps[15].tolist() == [8, 8, 8] and states.num_round_trips[15] == 5


def test_round_trip_rate_of_independent_draws():
    d, betas = 4, 0.55 ** np.arange(5)
    kernel = ns.ReplicaExchange(ExactDraws(gaussian), ns.InverseTemperatures(betas))
    mcmc = run(kernel, d, num_warmup=100, num_samples=200, num_chains=1_000)
    state = mcmc.last_state
    accept = swap_rate(d, 0.55, 1.0)
    rate = 1 / (2 + 2 * 4 * (1 - accept) / accept)
    error = np.std(state.round_trip_rate) / np.sqrt(1_000)
    assert error < 0.01 * rate
    assert_within(np.mean(np.asarray(state.round_trip_rate, np.float64)), rate, error)
    error = np.std(state.swap_accept_prob, axis=0) / np.sqrt(1_000)
    assert_within(np.mean(state.swap_accept_prob, axis=0), accept, error)


@pytest.mark.slow
def test_warmup_tunes_the_ladder_to_equal_rejection():
    """For Gaussians the rejection depends on the ratio of neighbours: the ladder is geometric."""
    betas = np.array([1.0, 0.95, 0.9, 0.2, 0.1])
    kernel = ns.ReplicaExchange(
        ExactDraws(gaussian), ns.InverseTemperatures(betas), adapt_ladder=True
    )
    mcmc = run(kernel, 10, num_warmup=1_000, num_samples=1_000, num_chains=4, fields=("rungs",))
    rungs = mcmc.get_extra_fields(group_by_chain=True)["rungs"]
    np.testing.assert_array_equal(rungs, rungs[:, :1] + 0 * rungs)  # fixed after warmup
    rungs = rungs[:, 0]
    np.testing.assert_array_equal(rungs[:, [0, -1]], np.float32([[1.0, 0.1]] * 4))
    geometric = 0.1 ** (np.arange(5) / 4)
    # The last round has 256 draws, 128 of each pair: 7% of a step is four standard errors.
    assert np.all(np.abs(np.log(rungs / geometric)) < 0.1)
    assert np.ptp([swap_rate(10, *pair) for pair in itertools.pairwise(betas)]) > 0.8
    assert np.ptp(np.mean(mcmc.last_state.swap_accept_prob, axis=0)) < 0.1


def modes(weight, score):
    """Two modes at -1.5 and 1.5, of sd 0.5; `score` makes them a site known by its score."""

    def energy(x):
        log_weights = jnp.log(jnp.array([weight, 1 - weight]))
        return -jax.nn.logsumexp(log_weights - 2 * (x[0] - jnp.array([-1.5, 1.5])) ** 2)

    def model():
        d = score(lambda x: -jax.grad(energy)(x)) if score else ns.EnergyDistribution(energy, 1)
        numpyro.sample("x", d)

    return model


def coarse(score):
    """Its own value, by two nodes from zero, is wrong by far."""
    return ns.ScoreDistribution(score, 1, quadrature=ns.LineIntegral(2))


def test_swaps_of_a_site_known_by_its_score_have_the_ratio_of_its_density_or_are_refused():
    ladder = ns.InverseTemperatures([1.0, 0.5])
    known, by_score = (
        [partial(potential_energy, ladder.wrap(model), (), {RUNG: rung}) for rung in ladder.rungs]
        for model in (modes(0.8, None), modes(0.8, coarse))
    )
    rows = np.indices((41, 41)).reshape(2, -1)
    x, y = jnp.linspace(-6.0, 6.0, 41)[rows, None]

    @partial(jax.jit, static_argnums=2)
    def ratios(x, y, rule):
        def of(potentials):
            def ratio(x, y):
                here, there = {"x": x}, {"x": y}
                own, is_known = share_of_log_ratio(here, there, *potentials, rule)
                other, _ = share_of_log_ratio(there, here, *potentials[::-1], rule)
                return own + other, is_known

            return jax.vmap(ratio)(x, y)

        return of(known)[0], *of(by_score)

    exact, found, is_known = ratios(x, y, SWAP_INTEGRAL)
    assert 0.5 < np.mean(is_known) < 1
    error = found - exact
    assert np.all(np.abs(error[is_known]) < SWAP_INTEGRAL.tolerance)
    assert np.std(error[is_known]) < 0.2
    assert np.all(found[~is_known] == -np.inf)
    _, back, is_known_back = ratios(y, x, SWAP_INTEGRAL)
    np.testing.assert_array_equal(is_known_back, is_known)
    np.testing.assert_allclose(back[is_known], -found[is_known], atol=1e-4)


@pytest.mark.slow
def test_the_share_of_a_mode_that_is_known_by_its_score():
    """0.816 +- 0.003 by the values of four nodes from zero."""
    kernel = ns.ReplicaExchange(
        ns.MALA(modes(0.8, coarse), num_steps=2), ns.InverseTemperatures([1.0, 0.4, 0.15])
    )
    mcmc = run(kernel, num_warmup=100, num_samples=500, num_chains=200)
    left = np.mean(mcmc.get_samples(group_by_chain=True)["x"][..., 0] < 0, axis=1)
    error = np.std(left) / np.sqrt(200)
    assert error < 0.005
    exact = 0.8 - 0.6 * special.ndtr(-3.0)
    assert_within(np.mean(left), exact, error)
    assert 0 < np.mean(mcmc.last_state.mean_unresolved) < 0.1
