# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Replica exchange: swaps leave the product of the densities invariant."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_no_rejection, assert_within, mean_and_error
from infer.replicas import advance, flat, gaussian, run
from jax import random
from numpyro.infer import MCMC, NUTS, DiscreteGibbs
from numpyro.infer.util import potential_energy
from scipy import stats

import numpyro_scores as ns
from numpyro_scores.infer.ladders import RUNG
from numpyro_scores.infer.replica_exchange import _replica_axes

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize(
    "kernel",
    [ns.MALA, pytest.param(partial(NUTS, max_tree_depth=2), marks=pytest.mark.slow)],
    ids=["MALA", "NUTS"],
)
def test_swaps_leave_the_product_of_the_densities_invariant(kernel):
    """
    Exact draws on all rungs, then three draws: with 10,000 chains a distribution function that is
    off by 0.03 is found, and a correlation of 0.06 between the energies of two rungs.
    """
    n, betas = 10_000, jnp.array([1.0, 0.6, 0.3])
    kernel = ns.ReplicaExchange(kernel(gaussian, step_size=0.5), ns.InverseTemperatures(betas))
    state = jax.jit(lambda keys: kernel.init(keys, 0, None, (2,), {}))(
        random.split(random.key(0), n)
    )
    x = random.normal(random.key(1), (n, 3, 2)) / jnp.sqrt(betas)[:, None]
    x_grad = x * betas[:, None]
    kernel_states = state.kernel_states._replace(
        z={"x": x},
        z_grad=x_grad if isinstance(state.kernel_states.z_grad, jax.Array) else {"x": x_grad},
        potential_energy=betas * (jnp.sum(x**2, axis=-1) / 2 + jnp.log(2 * jnp.pi)),
    )
    last, states = advance(kernel, state._replace(kernel_states=kernel_states), 3, 2)
    assert np.all(np.mean(last.walkers != jnp.arange(3), axis=0) > 0.3)
    assert not np.allclose(last.kernel_states.z["x"], x)
    whitened = np.asarray(last.kernel_states.z["x"] * jnp.sqrt(betas)[:, None], np.float64)
    energy = np.sum(whitened**2, axis=-1)
    pvalues = {
        f"{name} {k}": stats.kstest(values[:, k], law.cdf).pvalue
        for k in range(3)
        for name, values, law in [
            ("x", whitened[..., 0], stats.norm),
            ("y", whitened[..., 1], stats.norm),
            ("energy", energy, stats.chi2(2)),
        ]
    }
    pvalues |= {f"energies {k}": stats.pearsonr(*energy[:, [k, k - 1]].T).pvalue for k in range(3)}
    assert_no_rejection(pvalues)


@pytest.mark.parametrize(
    "kernel",
    [
        ns.MALA,
        ns.ULA,
        pytest.param(NUTS, marks=pytest.mark.slow),
    ],
    ids=["MALA", "ULA", "NUTS"],
)
def test_what_a_kernel_remembers_of_its_position_and_density_is_that_after_the_swap(x64, kernel):
    betas = jnp.array([1.0, 0.9, 0.8, 0.7])
    kernel = ns.ReplicaExchange(
        kernel(gaussian, step_size=0.1), ns.InverseTemperatures(betas), adapt_ladder=True
    )
    _, states = advance(kernel, kernel.init(random.key(0), 20, None, (2,), {}), 20, 2)
    inner, x = states.kernel_states, states.kernel_states.z["x"]
    assert np.any(states.walkers[-1] != np.arange(4)) and np.any(states.rungs[-1] != betas)
    np.testing.assert_array_equal(states.z["x"], x[:, 0])
    grad = states.rungs[..., None] * x
    if hasattr(inner, "grad"):
        np.testing.assert_allclose(inner.grad, grad, rtol=1e-9)
    else:
        z_grad = inner.z_grad if isinstance(inner.z_grad, jax.Array) else inner.z_grad["x"]
        np.testing.assert_allclose(z_grad, grad, rtol=1e-9)
        exact = states.rungs * (np.sum(x**2, axis=-1) / 2 + np.log(2 * np.pi))
        np.testing.assert_allclose(inner.potential_energy, exact, rtol=1e-9)


