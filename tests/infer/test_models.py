# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
NumPyro's handlers and wrappers under kernels of continuous sites and under particles: each model
has a Gaussian posterior that is known, or is refused in words.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, mean_and_error
from jax import random
from numpyro.distributions.transforms import AffineTransform
from numpyro.handlers import mask, scale
from numpyro.infer import MCMC

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def datum(x, y=1.0):
    numpyro.sample("y", dist.Normal(x, 1.0), obs=jnp.full(jnp.shape(x), y))


def scaled_prior():
    with scale(scale=4.0):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    datum(x)


def scaled_likelihood():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    with scale(scale=3.0):
        datum(x)


def masked_prior():
    with mask(mask=False):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    datum(x)


def masked_likelihood():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    with mask(mask=False):
        datum(x, 9.0)


def masked_data():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    seen = dist.Normal(x, 1.0).expand([3]).mask(np.array([True, False, True]))
    numpyro.sample("y", seen, obs=jnp.array([1.0, 9.0, 1.0]))


def expanded():
    datum(numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2])))


def of_events():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=jnp.ones(2))


def in_plates():
    with numpyro.plate("i", 2, dim=-2), numpyro.plate("j", 3):
        datum(numpyro.sample("x", dist.Normal(0.0, 1.0)))


def subsampled():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    with numpyro.plate("i", 4, subsample_size=2) as i:
        numpyro.sample("y", dist.Normal(x, 1.0), obs=jnp.arange(4.0)[i])


def transformed():
    prior = dist.TransformedDistribution(dist.Normal(0.0, 1.0), AffineTransform(1.0, 2.0))
    datum(numpyro.sample("x", prior))


def mixed():
    weights = dist.Categorical(jnp.array([0.3, 0.7]))
    datum(numpyro.sample("x", dist.MixtureSameFamily(weights, dist.Normal(jnp.zeros(2), 1.0))))


def with_parameter():
    datum(numpyro.sample("x", dist.Normal(numpyro.param("loc", jnp.array(0.0)), 1.0)))


def with_key():
    key = numpyro.prng_key()
    datum(numpyro.sample("x", dist.Normal(0.0, 1.0)) + 0 * random.normal(key))


def with_factor():
    x = numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("datum", -((x - 1.0) ** 2) / 2)


def guided():
    with ns.handlers.guided(gamma=3.0):
        datum(numpyro.sample("x", dist.Normal(0.0, 1.0)))


def of_energies():
    def energy(x):
        return jnp.sum(x**2) / 2

    x = numpyro.sample("x", ns.EnergyDistribution(energy, 1, sampler=ns.MALA))
    datum(x[0])


def of_scores():
    with numpyro.plate("i", 2):
        x = numpyro.sample("x", ns.ScoreDistribution(lambda x: -x, 1))
        datum(x[..., 0])


class Case(NamedTuple):
    """
    Mean and variance of every entry of `x`, what particles, or all, say in place of drawing, and
    the shape of `x`.
    """

    mean: float
    variance: float
    refused: str = ""
    by_chains: str = ""
    shape: tuple[int, ...] = ()


MODELS = {
    scaled_prior: Case(1 / 5, 1 / 5, "has the scale 4"),
    scaled_likelihood: Case(3 / 4, 1 / 4),
    masked_prior: Case(1.0, 1.0, "mask leaves out the density"),
    masked_likelihood: Case(0.0, 1.0),
    masked_data: Case(2 / 3, 1 / 3),
    expanded: Case(1 / 2, 1 / 2, shape=(2,)),
    of_events: Case(1 / 2, 1 / 2, shape=(2,)),
    in_plates: Case(1 / 2, 1 / 2, shape=(2, 3)),
    subsampled: Case(np.nan, np.nan, "subsample_size", "do not support subsampling"),
    transformed: Case(1.0, 4 / 5),
    mixed: Case(1 / 2, 1 / 2),
    with_parameter: Case(1 / 2, 1 / 2),
    with_key: Case(1 / 2, 1 / 2),
    with_factor: Case(1 / 2, 1 / 2),
    guided: Case(3 / 4, 1 / 4),
    of_scores: Case(1 / 2, 1 / 2, "cannot be drawn from", shape=(2, 1)),
    of_energies: Case(1 / 2, 1 / 2, shape=(1,)),
}


def exchanged(model):
    return ns.ReplicaExchange(ns.MALA(model), ns.InverseTemperatures([1.0, 0.5]))


