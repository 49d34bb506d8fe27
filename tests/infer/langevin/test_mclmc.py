# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""MCLMC: exact for short steps, and in the bias that was asked for with those of its warmup."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.langevin.bent_target import assert_right_moments, bent
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.infer.langevin.decoherence import autocorrelation_time
from numpyro_scores.infer.langevin.energy_error import Calibration, Tuning
from numpyro_scores.infer.langevin.isokinetic import flight
from numpyro_scores.infer.langevin.targets import Target, init
from numpyro_scores.integrators import LEAPFROG, MINIMAL_NORM, random_direction

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("splitting", [LEAPFROG, MINIMAL_NORM], ids=["leapfrog", "minimal norm"])
def test_short_steps_leave_the_target_as_it_is(x64, splitting):
    root = jnp.array([[1.2, 0.5], [0.0, 0.6]])
    target = Target(bent)
    step_size = 0.1 if splitting is LEAPFROG else 0.25

    def draw(carry, key):
        new = flight(key, *carry, target, step_size, 1.0, root, splitting, 4)
        return new[:2], (new.point.x, new.energy_variance)

    def chain(key):
        start = init(jnp.zeros(2), target), random_direction(key, (2,), float)
        return jax.lax.scan(draw, start, random.split(key, 800))[1]

    x, energy_variance = jax.jit(jax.vmap(chain))(random.split(KEY, 256))
    assert np.mean(energy_variance) < 1e-3
    assert_right_moments(np.asarray(x[:, 100:]))


def test_beyond_the_finite_numbers_the_direction_is_a_new_one():
    target = Target(lambda x: jnp.where(x[0] < 1, x @ x / 2, jnp.nan))
    start = init(jnp.array([0.9, 0.0, 0.0]), target), jnp.array([1.0, 0.0, 0.0])
    ends = jax.vmap(lambda key: flight(key, *start, target, 0.2, 1.0))(random.split(KEY, 200))
    assert np.all(np.isnan(ends.energy_variance))
    np.testing.assert_allclose(np.linalg.norm(ends.direction, axis=-1), 1, rtol=1e-5)
    assert np.abs(np.mean(ends.direction, axis=0)).max() < 4 / np.sqrt(3 * 200)


def model(scale):
    numpyro.sample("x", dist.Normal(0, scale).to_event(1))