def test_what_an_integrator_remembers_goes_with_the_position_and_the_step_size_stays(x64):
    """The noise of Leimkuhler-Matthews is correlated with the position that it led to."""
    kernel = ns.OverdampedLangevin(flat, step_size=0.1, integrator=ns.LeimkuhlerMatthews())
    kernel = ns.ReplicaExchange(kernel, ns.InverseTemperatures([1.0, 0.5]))
    state = kernel.init(random.key(0), 0, None, (), {})
    step_size = jnp.array([0.1, 0.2])
    kernel_states = state.kernel_states._replace(step_size=step_size)
    state = state._replace(kernel_states=kernel_states)
    axes = _replica_axes(kernel_states)
    *_, key_replicas = random.split(state.rng_key, 3)
    kernel_states = kernel_states._replace(rng_key=random.split(key_replicas, 2))
    move = jax.jit(jax.vmap(lambda s: kernel._kernel.sample(s, (), {RUNG: 1.0}), (axes,), axes))
    moved = move(kernel_states)
    swapped = jax.jit(lambda state: kernel.sample(state, (), {}))(state).kernel_states
    for after, before in [(swapped.z["x"], moved.z["x"]), (swapped.memory, moved.memory)]:
        np.testing.assert_allclose(after, before[::-1], rtol=1e-12)
    np.testing.assert_array_equal(swapped.step_size, step_size)


Y, NOISE = 0.7, 0.5
POSTERIOR_MEAN, POSTERIOR_VARIANCE = Y / (1 + NOISE**2), NOISE**2 / (1 + NOISE**2)


def log_normal_model(y):
    x = numpyro.sample("x", dist.LogNormal(0.0, 1.0))
    numpyro.deterministic("log_x", jnp.log(x))
    numpyro.sample("y", dist.Normal(jnp.log(x), NOISE), obs=y)


def diffusion_model(y):
    process = ns.VarianceExploding(0.01, 10.0)
    prior = ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), process, 1)
    x = numpyro.sample("log_x", prior)
    numpyro.sample("y", dist.Normal(x[0], NOISE), obs=y)


@pytest.mark.parametrize(
    "kernel, ladder",
    [
        (ns.ULA(log_normal_model, step_size=0.002), ns.LikelihoodPowers([1.0, 0.2, 0.0])),
        pytest.param(
            NUTS(log_normal_model),
            ns.InverseTemperatures([1.0, 0.4, 0.1]),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ns.MALA(diffusion_model), ns.NoiseLevels([0.01, 1.0, 5.0]), marks=pytest.mark.slow
        ),
    ],
    ids=["ULA-powers", "NUTS-temperatures", "MALA-noise"],
)
def test_posterior_of_a_conjugate_model(kernel, ladder):
    """Within four standard errors, some 4% of the standard deviation; ULA's bias is 0.5%."""
    kernel = ns.ReplicaExchange(kernel, ladder)
    mcmc = run(kernel, Y, num_warmup=150, num_samples=100, num_chains=100)
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["log_x"], np.float64).reshape(100, 100)
    for moment, exact in ((x, POSTERIOR_MEAN), ((x - POSTERIOR_MEAN) ** 2, POSTERIOR_VARIANCE)):
        mean, error = mean_and_error(moment)
        assert_within(mean, exact, error)
        assert error < 0.05 * np.sqrt(POSTERIOR_VARIANCE)
    assert np.all(np.mean(mcmc.last_state.swap_accept_prob, axis=0) > 0.3)
    assert np.mean(mcmc.last_state.round_trip_rate) > 0.05


POINTS, WEIGHTS = np.array([[5.0, 5.0], [-5.0, -5.0]]), np.array([0.8, 0.2])


def two_modes():
    def energy(x):
        return -jax.nn.logsumexp(jnp.log(WEIGHTS) - jnp.sum((x - POINTS) ** 2, -1) / 2)

    numpyro.sample("x", ns.EnergyDistribution(energy, 2))