def unbiased(model):
    """Without a Metropolis test, and exact where the posterior is Gaussian."""
    return ns.OverdampedLangevin(
        model, step_size=0.1, num_steps=40, integrator=ns.LeimkuhlerMatthews()
    )


def slow(kernel):
    return pytest.param(kernel, marks=pytest.mark.slow)


def draws_of(kernel):
    mcmc = MCMC(
        kernel,
        num_warmup=200,
        num_samples=300,
        num_chains=16,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0))
    return np.asarray(mcmc.get_samples(group_by_chain=True)["x"])


def assert_moments(x, case):
    """Of draws by chain; entries beyond these two axes are alike."""
    x = x.reshape(*x.shape[:2], -1)
    for entry in range(x.shape[-1]):
        deviation = x[..., entry] - case.mean
        for power, expected in [(1, 0.0), (2, case.variance)]:
            found, error = mean_and_error(deviation**power)
            assert_within(found, expected, error, num_errors=5)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_chain_starts_with_the_potential_energy_of_the_posterior(model):
    """And with its gradient: what a kernel does next depends on nothing else of the model."""
    case, points = MODELS[model], np.linspace(-2.0, 3.0, 6)
    kernel = ns.MALA(model)
    keys = random.split(random.key(0), len(points))
    if case.by_chains:
        with pytest.raises(ValueError, match=case.by_chains):
            kernel.init(keys, 0, None, (), {})
        return
    x = points.reshape(-1, *(1,) * len(case.shape)) * np.ones(case.shape)
    state = kernel.init(keys, 0, {"x": jnp.asarray(x)}, (), {})
    gradient = (x - case.mean) / case.variance
    np.testing.assert_allclose(state.z_grad, gradient.reshape(len(x), -1), rtol=1e-4, atol=1e-5)
    if model is not of_scores:  # whose value is not asked for
        energy = np.sum((x - case.mean).reshape(len(x), -1) ** 2, axis=1) / (2 * case.variance)
        found = state.potential_energy - state.potential_energy[0]
        np.testing.assert_allclose(found, energy - energy[0], rtol=1e-4, atol=1e-4)


CHAINS = [
    pytest.param(kernel, model, marks=() if quick else pytest.mark.slow)
    for kernel in (ns.MALA, ns.MALT, exchanged, unbiased)
    for model in MODELS
    for quick in [kernel is ns.MALA and model in (in_plates, of_scores)]
]


@pytest.mark.parametrize("kernel, model", CHAINS, ids=lambda f: f.__name__)
def test_a_chain_has_the_posterior_of_the_model(kernel, model):
    case = MODELS[model]
    if case.by_chains:
        with pytest.raises(ValueError, match=case.by_chains):
            draws_of(kernel(model))
        return
    assert_moments(draws_of(kernel(model)), case)


# What is refused costs nothing; of what is drawn some in each run of the tests.
PARTICLES = [
    model if case.refused or model in (scaled_likelihood, with_key) else slow(model)
    for model, case in MODELS.items()
]


@pytest.mark.parametrize("model", PARTICLES, ids=lambda model: model.__name__)
def test_particles_have_the_posterior_of_the_model_or_refuse_it(model):
    case = MODELS[model]
    sampler = ns.TemperedSMC(model, 2_000, progress_bar=False)
    if case.refused:
        with pytest.raises(ValueError, match=case.refused):
            sampler.run(random.key(0))
        return
    sampler.run(random.key(0))
    x = np.asarray(sampler.get_samples()["x"])
    # Particles share ancestors: the error of their mean is some times that of independent draws.
    assert_within(x.mean(axis=0), case.mean, 3 * np.sqrt(case.variance / len(x)))
    assert_within(x.var(axis=0), case.variance, 3 * case.variance * np.sqrt(2 / len(x)))


@pytest.mark.parametrize("kind", ["typed", slow("raw"), slow("rbg")])
@pytest.mark.parametrize(
    "kernel",
    [ns.MALA, slow(ns.MALT), ns.ULA, slow(ns.UnderdampedLangevin), slow(exchanged), slow(unbiased)],
)
def test_a_chain_runs_under_the_switches_of_jax_and_with_any_key(kernel, kind):
    """Ranks must agree, no NaN may be made inside of a program, and keys are of any kind."""
    if kind == "raw":
        key = random.PRNGKey(0)
    else:
        key = random.key(0, impl="rbg" if kind == "rbg" else None)
    mcmc = MCMC(
        kernel(in_plates),
        num_warmup=10,
        num_samples=5,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        mcmc.run(key)
    assert np.all(np.isfinite(mcmc.get_samples()["x"]))
