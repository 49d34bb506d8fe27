# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Sequential Monte Carlo: posteriors and evidences that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within
from infer.smc.conjugate import (
    DIFFUSION,
    NOISE,
    PROCESS,
    SCORE,
    Y,
    conjugate,
    conjugate_log_evidence,
    denoise,
    learned,
)
from jax import lax, random

import numpyro_scores as ns
from numpyro_scores.infer.model import FlatModel

# Much is compiled here, for little to be computed.
pytestmark = pytest.mark.usefixtures("quick_compilation")


def mixture(y):
    """Two modes of the prior far apart, of which the data speak of the sum of coordinates."""
    component = dist.Normal(jnp.array([[-6.0, 0.0], [0.0, 6.0], [6.0, 0.0]]), 1).to_event(1)
    x = numpyro.sample("x", dist.MixtureSameFamily(dist.Categorical(WEIGHTS), component))
    numpyro.sample("y", dist.Normal(jnp.sum(x), 1), obs=y)


WEIGHTS = jnp.array([0.6, 0.3, 0.1])


def mixture_logits(y):
    sums = jnp.array([-6.0, 6.0, 6.0])
    return jnp.log(WEIGHTS) + dist.Normal(sums, jnp.sqrt(3.0)).log_prob(y)


@pytest.fixture(scope="module")
def finished():
    smc = ns.TemperedSMC(conjugate, num_particles=2_000, progress_bar=False)
    smc.run(random.key(0), Y)
    return smc


def test_posterior_and_evidence_of_a_conjugate_model(finished):
    x = finished.get_samples()["x"]
    shrinkage = 1 / (1 + NOISE**2)
    sd = NOISE * np.sqrt(shrinkage)
    # A fifth of the particles have an ancestor of their own, and the moves have made them differ.
    assert_within(x.mean(axis=0), shrinkage * Y, sd / np.sqrt(400))
    assert_within(x.std(axis=0), sd, sd / np.sqrt(800))
    assert_within(finished.log_evidence, conjugate_log_evidence(Y), finished.log_evidence_error)
    assert 0.01 < finished.log_evidence_error < 0.1


def test_the_powers_rise_to_exactly_one_and_keep_the_effective_sample_size(finished):
    rounds = finished.rounds
    assert rounds.rung[-1] == 1 and np.all(np.diff(rounds.rung) > 0)
    # Twice as many draws are there for the first round to choose from.
    np.testing.assert_allclose(rounds.ess[0], 2_000, rtol=0.01)
    np.testing.assert_allclose(rounds.ess[1:-1], 0.9 * 2_000, rtol=0.01)
    assert rounds.ess[-1] >= 0.9 * 2_000
    np.testing.assert_allclose(rounds.log_increment.sum(), finished.log_evidence, rtol=1e-4)
    np.testing.assert_allclose(rounds.accept_prob, 0.574, atol=0.05)
    assert finished.num_grad_evals == 2 * len(rounds.rung) + 1


def test_a_second_run_compiles_nothing_and_the_same_key_gives_the_same_draws(finished):
    again = ns.TemperedSMC(conjugate, num_particles=2_000, progress_bar=True)
    again._programs = finished._programs  # a round a call, of the program that makes them all
    before = [program._cache_size() for program in again._programs[2]]
    again.run(random.key(0), Y)
    np.testing.assert_array_equal(again.get_samples()["x"], finished.get_samples()["x"])
    again.run(random.key(0), Y + 1)
    assert not np.any(again.get_samples()["x"] == finished.get_samples()["x"])
    assert before == [program._cache_size() for program in again._programs[2]]


