# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A score of one noise level, and two models of all: a denoiser, and an energy."""

from typing import Any

import jax
from flax import nnx
from jax import Array
from jax.tree_util import Partial

import numpyro_scores as ns
from benchmarks.families.data import Data
from benchmarks.families.learned import (
    Learned,
    Likelihood,
    chains_from_normal,
    likelihood,
    of_energy,
)
from benchmarks.families.networks import MLP, train
from numpyro_scores import objectives

NUM_POINTS = 100  # held out, whose density takes an integral


def process_of(data: Data) -> ns.VarianceExploding:
    """Its smallest level is the noise of the data, or too small to matter."""
    return ns.VarianceExploding(sigma_min=data.noise or 0.02, sigma_max=10.0)


def score(data: Data) -> Learned:
    """
    Of digits by denoising at their noise, which needs no other noise; of the moons, which have
    none, by sliced score matching.
    """
    size = data.training.shape[1]
    if data.noise:
        objective, noisy = objectives.DenoisingScoreMatching(data.noise), False
    else:
        objective, noisy = objectives.SlicedScoreMatching(), True
    field = train(MLP(size, size, 0), objective, data, 3_000, noisy=noisy)
    density = ns.ScoreDistribution(field, size)

    def likelihoods(key: Array) -> list[Likelihood]:
        if data.name != "moons":
            return []  # a density would be another for each path of the integral
        found = of_energy(lambda x: -density.log_prob(x), data, key)
        return [one._replace(how=f"line integral, {one.how}") for one in found]

    return Learned(density, chains_from_normal(density, data), likelihoods)


def _network(kind: Any, data: Data) -> Any:
    return kind(
        data.training.shape[1],
        rngs=nnx.Rngs(0),
        hidden_features=128,
        num_layers=2,
        sigma_data=float(data.training.std()),
    )


def diffusion(data: Data) -> Learned:
    objective = objectives.DenoisingScoreMatching(process_of(data))
    trained = train(_network(ns.nn.MLPDenoiser, data), objective, data, 4_000, noisy=False)
    if data.name == "moons":
        rule, how = ns.NoisePathIntegral(64), "integral over noise levels"
    else:
        trace = ns.HutchinsonTrace(8)
        rule, how = ns.ProbabilityFlow(16, trace), f"probability flow, {NUM_POINTS} points"
    prior = _prior(trained, data, log_density=rule)
    points = data.held_out if data.name == "moons" else data.held_out[:NUM_POINTS]
    return Learned(
        prior,
        lambda key, n: prior.sample(key, (n,)),
        lambda _: [likelihood(jax.jit(prior.log_prob)(points), how)],
    )


def energy_of_noise(data: Data) -> Learned:
    """Its own value, and what it is with a normaliser that is measured."""
    objective = objectives.DualScoreMatching(process_of(data))
    trained = train(_network(ns.nn.MLPNoiseEnergy, data), objective, data, 2_000, noisy=False)
    prior = _prior(trained, data)

    def likelihoods(key: Array) -> list[Likelihood]:
        at_smallest = Partial(_at_level, trained, prior.sigma)
        own = likelihood(prior.log_prob(data.held_out), "its own value")
        return [*of_energy(at_smallest, data, key), own]

    return Learned(prior, lambda key, n: prior.sample(key, (n,)), likelihoods)


def _at_level(energy, sigma, x: Array) -> Array:
    return energy(x, sigma)


def _prior(network, data: Data, **options) -> ns.DiffusionPrior:
    return ns.DiffusionPrior(network, process_of(data), data.training.shape[1], **options)
