# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Models whose posterior would be wrong are refused: a normaliser is missing, data do not fit."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, mean_and_error
from jax import random
from numpyro.distributions.transforms import AffineTransform
from numpyro.infer import MCMC, NUTS, Gibbs
from numpyro.infer.initialization import init_to_uniform, init_to_value

import numpyro_scores as ns
from numpyro_scores.infer.model import LatentSites

pytestmark = pytest.mark.usefixtures("quick_compilation")

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


# ---- data that do not have the shape of their distribution ----

PRIOR = ns.DiffusionPrior(lambda x, s: x / (1 + s**2), ns.VarianceExploding(0.1, 5.0), (4, 4))
OPERATOR = ns.inverse.Downsample((4, 4), 2)


def seen_through_an_operator(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(OPERATOR(x), 0.3).to_event(2), obs=y)


def without_event(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(OPERATOR(x), 0.3), obs=y)


@pytest.mark.parametrize(
    "kernel",
    [
        ns.AnnealedLangevin,
        ns.DAPS,
        ns.DiffusionPosteriorSampling,
        ns.MALA,
        ns.MomentMatching,
        lambda model: ns.SplitGibbs(model, coupling=0.1),
        lambda model: ns.ReplicaExchange(NUTS(model), ns.LikelihoodPowers([1.0, 0.0])),
        ns.TemperedSMC,
        ns.TwistedDiffusionSampler,
    ],
)
def test_an_operator_that_does_not_fit_the_data_is_told_by_each_sampler(kernel):
    sampler, y = kernel(seen_through_an_operator), jnp.ones((2, 2, 1))
    if not isinstance(sampler, ns.TemperedSMC | ns.TwistedDiffusionSampler):
        sampler = MCMC(sampler, num_warmup=0, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match=r"'y' has shape \(2, 2, 1\).*has \(2, 2\)"):
        sampler.run(random.key(0), y)


@pytest.mark.parametrize("shape", [(), (2,), (1, 2), (4,), (4, 4), (2, 2, 1), (3, 1, 2)])
def test_data_that_would_be_broadcast_are_refused(shape):
    def refused(model):
        with pytest.raises(ValueError, match="would broadcast them"):
            LatentSites.of(model, random.key(0), init_to_uniform, (jnp.ones(shape),), {})

    refused(seen_through_an_operator)
    if shape:
        refused(without_event)


def test_complex_data_are_refused_with_the_way_out():
    with pytest.raises(TypeError, match=r"complex.*jnp.stack\(\[y.real, y.imag\], axis=-1\)"):
        run(ns.MALA(lambda: seen_through_an_operator(jnp.ones((2, 2)) * 1j)))


def test_data_that_are_no_array_are_refused():
    with pytest.raises(TypeError, match="observation of site 'y' is of type list.*jnp.asarray"):
        run(ns.MALA(lambda: seen_through_an_operator([[1.0, 2.0], [3.0, 4.0]])))


@pytest.mark.parametrize("value", [1.0, np.ones(3)])
def test_a_start_that_would_be_broadcast_is_refused(value):
    start = init_to_value(values={"x": value})
    with pytest.raises(ValueError, match=r"'x' starts from a value of .*but its own is \(2,\)"):
        run(ns.MALA(lambda: numpyro.sample("x", dist.Normal(jnp.zeros(2))), init_strategy=start))


def test_what_numpyro_means_by_smaller_distributions_and_single_numbers_goes_on():
    def model(y):
        x = numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("independent", dist.Normal(x[:, None], 1), obs=y)
        numpyro.sample("repeated", dist.Normal(x, 1).to_event(1), obs=y.T)
        numpyro.sample("constraint", dist.Normal(x, 1), obs=0.0)
        with numpyro.plate("columns", 2):
            numpyro.sample("in a plate", dist.Normal(0, x[0] ** 2 + 1), obs=y[:, 0])
            numpyro.factor("factor", x[0])

    LatentSites.of(model, random.key(0), init_to_uniform, (jnp.ones((2, 3)),), {})


def gaussian_energy(precision):
    return lambda x: precision * jnp.sum(x**2) / 2


def moved_by(loc, precision):
    """A location family: the transform knows its Jacobian, the energy beneath not its constant."""
    return dist.TransformedDistribution(
        ns.EnergyDistribution(gaussian_energy(precision), 1), AffineTransform(loc, 2.0)
    )


def mixed(weights, precision, scale):
    components = [
        ns.EnergyDistribution(gaussian_energy(precision), 1),
        dist.Normal(jnp.zeros(1), scale).to_event(1),
    ]
    return dist.MixtureGeneral(dist.Categorical(weights), components)


HALVES = jnp.ones(2) / 2


@pytest.mark.parametrize(
    "of_theta, is_refused",
    [
        (lambda t: moved_by(0.0, t), True),
        (lambda t: moved_by(t, 1.0), False),
        (lambda t: mixed(HALVES, t, 1.0), True),
        (lambda t: mixed(HALVES, 1.0, t), False),
        (lambda t: mixed(jnp.stack([t, 1.0]) / (t + 1.0), 1.0, 1.0), True),
    ],
    ids=["transformed", "transform", "component", "other component", "weights"],
)
def test_normalisers_are_seen_beneath_transforms_and_within_mixtures(of_theta, is_refused):
    def model():
        theta = numpyro.sample("theta", dist.Gamma(2.0, 1.0))
        with numpyro.plate("n", 4):
            data = jnp.array([0.9, 1.3, 0.7, 1.1])[:, None]
            numpyro.sample("x", of_theta(theta), obs=data)

    kernel = ns.MALA(model)
    if is_refused:
        with pytest.raises(ValueError, match=r"depend on the latent sites \['theta'\]"):
            kernel.init(random.key(0), 0, None, (), {})
    else:
        kernel.init(random.key(0), 0, None, (), {})


def test_a_location_family_of_an_energy_has_its_posterior():
    """The energy of N(0, 1) moved by loc ~ N(0, 1) and doubled; four data."""
    data = jnp.array([0.9, 1.3, 0.7, 1.1])

    def model():
        loc = numpyro.sample("loc", dist.Normal(0.0, 1.0))
        with numpyro.plate("n", 4):
            numpyro.sample("x", moved_by(loc, 1.0), obs=data[:, None])

    mcmc = MCMC(
        ns.MALA(model),
        num_warmup=200,
        num_samples=500,
        num_chains=8,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0))
    mean, error = mean_and_error(mcmc.get_samples(group_by_chain=True)["loc"])
    assert_within(mean, data.mean() / 2, error)


@pytest.mark.parametrize("kernel", [ns.MALA, ns.ULA])
def test_states_that_there_are_not_are_no_data(kernel):
    """Bits where spins are wanted; entries behind a mask say nothing."""
    bits = jnp.array([[1, 0], [0, 1]])

    def model(x, seen=True):
        field = numpyro.sample("field", dist.Normal(0.0, 1.0))
        lattice = ns.Ising(
            (2, 2), coupling=0.0, field=field, log_normalizer=4 * jnp.logaddexp(field, -field)
        )
        numpyro.sample("x", lattice.mask(seen), obs=x)

    init = partial(kernel(model).init, random.key(0), 0, None)
    with pytest.raises(
        ValueError, match=r"outside of the support of Ising.*holds 0, 1.*2 \* bits - 1"
    ):
        init((bits,), {})
    init((2 * bits - 1,), {})
    init((bits, False), {})
