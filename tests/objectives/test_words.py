# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What an objective can't use is told: what came, what was wanted, what to do."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax import random
from numpyro.distributions import constraints
from scipy.special import expit

import numpyro_scores as ns
from numpyro_scores.objectives import (
    AdversarialLikelihood,
    AdversarialPair,
    ConditionalNoiseContrastiveEstimation,
    ContrastiveDivergence,
    DenoisingScoreMatching,
    EnergyDiscrepancy,
    FiniteDifferenceScoreMatching,
    GenerativeAdversarial,
    ImplicitScoreMatching,
    NoiseContrastiveEstimation,
    PseudoLikelihood,
    RatioMatching,
    SlicedScoreMatching,
)
from numpyro_scores.processes import VarianceExploding

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
X = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
PROCESS = DenoisingScoreMatching(VarianceExploding(0.02, 10.0))
ULA = partial(ns.ULA, step_size=0.01, num_steps=2)
CONTINUOUS = [
    ImplicitScoreMatching(),
    SlicedScoreMatching(),
    FiniteDifferenceScoreMatching(),
    DenoisingScoreMatching(0.1),
    ConditionalNoiseContrastiveEstimation(0.5),
    EnergyDiscrepancy(0.5),
    ContrastiveDivergence(sampler=ULA),
]
DISCRETE = [PseudoLikelihood(), RatioMatching()]


def kind(objective):
    return type(objective).__name__


def call(objective, module, x=X):
    return objective(module, x, key=KEY)


def denoiser(x, sigma):
    return x / (1 + sigma**2)


def positive(**options):
    return ns.EnergyDistribution(jnp.sum, 2, support=constraints.positive, **options)


@pytest.mark.parametrize("objective", CONTINUOUS, ids=kind)
def test_a_distribution_is_an_energy_and_a_score(objective):
    d = ns.EnergyDistribution(lambda x: jnp.sum(x**2), 2)
    plain = dist.Normal(np.zeros(2), 0.5**0.5).to_event(1)
    losses = jax.jit(lambda x: [call(objective, module, x) for module in (d, d.energy, plain)])
    of_distribution, of_energy, of_numpyros = losses(X)
    np.testing.assert_allclose(of_distribution, of_energy, rtol=1e-6)
    np.testing.assert_allclose(of_numpyros, of_distribution, rtol=1e-3)


@pytest.mark.parametrize("objective", CONTINUOUS[:4], ids=kind)
def test_a_diffusion_prior_is_its_score(objective):
    prior = ns.DiffusionPrior(denoiser, VarianceExploding(0.02, 10.0), 2)
    losses = jax.jit(lambda x: [call(objective, module, x) for module in (prior, prior.score)])
    np.testing.assert_allclose(*losses(X), rtol=1e-6)


def test_a_diffusion_prior_is_its_denoiser_over_a_process():
    prior = ns.DiffusionPrior(denoiser, VarianceExploding(0.02, 10.0), 2)
    assert call(PROCESS, prior) == call(PROCESS, denoiser)


@pytest.mark.parametrize("objective", [*CONTINUOUS, PROCESS, *DISCRETE], ids=kind)
def test_a_class_is_no_module(objective):
    with pytest.raises(TypeError, match=r"got the class MLPEnergy itself: make one, MLPEnergy\("):
        call(objective, ns.nn.MLPEnergy, np.sign(X))


@pytest.mark.parametrize("objective", CONTINUOUS, ids=kind)
def test_a_denoiser_is_told_from_an_energy(objective):
    for module in (denoiser, ns.nn.MLPDenoiser((2,), rngs=nnx.Rngs(0))):
        with pytest.raises(ValueError, match=r"a denoiser, .* on DenoisingScoreMatching\(process"):
            call(objective, module)


def test_an_energy_is_told_from_a_denoiser():
    energy = ns.nn.MLPEnergy((2,), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"MLPEnergy can't be called with two arguments.*\(sigma"):
        call(PROCESS, energy)
    with pytest.raises(ValueError, match="EnergyDistribution has no denoiser"):
        call(PROCESS, positive())


