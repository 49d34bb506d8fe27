# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A normaliser that varies with a latent site is missed, and the posterior refused."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.handlers import trace
from numpyro.infer import MCMC, NUTS, Gibbs

import numpyro_scores as ns
from numpyro_scores.infer._guards import check_observations

WAY_OUT = "log_normalizer"


def energy_with_latent_scale(log_normalizer):
    """x ~ N(0, t^2) in two dimensions with t ~ HalfNormal(1), as an energy, and one observation."""

    def model():
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        prior = ns.EnergyDistribution(
            lambda x: 0.5 * jnp.sum(x**2) / t**2, (2,), log_normalizer=log_normalizer(t)
        )
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=jnp.array([0.3, -0.2]))

    return model


def run(kernel, num_warmup=5, num_samples=5):
    mcmc = MCMC(kernel, num_warmup=num_warmup, num_samples=num_samples, progress_bar=False)
    mcmc.run(random.key(0))
    return mcmc.get_samples()


def missing(t):
    return None


def known(t):
    return 2 * jnp.log(t) + jnp.log(2 * jnp.pi)


PRIOR = ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), ns.VarianceExploding(0.02, 50.0), 3)


def measured(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=y)


SAMPLERS = {
    "TemperedSMC": lambda y: ns.TemperedSMC(measured, 10, progress_bar=False).run(random.key(0), y),
    "TwistedDiffusionSampler": lambda y: ns.TwistedDiffusionSampler(
        measured, 10, progress_bar=False
    ).run(random.key(0), y),
    "AnnealedLangevin": lambda y: ns.AnnealedLangevin(measured).init(
        random.key(0), 0, None, (y,), {}
    ),
    "ReplicaExchange": lambda y: ns.ReplicaExchange(
        ns.ULA(measured), ns.LikelihoodPowers([1.0, 0.5])
    ).init(random.key(0), 0, None, (y,), {}),
}


@pytest.mark.parametrize("sample", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize(
    "shape, effect",
    [((3, 1), r"broadcast to \(3, 3\)"), ((1,), r"broadcast to \(3,\)"), ((4,), "do not fit")],
)
def test_data_of_another_shape_than_their_distribution(sample, shape, effect):
    message = rf"Site 'y' is observed with shape \({shape[0]},.* has shape \(3,\), which {effect}"
    with pytest.raises(ValueError, match=message):
        sample(jnp.zeros(shape))


def test_data_that_fit():
    def model(loc, y, plate=10):
        with numpyro.plate("plate", plate):
            numpyro.factor("factor", 0.0)
            numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)
        numpyro.sample("z", dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2)), obs=jnp.ones((4, 2)))

    for loc, y in (0.0, 1.0), (jnp.zeros(10), jnp.ones(10)), (0.0, jnp.ones((3, 10))):
        check_observations(trace(model).get_trace(loc, y))


@pytest.mark.parametrize("kernel", [ns.MALA, ns.ULA])
def test_missing_normaliser_is_refused(kernel):
    with pytest.raises(ValueError, match=WAY_OUT) as error:
        run(kernel(energy_with_latent_scale(missing)))
    assert "'x'" in str(error.value) and "['t']" in str(error.value)


def test_missing_normaliser_is_refused_across_gibbs_blocks():
    model = energy_with_latent_scale(missing)
    with pytest.raises(ValueError, match=WAY_OUT):
        run(Gibbs([(ns.MALA(model), ["x"]), (NUTS(model), ["t"])]))


def test_observed_energy_with_latent_parameter_is_refused():
    def model():
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        likelihood = ns.EnergyDistribution(lambda y: 0.5 * jnp.sum(y**2) / t**2, (1,))
        with numpyro.plate("data", 3):
            numpyro.sample("y", likelihood, obs=jnp.ones((3, 1)))

    with pytest.raises(ValueError, match=WAY_OUT):
        run(ns.MALA(model))


def test_score_with_latent_parameter_is_refused():
    def model():
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        numpyro.sample("x", ns.ScoreDistribution(lambda x: -x / t**2, (2,)))

    with pytest.raises(ValueError, match="unnormalised"):
        run(ns.MALA(model))


def test_annealed_langevin_looks_too():
    def model():
        numpyro.sample(
            "x",
            ns.DiffusionPrior(
                lambda x, sigma: x / (1 + sigma**2), ns.VarianceExploding(0.1, 10.0), (2,)
            ),
        )
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        numpyro.sample("e", ns.EnergyDistribution(lambda e: 0.5 * jnp.sum(e**2) / t, (2,)))

    with pytest.raises(ValueError, match=WAY_OUT):
        run(ns.AnnealedLangevin(model, num_levels=3, num_steps=1), num_warmup=0)


def test_fixed_parameters_and_latents_downstream_pass():
    def model():
        x = numpyro.sample("x", ns.EnergyDistribution(lambda x: 0.5 * jnp.sum(x**2), (2,)))
        numpyro.sample("y", dist.Normal(jnp.sum(x), 1.0), obs=0.5)

    assert np.all(np.isfinite(run(ns.MALA(model))["x"]))


@pytest.mark.slow
def test_with_its_normaliser_the_posterior_of_the_scale_is_that_of_the_normal_model():
    def normal_model():
        t = numpyro.sample("t", dist.HalfNormal(1.0))
        x = numpyro.sample("x", dist.Normal(0.0, t).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=jnp.array([0.3, -0.2]))

    kernel = ns.MALA(energy_with_latent_scale(known))
    ours = run(kernel, num_warmup=300, num_samples=1_500)["t"]
    theirs = run(NUTS(normal_model), num_warmup=300, num_samples=1_500)["t"]
    errors = [
        np.std(t) / np.sqrt(numpyro.diagnostics.effective_sample_size(np.asarray(t)[None]))
        for t in (ours, theirs)
    ]
    assert abs(np.mean(ours) - np.mean(theirs)) < 4 * np.hypot(*errors)