def test_the_face_of_mcmc(finished, capsys):
    samples = finished.get_samples(group_by_chain=True)
    assert samples["x"].shape == (1, 2_000, 2)
    np.testing.assert_allclose(samples["total"], samples["x"].sum(axis=-1), rtol=1e-5)
    finished.print_summary()
    printed = capsys.readouterr().out
    assert "x[1]" in printed and "total" not in printed
    assert f"log_evidence: {finished.log_evidence:.4g}" in printed
    data = ns.to_inference_data(finished)
    assert data["posterior"]["x"].dims == ("chain", "draw", "x_dim_0")
    stats = data["sample_stats"]
    assert stats.attrs["log_evidence"] == finished.log_evidence
    np.testing.assert_array_equal(stats.attrs["round_rung"], finished.rounds.rung)
    x = samples["x"][0]
    log_likelihood = dist.Normal(x, NOISE).to_event(1).log_prob(Y)
    np.testing.assert_allclose(stats["log_likelihood"][0], log_likelihood, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(data["observed_data"]["y"], Y)


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True])
def test_a_prior_that_is_known_by_its_score_and_nuisance_sites(given):
    # The prior is N(0, I), by its score alone. The noise scale is inferred too.
    def model(y, prior):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        with numpyro.plate("repeats", len(y), dim=-2):
            with numpyro.plate("coordinates", 2, dim=-1):
                numpyro.sample("y", dist.Normal(x, noise), obs=y)

    y = 1.5 + 0.7 * random.normal(random.key(3), (10, 2))
    smc = ns.TemperedSMC(model, 2_000, num_prior_draws=2_000, progress_bar=False, num_steps=5)
    if given:
        draws = {"x": random.normal(random.key(4), (2_000, 2))}
        smc.run(random.key(0), y, SCORE, prior_draws=draws)
    else:
        smc.run(random.key(0), y, DIFFUSION)
    # By quadrature over the noise scale: x given it is Gaussian.
    noise = np.linspace(1e-3, 4, 4_000)[:, None]
    mean = np.asarray(y.mean(axis=0))
    spread = np.sum((np.asarray(y) - mean) ** 2)
    variance = noise[:, 0] ** 2
    # sum of log N(y_i; x, noise^2) = log N(mean; x, noise^2 / n) + the rest, without x.
    log_joint = (
        -spread / (2 * variance)
        - 9 * np.log(2 * np.pi * variance)
        - np.log(10.0)
        - np.sum(mean**2) / (2 * (1 + variance / 10))
        - np.log(2 * np.pi * (1 + variance / 10))
        + np.log(2 / np.sqrt(2 * np.pi))
        - variance / 2
    )
    p = np.exp(log_joint - log_joint.max())
    evidence = log_joint.max() + np.log(p.sum() * (noise[1, 0] - noise[0, 0]))
    p /= p.sum()
    noise_mean = p @ noise[:, 0]
    noise_sd = np.sqrt(p @ noise[:, 0] ** 2 - noise_mean**2)
    x_mean = mean * (p @ (1 / (1 + variance / 10)))
    samples = smc.get_samples()
    assert_within(samples["noise"].mean(), noise_mean, noise_sd / np.sqrt(400))
    assert_within(samples["noise"].std(), noise_sd, noise_sd / np.sqrt(400))
    assert_within(samples["x"].mean(axis=0), x_mean, samples["x"].std(axis=0) / np.sqrt(400))
    assert_within(smc.log_evidence, evidence, smc.log_evidence_error)


@pytest.mark.slow
def test_more_draws_of_the_prior_are_resampled_to_the_particles_by_the_first_round():
    smc = ns.TemperedSMC(mixture, 500, num_prior_draws=5_000, progress_bar=False, batch_size=200)
    smc.run(random.key(1), jnp.array(5.0))
    expected = np.asarray(jax.nn.softmax(mixture_logits(5.0)))
    share = np.mean(np.asarray(smc.get_samples()["x"])[:, 0] > 3)
    # The small mode has one draw in ten, and so 5,000 draws tell its weight as 500 do not.
    assert_within(share, expected[2], np.sqrt(expected[2] * (1 - expected[2]) / 500))
    truth = float(jax.nn.logsumexp(mixture_logits(5.0)))
    assert_within(smc.log_evidence, truth, smc.log_evidence_error)
    assert smc.log_evidence_error < 0.04 and smc.statistics["num_prior_draws"] == 5_000
    assert smc.get_extra_fields()["ancestor"].max() > 500


def dead(y):
    numpyro.sample("x", dist.Normal(0, 1))
    numpyro.factor("y", jnp.where(y > 0, -jnp.inf, jnp.nan))