@pytest.mark.parametrize("objective", CONTINUOUS, ids=kind)
def test_points_between_states_are_none(objective):
    spins = ns.Ising((2, 3), 0.4)
    with pytest.raises(ValueError, match="Ising is a distribution of discrete points.*Pseudo"):
        call(objective, spins, np.ones((4, 2, 3)))


@pytest.mark.parametrize("objective", DISCRETE, ids=kind)
def test_continuous_points_have_no_states(objective):
    with pytest.raises(ValueError, match="EnergyDistribution is a distribution of continuous"):
        call(objective, positive())


@pytest.mark.parametrize("objective", [*DISCRETE, ContrastiveDivergence()], ids=kind)
def test_spins_of_zero_and_one_are_told(objective):
    with pytest.raises(ValueError, match=r"in the support of Ising, .*\(-1, 1\).* 4 of 4 points"):
        call(objective, ns.Ising((2, 3), 0.4), np.zeros((4, 2, 3)))


@pytest.mark.parametrize("objective", [*DISCRETE, *CONTINUOUS[:1]], ids=kind)
def test_a_normaliser_that_would_not_follow_is_refused(objective):
    if objective in DISCRETE:
        module, x = ns.Ising((2, 3), 0.4, log_normalizer=jnp.zeros(())), np.ones((4, 2, 3))
    else:
        module, x = positive(log_normalizer=jnp.zeros(())), np.exp(X)
    with pytest.raises(ValueError, match="must not have a log_normalizer here"):
        call(objective, module, x)


@pytest.mark.parametrize("log_normalizer", [None, 0.3])
def test_normalisers_are_seen_beneath_wrappers(log_normalizer):
    d = ns.EnergyDistribution(jnp.sum, 2, log_normalizer=log_normalizer)
    shifted = dist.TransformedDistribution(d, dist.transforms.AffineTransform(0.5, 2.0))
    noise = NoiseContrastiveEstimation(dist.Normal(0, 1).expand([2]).to_event(1))
    wide = noise if log_normalizer is None else ImplicitScoreMatching()
    narrow = ImplicitScoreMatching() if log_normalizer is None else noise
    assert np.isfinite(call(narrow, shifted))
    with pytest.raises(ValueError, match="EnergyDistribution has no normaliser|must not have a"):
        call(wide, shifted)
    lone = ns.ScoreDistribution(jnp.negative, 2)
    with pytest.raises(ValueError, match="ScoreDistribution has no normaliser that could be"):
        call(noise, lone)


@pytest.mark.parametrize("objective", CONTINUOUS, ids=kind)
def test_points_outside_of_a_support_or_on_its_border_are_told(objective):
    with pytest.raises(ValueError, match="in the support of EnergyDistribution, .*of 6 points"):
        call(objective, positive(), X)
    one_hot = ns.EnergyDistribution(jnp.sum, 2, support=constraints.simplex)
    with pytest.raises(ValueError, match="6 of 6 points lie on the border"):
        call(objective, one_hot, np.eye(2)[[0, 1, 0, 1, 0, 0]])
    closed = ns.EnergyDistribution(jnp.sum, 2, support=constraints.unit_interval)
    with pytest.raises(ValueError, match="1 of 6 points lie on the border.*: move them inside"):
        call(objective, closed, np.where(np.arange(12).reshape(6, 2) == 5, 0, expit(X)))


@pytest.mark.parametrize("objective", CONTINUOUS, ids=kind)
def test_a_support_without_coordinates_is_refused(objective):
    sphere = ns.EnergyDistribution(jnp.sum, 2, support=constraints.sphere)
    points = X / np.linalg.norm(X, axis=1, keepdims=True)
    with pytest.raises(ValueError, match="no map from unconstrained coordinates onto the support"):
        call(objective, sphere, points)


@pytest.mark.parametrize("objective", [*CONTINUOUS, *DISCRETE], ids=kind)
def test_a_distribution_over_other_points_is_told(objective):
    module = ns.Ising((2, 3), 0.4) if objective in DISCRETE else positive()
    with pytest.raises(ValueError, match=r"event shape of the points, \(5,\), got .*\((2,|2, 3)\)"):
        call(objective, module, np.ones((4, 5)))


NORMAL_NOISE = NoiseContrastiveEstimation(dist.Normal(0, 2).expand([2]).to_event(1))


