# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a diffusion prior says of arguments that do not fit."""

import numpy as np
import pytest
from flax import nnx
from jax import random

import numpyro_scores as ns
from numpyro_scores import (
    DDPM,
    AdaptiveProbabilityFlow,
    DiffusionPrior,
    ExactTrace,
    Heun,
    LineIntegral,
    NoisePathIntegral,
    ProbabilityFlow,
    VarianceExploding,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

PROCESS = VarianceExploding(sigma_min=0.02, sigma_max=500.0)
X = np.zeros((3, 1))


def denoiser(x, sigma):
    return x / (1 + sigma**2)


def prior(**kwargs):
    return DiffusionPrior(denoiser, PROCESS, 1, **kwargs)


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.inf, np.nan, np.array([1.0, 2.0])])
def test_a_bad_noise_level_is_told(sigma):
    with pytest.raises(ValueError, match="sigma must be a finite positive number, got"):
        prior().at(sigma)
    with pytest.raises(ValueError, match="sigma must be a finite positive number, got"):
        prior(sigma=sigma)


@pytest.mark.parametrize("method", ["denoise", "score"])
@pytest.mark.parametrize("sigma", [0.0, -1.0, np.inf, np.array([1.0, 2.0])])
def test_a_bad_noise_level_of_a_point_is_told(method, sigma):
    with pytest.raises(ValueError, match="sigma must be a finite positive number, got"):
        getattr(prior(), method)(X, sigma)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: DiffusionPrior(denoiser, 10.0, 1), TypeError, "process must be a noise process"),
        (lambda: DiffusionPrior(denoiser, DDPM, 1), TypeError, r"such as VarianceExploding\("),
        (lambda: prior(log_density="flow"), TypeError, r"log_density must be .*, got 'flow'"),
        (lambda: prior(log_density=ProbabilityFlow), TypeError, "log_density must be Probability"),
        (lambda: prior(log_density=LineIntegral()), TypeError, r"got LineIntegral\("),
        (lambda: prior().log_likelihood(X, flow=Heun()), TypeError, r"flow must be .* got Heun\("),
        (lambda: prior().log_likelihood(X, key=0), ValueError, "log_likelihood needs a random key"),
        (lambda: prior().sample(0), ValueError, "got the integer 0: write jax.random.key"),
        (
            lambda: prior().sample(random.key(0), 5),
            ValueError,
            r"sample_shape must be a tuple, got 5: \(5,\)",
        ),
        (
            lambda: DiffusionPrior(denoiser, PROCESS, ()),
            ValueError,
            "may be a denoiser or an energy",
        ),
        (
            lambda: DiffusionPrior(ns.nn.MLPEnergy(2, rngs=nnx.Rngs(0)), PROCESS, 2),
            ValueError,
            r"denoiser must take a point and its noise level, denoiser\(x, sigma\)",
        ),
        (
            lambda: ns.EnergyDistribution(ns.nn.MLPNoiseEnergy(2, rngs=nnx.Rngs(0)), 2),
            ValueError,
            "takes a noise level too: give lambda x: f",
        ),
        (lambda: NoisePathIntegral(trace="exact"), TypeError, r"trace must be ExactTrace\(\) or"),
        (lambda: ProbabilityFlow(trace=ExactTrace), TypeError, r"trace must be ExactTrace\(\) or"),
        (lambda: AdaptiveProbabilityFlow(trace=8), TypeError, "trace must be .*, got 8"),
    ],
)
def test_arguments_that_do_not_fit_are_told(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_denoiser_that_returns_two_things_is_told():
    with pytest.raises(TypeError, match=r"one array of the shape of its point, \(1,\), got tuple"):
        DiffusionPrior(lambda x, sigma: (x, sigma), PROCESS, 1)


def test_a_denoiser_of_another_shape_is_told():
    message = r"denoiser must map one point to the same shape: it got shape \(2,\) and .* \(1,\)"
    with pytest.raises(ValueError, match=message):
        DiffusionPrior(lambda x, sigma: x[:1], PROCESS, 2)


@pytest.mark.parametrize("method", ["denoise", "score", "log_prob"])
def test_a_point_of_another_shape_is_told(method):
    message = rf"DiffusionPrior.{method} takes points of event shape \(1,\), .* shape \(3, 2\)"
    with pytest.raises(ValueError, match=message):
        getattr(prior(), method)(np.zeros((3, 2)))
