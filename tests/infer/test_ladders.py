# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Ladders: the potential energy on each rung is the formula's."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer.util import potential_energy

import numpyro_scores as ns
from numpyro_scores.infer.ladders import RUNG

pytestmark = pytest.mark.usefixtures("quick_compilation")

Y = np.array([0.3, -0.7, 1.1])
SCALE = 0.5
Z = {"x": jnp.array([0.4, -1.2, 0.9])}
PROCESS = ns.VarianceExploding(0.1, 5.0)


def log_normal_model():
    """In unconstrained space the prior is standard normal, Jacobian included."""
    with numpyro.plate("data", 3):
        x = numpyro.sample("x", dist.LogNormal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(jnp.log(x), SCALE), obs=jnp.asarray(Y))
    numpyro.factor("f", -jnp.sum(x))


def diffusion_model(sigma=None):
    prior = ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), PROCESS, 3, sigma=sigma)
    x = numpyro.sample("x", prior)
    numpyro.sample("y", dist.Normal(x, SCALE).to_event(1), obs=jnp.asarray(Y))


def potential(ladder, model, rung):
    return lambda z: potential_energy(ladder.wrap(model), (), {RUNG: rung}, z)


def log_normal(x, scale):
    return np.sum(-(x**2) / (2 * scale**2) - np.log(scale) - np.log(2 * np.pi) / 2)


@pytest.mark.parametrize("rung", [1.0, 0.3, 0.0])
@pytest.mark.parametrize("ladder", [ns.InverseTemperatures, ns.LikelihoodPowers])
def test_tempered_potential_energies_are_the_formulas(x64, ladder, rung):
    if ladder is ns.InverseTemperatures and rung == 0.0:
        rung = 0.01
    z = np.asarray(Z["x"], float)
    prior, likelihood = log_normal(z, 1.0), log_normal(Y - z, SCALE) - np.sum(np.exp(z))
    power = rung if ladder is ns.InverseTemperatures else 1.0
    energy = jax.jit(lambda rung: potential(ladder([1.0, 0.01]), log_normal_model, rung)({"x": z}))
    np.testing.assert_allclose(energy(rung), -power * prior - rung * likelihood, rtol=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_noise_levels_smooth_the_prior_and_leave_the_likelihood(x64, sigma):
    x = np.asarray(Z["x"], float)
    energy = potential(ns.NoiseLevels([0.1, 2.0]), diffusion_model, sigma)
    value, grad = jax.jit(jax.value_and_grad(energy))({"x": x})
    exact = -log_normal(x, np.sqrt(1 + sigma**2)) - log_normal(Y - x, SCALE)
    np.testing.assert_allclose(value, exact, atol=0.02)  # the value is an integral
    np.testing.assert_allclose(grad["x"], x / (1 + sigma**2) + (x - Y) / SCALE**2, rtol=1e-12)


@pytest.mark.parametrize(
    "ladder, model",
    [
        (ns.InverseTemperatures([1.0, 0.5]), log_normal_model),
        (ns.LikelihoodPowers([1.0, 0.0]), log_normal_model),
        (ns.NoiseLevels([0.1, 5.0]), diffusion_model),
        (ns.NoiseLevels([0.5, 5.0]), lambda: diffusion_model(0.5)),
    ],
    ids=["temperatures", "powers", "noise", "noise-of-another-prior"],
)
def test_the_first_rung_is_the_model(x64, ladder, model):
    exact = potential_energy(model, (), {}, Z)
    np.testing.assert_allclose(potential(ladder, model, ladder.rungs[0])(Z), exact, rtol=1e-12)
    trace = numpyro.handlers.trace(numpyro.handlers.seed(model, random.key(0))).get_trace()
    ladder.check_model(trace)


@pytest.mark.parametrize(
    "ladder", [ns.InverseTemperatures([1.0, 0.5, 0.1]), ns.NoiseLevels([0.1, 0.5, 3.0])], ids=repr
)
def test_tuned_rungs_have_equal_shares_of_the_rejection(x64, ladder):
    """Half of 0.5 + 0.3 lies at four fifths of the first interval, in the logarithm."""
    first, second, last = rungs = jnp.asarray(ladder.rungs)
    tuned = ladder.tuned(rungs, jnp.array([0.5, 0.3]))
    np.testing.assert_allclose(tuned, [first, first**0.2 * second**0.8, last], rtol=1e-12)


def test_likelihood_powers_are_tuned_down_to_zero(x64):
    rungs = jnp.array([1.0, 0.1, 0.0])
    tuned = ns.LikelihoodPowers(rungs).tuned(rungs, jnp.array([0.2, 0.6]))
    np.testing.assert_allclose(tuned, [1.0, 0.1 * 2 / 3, 0.0], rtol=1e-12)


def test_rungs_without_any_rejection_stay_where_they_are(x64):
    rungs = jnp.array([1.0, 0.5, 0.0])
    tuned = ns.LikelihoodPowers(rungs).tuned(rungs, jnp.zeros(2))
    np.testing.assert_allclose(tuned, rungs, rtol=1e-12)


@pytest.mark.parametrize("rungs", [[0.9, 0.5], [1.0, 1.0], [0.5, 1.0], [1.0, np.nan], [1.0, -0.1]])
@pytest.mark.parametrize("ladder", [ns.InverseTemperatures, ns.LikelihoodPowers])
def test_powers_start_at_the_target_and_decrease(ladder, rungs):
    with pytest.raises(ValueError, match=f"{ladder.__name__} must start at 1, the target"):
        ladder(rungs)


def test_inverse_temperatures_are_positive():
    with pytest.raises(ValueError, match=r"an end above 0; got \[1. 0.\]"):
        ns.InverseTemperatures([1.0, 0.0])


@pytest.mark.parametrize("rungs", [[0.5, 0.1], [0.0, 1.0], [0.1, np.inf], [0.1, 0.1]])
def test_noise_levels_increase(rungs):
    with pytest.raises(ValueError, match="NoiseLevels must be finite, positive and strictly incr"):
        ns.NoiseLevels(rungs)


@pytest.mark.parametrize("rungs", [[1.0], [[1.0, 0.5]], []])
@pytest.mark.parametrize("ladder", [ns.InverseTemperatures, ns.LikelihoodPowers, ns.NoiseLevels])
def test_a_ladder_has_two_rungs(ladder, rungs):
    with pytest.raises(ValueError, match="needs at least two rungs in one dimension"):
        ladder(rungs)


@pytest.mark.parametrize(
    "ladder, model, message",
    [
        (ns.NoiseLevels([0.2, 5.0]), diffusion_model, "must start at the noise level of the prior"),
        (ns.NoiseLevels([0.1, 9.0]), diffusion_model, "end at 9.0, but the process"),
        (ns.NoiseLevels([0.1, 5.0]), log_normal_model, "needs a noise-conditional prior"),
        (
            ns.LikelihoodPowers([1.0, 0.0]),
            lambda: numpyro.sample("x", dist.Normal()),
            "needs an observed site or a factor",
        ),
    ],
    ids=["start", "end", "no-prior", "no-data"],
)
def test_a_ladder_that_does_not_fit_the_model(ladder, model, message):
    kernel = ns.ReplicaExchange(ns.ULA(model), ladder)
    with pytest.raises(ValueError, match=message):
        kernel.init(random.key(0), 0, None, (), {})