@pytest.mark.parametrize(("splitting", "desired_bias"), [(MINIMAL_NORM, 0.02), slow(LEAPFROG, 0.1)])
def test_warmup_finds_the_step_of_the_bias_that_is_asked_for(splitting, desired_bias):
    scale = jnp.exp(jnp.linspace(-2, 2, 200))
    kernel = ns.MCLMC(model, desired_bias=desired_bias, splitting=splitting, num_steps=5)
    mcmc = MCMC(
        kernel,
        num_warmup=400,
        num_samples=250,
        num_chains=8,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(KEY, scale, extra_fields=("diverging", "num_grad_evals"))
    x = np.asarray(mcmc.get_samples()["x"] / scale)
    sign = -1 if splitting is MINIMAL_NORM else 1
    assert 0.5 < sign * (np.mean(x**2) - 1) / desired_bias < 2
    # In each direction, too: the metric makes them alike.
    assert np.abs(np.mean(x**2, axis=0) - 1).max() < 2 * desired_bias + 4 * np.sqrt(2 / 1_000)
    state = mcmc.last_state
    np.testing.assert_allclose(state.variance_error, sign * desired_bias, rtol=0.15)
    assert np.all(state.decoherence_length > 0.5) and np.all(state.decoherence_length < 8)
    fields = mcmc.get_extra_fields()
    assert not np.any(fields["diverging"])
    np.testing.assert_array_equal(fields["num_grad_evals"], 5 * len(splitting.moves))


def test_the_energy_error_of_an_oscillator_tells_its_bias():
    for frequency in (0.1, 0.5, 1.5):
        bias, variance = LEAPFROG.of_oscillator(frequency)
        exact = frequency**2 / 4 / (1 - frequency**2 / 4)
        np.testing.assert_allclose(bias, exact, rtol=1e-9)
        np.testing.assert_allclose(variance, 4 * exact**3 / (1 + exact) ** 2, rtol=1e-9)
    assert np.isnan(LEAPFROG.of_oscillator(2.1)).all()
    # A step of the minimal norm is of second order too, with an error that is far smaller.
    small, half = (MINIMAL_NORM.of_oscillator(frequency)[0] for frequency in (0.1, 0.05))
    np.testing.assert_allclose(small / half, 4, rtol=0.05)
    assert abs(small) < 0.02 * LEAPFROG.of_oscillator(0.1)[0]
    for splitting, sign in ((LEAPFROG, 1), (MINIMAL_NORM, -1)):
        calibration = Calibration(splitting, 0.04)
        bias, variance = splitting.of_oscillator(calibration.step_size)
        np.testing.assert_allclose(bias, sign * 0.04, rtol=0.03)
        np.testing.assert_allclose(variance, calibration.energy_variance, rtol=1e-6)
        np.testing.assert_allclose(calibration.bias(jnp.array(variance)), bias, rtol=0.02)
        # Far beyond it says so, and no number.
        assert sign * calibration.bias(jnp.array(1e6)) > 0.5


def test_the_step_follows_the_sixth_root_and_is_halved_where_it_is_no_number():
    tuning, step_size = Tuning.start(jnp.zeros(())), jnp.array(0.1)
    for _ in range(20):
        tuning, step_size = tuning.after(step_size, 3.0 * step_size**6, True, 1e-3)
    np.testing.assert_allclose(step_size, (1e-3 / 3) ** (1 / 6), rtol=1e-5)
    _, new = Tuning.start(jnp.zeros(())).after(step_size, jnp.nan, False, 1e-3)
    np.testing.assert_allclose(new, step_size / 2, rtol=1e-5)


def test_autocorrelation_time_of_an_autoregression():
    rho = jnp.array([0.0, 0.5, 0.8])

    def step(x, noise):
        x = rho * x + jnp.sqrt(1 - rho**2) * noise
        return x, x

    noise = random.normal(KEY, (20_000, 3))
    _, x = jax.lax.scan(step, jnp.zeros(3), noise)
    for k, exact in enumerate((1 + rho) / (1 - rho)):
        np.testing.assert_allclose(autocorrelation_time(x[:, k : k + 1]), exact, rtol=0.1)
    np.testing.assert_allclose(autocorrelation_time(x), np.mean((1 + rho) / (1 - rho)), rtol=0.1)


def test_a_prior_known_by_its_score_has_the_right_variance():
    prior = ns.ScoreDistribution(lambda x: -x / 4, event_shape=(20,))
    mcmc = MCMC(
        ns.MCLMC(lambda: numpyro.sample("x", prior), num_steps=4),
        num_warmup=300,
        num_samples=200,
        num_chains=8,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(KEY, extra_fields=("num_grad_evals",))
    # Two gradients a step, five scores along each of their segments, and one at the start.
    np.testing.assert_array_equal(mcmc.get_extra_fields()["num_grad_evals"], 4 * 2 * 6 + 1)
    np.testing.assert_allclose(np.var(mcmc.get_samples()["x"]), 4, rtol=0.05)
    np.testing.assert_allclose(mcmc.last_state.variance_error, -0.01, rtol=0.3)
    (line,) = (line for line in ns.diagnose(mcmc).lines if line.title == "step-size bias")
    assert line.status == "fine" and "in narrow directions" in line.text


def test_what_it_cannot_do_is_told():
    with pytest.raises(ValueError, match="at least two unconstrained numbers.*NUTS"):
        kernel = ns.MCLMC(lambda: numpyro.sample("x", dist.Normal()))
        MCMC(kernel, num_warmup=1, num_samples=1, progress_bar=False).run(KEY)
    for arguments in (
        {"desired_bias": 0.0},
        {"desired_bias": 0.2},
        {"splitting": "leapfrog"},
        {"step_size": -1.0},
    ):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            ns.MCLMC(model, **arguments)