@pytest.mark.parametrize("objective", [*CONTINUOUS, NORMAL_NOISE, PROCESS], ids=kind)
def test_data_of_other_kinds(objective):
    module = denoiser if objective is PROCESS else lambda x: jnp.sum(x**2)
    for x, message in [
        ({"x": X}, "x must be one array of points, .* got dict"),
        (np.array([["a", "b"]]), "x must be one array of points"),
        (X + 1j, "x must be of real numbers, got complex"),
    ]:
        with pytest.raises(TypeError, match=message):
            call(objective, module, x)
    integers = np.round(3 * X).astype(int)
    assert call(objective, module, integers) == call(objective, module, integers.tolist())
    assert call(objective, module, integers) == call(objective, module, integers.astype("float32"))


@dataclass(frozen=True)
class Levels:
    """A process of one's own."""

    at: Any

    def noise_level(self, t):
        return self.at(t)


@pytest.mark.parametrize(
    "level",
    [
        lambda t: jnp.tan(jnp.pi * t / 2),
        lambda t: t,
        lambda t: 0.01 + t / (1 - t),
        lambda t: t - 0.5,
        lambda t: 1 + jnp.tan(np.pi / 2 * t * (1 - 1e-9)),
    ],
)
def test_levels_that_are_zero_infinite_or_negative_are_told(level):
    with pytest.raises(ValueError, match="of a process must be finite and positive, but those of"):
        DenoisingScoreMatching(Levels(level))


def test_the_noise_must_cover_the_data():
    half = dist.HalfNormal(1.0).expand([2]).to_event(1)
    objective = NoiseContrastiveEstimation(half)
    with pytest.raises(ValueError, match="in the support of Independent, .* of 6 points are not"):
        call(objective, lambda x: jnp.sum(x**2))
    with numpyro.validation_enabled(False):
        assert jax.jit(lambda x: call(objective, lambda x: jnp.sum(x**2), x))(X) == jnp.inf
    ising = ns.Ising((2, 3), 0.4, log_normalizer=jnp.zeros(()))
    noise = dist.Normal(0, 1).expand([2, 3]).to_event(2)
    with pytest.raises(ValueError, match="is discrete, but the noise Independent is continuous"):
        call(NoiseContrastiveEstimation(noise), ising, np.ones((4, 2, 3)))


def test_an_energy_is_infinite_outside_of_its_support_whatever_it_says():
    """The derivative of `log x` is none at the noise that is negative."""
    log_rate = jnp.array(0.3)

    def loss(log_rate):
        d = ns.EnergyDistribution(
            lambda x: jnp.exp(log_rate) * jnp.sum(x) - jnp.sum(jnp.log(x)),
            2,
            support=constraints.positive,
            log_normalizer=0.0,
        )
        noise = dist.Normal(0, 3).expand([2]).to_event(1)
        return call(NoiseContrastiveEstimation(noise), d, np.exp(X))

    with jax.debug_nans(True):
        value, slope = jax.jit(jax.value_and_grad(loss))(log_rate)
    assert np.isfinite(value) and np.isfinite(slope) and slope != 0


@pytest.mark.parametrize(
    "objective, critic, message",
    [
        (GenerativeAdversarial(2), positive(), "is a logit, .* AdversarialLikelihood"),
        (AdversarialLikelihood(), positive(), "makes points of all real numbers, but Energy"),
        (
            AdversarialLikelihood(),
            ns.EnergyDistribution(jnp.sum, 2, log_normalizer=0.0),
            "must not have a log_normalizer here",
        ),
    ],
)
def test_critics_that_are_distributions(objective, critic, message):
    with pytest.raises(ValueError, match=message):
        call(objective, AdversarialPair(jnp.sin, critic), np.exp(X))


def test_a_weight_of_ones_own_is_asked_for_the_times():
    @dataclass(frozen=True)
    class InTime:
        def at_times(self, process, t, denoiser):
            return process.noise_level(t) * t

        def __call__(self, sigma):
            raise AssertionError("asked for a level")

    process = VarianceExploding(0.1, 2.0)

    def same(sigma):
        return sigma * process.time(sigma)

    losses = [call(DenoisingScoreMatching(process, w), denoiser) for w in (InTime(), same)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