def latent_denoiser(y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    denoiser = partial(lambda mean, x, sigma: mean + denoise(x - mean, sigma), mean)
    numpyro.sample("x", ns.DiffusionPrior(denoiser, PROCESS, 2))
    numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def half_dead(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.factor("y", jnp.where(x > 0, y, jnp.nan))


@pytest.mark.slow
def test_draws_whose_likelihood_is_not_a_number_are_counted_and_left_out():
    smc = ns.TemperedSMC(half_dead, 1_000, progress_bar=False)
    smc.run(random.key(0), 2.0)
    x = smc.get_samples()["x"]
    assert np.all(x > 0)
    assert_within(smc.statistics["num_dead_draws"], 1_000, np.sqrt(500))
    assert_within(smc.log_evidence, 2 + np.log(0.5), smc.log_evidence_error)
    assert_within(x.mean(), np.sqrt(2 / np.pi), 0.6 / np.sqrt(500))


def no_data():
    numpyro.sample("x", dist.Normal(0, 1))


def discrete(y):
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(k, 1), obs=y)


@pytest.mark.parametrize(
    "model, args, settings, message",
    [
        (conjugate, (Y,), {"num_particles": 0}, "num_particles must be a positive integer, got 0"),
        (conjugate, (Y,), {"num_prior_draws": 9}, "at least num_particles, 10, got 9"),
        (conjugate, (Y,), {"ess_fraction": 1.0}, r"ess_fraction must be in \(0, 1\), got 1.0"),
        (no_data, (), {}, r"needs an observed site or a factor, but the model has only \['x'\]"),
        (discrete, (0.0,), {}, r"latent sites \['k'\] are discrete"),
        (dead, (1.0,), {}, "zero or not a number at all 20 draws of the prior"),
        (dead, (-1.0,), {}, "zero or not a number at all 20 draws of the prior"),
        (learned, (Y, SCORE), {}, r"prior_draws"),
        (latent_denoiser, (0.0,), {}, r"parameters depend on the latent sites \['mean'\]"),
    ],
)
def test_errors_in_words(model, args, settings, message):
    with pytest.raises(ValueError, match=message):
        smc = ns.TemperedSMC(model, **{"num_particles": 10, "progress_bar": False} | settings)
        smc.run(random.key(0), *args)


def test_prior_draws_that_do_not_fit_and_results_that_are_not_there():
    smc = ns.TemperedSMC(conjugate, 10, progress_bar=False)
    with pytest.raises(ValueError, match="has no draws: call run"):
        smc.get_samples()
    for draws in ({"x": jnp.zeros((9, 2))}, {"z": jnp.zeros(20)}):
        with pytest.raises(ValueError, match=r"num_prior_draws = 20 values of latent sites"):
            smc.run(random.key(0), Y, prior_draws=draws)


def evidences(smc, model, y, num_runs):
    """Log evidences and their reported variances, of runs that are mapped."""

    def one(key):
        particles = FlatModel(model, (y,), {})
        state = smc._start(key, particles, {})
        state = lax.while_loop(lambda s: ~s.is_done, partial(smc._round, model=particles), state)
        return state.log_evidence, state.relative_variance

    keys = random.split(random.key(5), num_runs)
    values, variances = jax.jit(lambda keys: lax.map(one, keys, batch_size=20))(keys)
    return np.asarray(values, float), np.sqrt(np.asarray(variances, float))


@pytest.mark.slow
@pytest.mark.parametrize(
    "num_prior_draws, settings", [(500, {}), (5_000, {"ess_fraction": 0.5, "num_steps": 10})]
)
@pytest.mark.parametrize("model", [conjugate, mixture])
def test_the_reported_error_of_the_evidence_is_its_error(model, num_prior_draws, settings):
    smc = ns.TemperedSMC(model, 500, num_prior_draws=num_prior_draws, **settings)
    y = Y if model is conjugate else jnp.array(5.0)
    values, errors = evidences(smc, model, y, num_runs=100)
    truth = (
        conjugate_log_evidence(y)
        if model is conjugate
        else float(jax.nn.logsumexp(mixture_logits(y)))
    )
    assert np.sum(np.abs(values - truth) < 3 * errors) >= 95
    # Unbiased is the evidence, not its logarithm.
    assert_within(np.exp(values - truth).mean(), 1, values.std() / np.sqrt(100))
    # Of 100 runs the standard deviation is known to 7%.
    assert 0.7 < values.std() / errors.mean() < 1.4


@pytest.mark.slow
def test_simulation_based_calibration_of_a_posterior_with_several_modes():
    """The rank of the truth among draws of the posterior is uniform."""
    smc = ns.TemperedSMC(mixture, 500, num_prior_draws=5_000, progress_bar=False)
    prior = dist.MixtureSameFamily(
        dist.Categorical(WEIGHTS),
        dist.Normal(jnp.array([[-6.0, 0.0], [0.0, 6.0], [6.0, 0.0]]), 1).to_event(1),
    )
    key_truth, key_noise, key_ranks = random.split(random.key(6), 3)
    truth = jnp.asarray(prior.sample(key_truth, (200,)))
    data = truth.sum(axis=1) + random.normal(key_noise, (200,))
    draws = []
    for key, y in zip(random.split(random.key(7), 200), data, strict=True):
        smc.run(key, y)
        draws.append(np.asarray(smc.get_samples()["x"])[:63])
    found = ns.diagnostics.coverage(np.stack(draws), truth, key=key_ranks)
    assert np.min(found.p_value) > 0.001
    narrow = np.stack(draws) - 0.5 * (np.stack(draws) - np.median(draws, axis=1)[:, None])
    assert np.min(ns.diagnostics.coverage(narrow, truth, key=key_ranks).p_value) < 0.001
