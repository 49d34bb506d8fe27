# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Numbers that are not finite on the way stay where they arose."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax import random

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def cliff(edge):
    """Wells at 0 and 10; the gradient is not a number beyond `edge`, the energy neither."""

    def potential_fn(z):
        (x,) = z
        return jnp.minimum(x**2, (x - 10) ** 2) / 2 + 0 * jnp.sqrt(edge - x)

    return potential_fn


def histories(kernel, z, num_draws, *model_args):
    """Draws and `diverging`, shapes `(num_draws, num_chains, ...)`; equal keys for equal shapes."""
    keys = random.split(random.key(0), len(jax.tree.leaves(z)[0]))
    state = kernel.init(keys, 0, z, model_args, {})

    @jax.jit
    def draws(state):
        def body(state, _):
            state = kernel.sample(state, model_args, {})
            return state, (state.z, state.diverging)

        return jax.lax.scan(body, state, length=num_draws)[1]

    return jax.tree.map(np.asarray, draws(state))


@pytest.mark.parametrize(
    "kernel",
    [
        partial(ns.ULA, step_size=0.2, num_steps=3),
        partial(
            ns.OverdampedLangevin,
            step_size=0.2,
            num_steps=3,
            integrator=ns.LeimkuhlerMatthews(),
        ),
        partial(ns.MALA, step_size=0.2, num_steps=3, adapt_step_size=False),
        partial(ns.MALT, step_size=0.6, num_steps=3, adapt_step_size=False),
    ],
    ids=["ULA", "LM", "MALA", "MALT"],
)
def test_one_chain_at_the_edge_of_the_finite_numbers(kernel):
    z = jnp.array([[10.0], [0.0], [-1.0]])  # only the first can come near the edge
    x, diverging = histories(kernel(potential_fn=cliff(10.5)), z, 100)
    assert np.all(np.isfinite(x))
    assert np.all(x < 10.5)
    # It is counted, and the chain goes on after it.
    assert 5 < diverging[:, 0].sum() < 95
    assert np.ptp(x[50:, 0]) > 0.5
    # The others are as if there were no edge.
    elsewhere, none = histories(kernel(potential_fn=cliff(1e9)), z, 100)
    assert not np.any(diverging[:, 1:]) and not np.any(none)
    np.testing.assert_array_equal(x[:, 1:], elsewhere[:, 1:])


@pytest.mark.slow
def test_one_anneal_at_the_edge_of_the_finite_numbers():
    process = ns.VarianceExploding(0.1, 5.0)

    def at_edge(edge):
        prior = ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), process, 2)
        x = numpyro.sample("x", prior)
        numpyro.factor("edge", 0 * jnp.sum(jnp.sqrt(edge - x)))

    kernel = ns.AnnealedLangevin(at_edge, num_levels=10, num_steps=2)
    z = {"x": jnp.zeros((20, 2))}
    draws, diverging = histories(kernel, z, 3, 2.0)
    elsewhere, none = histories(kernel, z, 3, 1e9)
    assert np.all(np.isfinite(draws["x"]))
    assert 5 < diverging.sum() < 55 and not np.any(none)
    # Every draw is a new anneal: those that do not meet the edge are as if there were none.
    np.testing.assert_allclose(draws["x"][~diverging], elsewhere["x"][~diverging], rtol=1e-5)
    assert np.any(diverging[:-1] & ~diverging[1:])


def test_an_energy_of_minus_infinity_is_no_place_to_go():
    """Such a proposal is as little finite as NaN; once accepted, it would never be left."""

    def potential_fn(z):
        return jnp.where(z[0] > 1.0, -jnp.inf, jnp.sum(z**2) / 2)

    kernel = ns.MALA(potential_fn=potential_fn, step_size=0.5, adapt_step_size=False)
    x, diverging = histories(kernel, jnp.zeros((2, 1)), 30)
    assert np.all(x <= 1.0)
    assert np.any(diverging)
    assert np.all(np.ptp(x[15:], axis=0) > 0.1)


def test_a_proposal_of_infinite_energy_is_refused():
    """A hard wall, energy +inf beyond it: exact for the density that it cuts off."""

    def potential_fn(z):
        return jnp.where(jnp.abs(z[0]) > 1.0, jnp.inf, 0.0)

    kernel = ns.MALA(potential_fn=potential_fn, step_size=0.5, adapt_step_size=False)
    x, _ = histories(kernel, jnp.zeros((2_000, 1)), 3)
    assert np.all(np.abs(x) <= 1.0)
    # Uniform on [-1, 1]: E[x^2] = 1/3 with standard error sqrt(4/45/2000).
    assert abs(np.mean(x[-1] ** 2) - 1 / 3) < 4 * np.sqrt(4 / 45 / 2_000)