@pytest.mark.slow
def test_share_of_the_large_mode():
    """Started near zero; without the ladder a chain stays in the mode that it fell into."""
    kernel = ns.ReplicaExchange(
        ns.MALA(two_modes, num_steps=5), ns.InverseTemperatures(0.45 ** np.arange(5))
    )
    fields = ("swap_accept_prob", "round_trip_rate", "kernel_states.diverging", "num_grad_evals")
    mcmc = run(kernel, num_warmup=150, num_samples=200, num_chains=300, fields=fields)
    x = np.asarray(mcmc.get_samples(group_by_chain=True)["x"], np.float64)
    share, error = mean_and_error(np.sum(x, axis=-1) > 0)
    assert error < 0.01
    assert_within(share, 0.8, error, num_errors=3)
    radius = np.abs(x) - 5  # each mode has unit covariance
    mean, error = mean_and_error(radius)
    assert_within(mean, 0.0, error)
    mean, error = mean_and_error(radius**2)
    assert_within(mean, 1.0, error)
    fields = mcmc.get_extra_fields(group_by_chain=True)
    assert fields["swap_accept_prob"].shape == (300, 200, 4)
    assert fields["kernel_states.diverging"].shape == (300, 200, 5)
    assert np.all(fields["num_grad_evals"] == 5 * 5)
    np.testing.assert_array_equal(fields["round_trip_rate"][:, -1], mcmc.last_state.round_trip_rate)
    chain = jax.tree.map(lambda x: x[0], mcmc.last_state)
    smallest = np.min(chain.swap_accept_prob)
    assert kernel.get_diagnostics_str(chain) == f"smallest swap prob={smallest:.2f}"


@pytest.mark.slow
def test_discrete_sites_by_the_discrete_kernel_of_numpyro():
    coupling = 2.0

    def model():
        with numpyro.plate("spins", 3):
            s = numpyro.sample("s", dist.Bernoulli(0.5))
        numpyro.factor("f", coupling * jnp.sum(s[:-1] == s[1:]) + 0.5 * s[0])

    states = np.stack(np.meshgrid(*[[0, 1]] * 3, indexing="ij"), -1).reshape(8, 3)
    weights = np.exp(coupling * (states[:, :-1] == states[:, 1:]).sum(1) + 0.5 * states[:, 0])
    kernel = ns.ReplicaExchange(DiscreteGibbs(model), ns.InverseTemperatures([1.0, 0.5, 0.2]))
    mcmc = run(kernel, num_warmup=20, num_samples=50, num_chains=200)
    s = np.asarray(mcmc.get_samples(group_by_chain=True)["s"])
    share, error = mean_and_error(np.all(s[:, :, None] == states, axis=-1))
    assert_within(share, weights / weights.sum(), error)


# ---- as a kernel of MCMC; what all kernels promise is in test_contract.py ----


def test_the_target_is_the_model_to_those_who_ask(x64):
    kernel = ns.ReplicaExchange(ns.MALA(log_normal_model), ns.LikelihoodPowers([1.0, 0.0]))
    z = {"x": jnp.array(0.3)}
    state = kernel.init(random.key(0), 0, z, (Y,), {})
    assert kernel.model is log_normal_model
    np.testing.assert_allclose(state.kernel_states.z["x"], [0.3, 0.3])
    energy = kernel.get_potential_fn((Y,), {})(z)
    np.testing.assert_allclose(energy, potential_energy(log_normal_model, (Y,), {}, z))
    np.testing.assert_allclose(kernel.get_constrain_fn((Y,))(z)["x"], np.exp(0.3))
    np.testing.assert_allclose(kernel.postprocess_fn((Y,), None)(z)["log_x"], 0.3)


@pytest.mark.parametrize("kernel", [ns.MALA, pytest.param(NUTS, marks=pytest.mark.slow)])
def test_runs_from_one_warmup_with_other_keys_share_no_numbers(kernel):
    """Two runs correlate as independent ones do, with NumPyro's kernels too."""
    kernel = ns.ReplicaExchange(kernel(flat), ns.InverseTemperatures([1.0, 0.999]))
    mcmc = MCMC(kernel, num_warmup=20, num_samples=200, progress_bar=False)
    mcmc.warmup(random.key(0))
    draws = []
    for seed in (1, 2):
        mcmc.run(random.key(seed))
        draws.append(np.ravel(mcmc.get_samples()["x"]))
    assert abs(np.corrcoef(*draws)[0, 1]) < 4 / np.sqrt(20)  # 20 of 200 draws, at the least
