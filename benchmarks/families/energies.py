# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies, trained in four ways. None of them knows its normaliser."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jax import Array, random

import numpyro_scores as ns
from benchmarks.families.data import Data
from benchmarks.families.learned import (
    Learned,
    by_chains,
    chains_from_normal,
    likelihood,
    normal_density,
    of_energy,
)
from benchmarks.families.networks import MLP, at_rates, train
from benchmarks.families.normalised import flow_of
from numpyro_scores import objectives

LARGEST_TILT = 50.0  # nats


class TiltedNormal(nnx.Module):
    """
    The energy of a normal density plus a network, bounded: where no point is seen in training, an
    energy of 64 numbers may otherwise fall without end, as that of noise contrast does.
    """

    def __init__(self, data: Data):
        normal = normal_density(data)
        self.mean = nnx.Variable(normal.mean)
        self.precision = nnx.Variable(normal.precision_matrix)
        self.network = MLP(data.training.shape[1], 1, 0)

    def __call__(self, x: Array) -> Array:
        gap = x - self.mean[...]
        tilt = LARGEST_TILT * jnp.tanh(self.network(x)[0] / LARGEST_TILT)
        return gap @ self.precision[...] @ gap / 2 + tilt


def network(data: Data) -> ns.nn.MLPEnergy:
    size = data.training.shape[1]
    return ns.nn.MLPEnergy(size, rngs=nnx.Rngs(0), hidden_features=128, num_layers=3)


def contrastive(data: Data) -> Learned:
    """Persistent contrastive divergence."""
    step_size = 0.02 if data.name == "moons" else 0.005
    objective = objectives.PersistentContrastiveDivergence(
        sampler=partial(ns.MALA, step_size=step_size, num_steps=10), restart_prob=0.05
    )
    energy = train(network(data), objective, data, 1_500, 1e-3)
    return _learned(energy, data)


def noise_contrast(data: Data) -> Learned:
    """Against draws of a normal density with the mean and covariance of the data."""
    objective = objectives.NoiseContrastiveEstimation(normal_density(data))
    size = data.training.shape[1]
    module = ns.EnergyDistribution(network(data), size, log_normalizer=jnp.array(0.0))
    trained = train(module, objective, data, 2_500)
    return _learned(trained.energy, data)


def variational(data: Data) -> Learned:
    """With a flow for its negative phase, from which the chains of its draws start."""
    num_steps = 3_000 if data.name == "moons" else 1_500
    start = network(data) if data.name == "moons" else TiltedNormal(data)
    pair = objectives.VariationalPair(start, flow_of(data))
    trained = train(
        pair,
        objectives.VariationalEnergy(),
        data,
        num_steps,
        at_rates({"energy": 1e-3, "sampler": 3e-3}, num_steps),
    )
    density = ns.EnergyDistribution(trained.energy, data.training.shape[1])

    def draw(key: Array, num_draws: int) -> Array:
        key_start, key_chains = random.split(key)
        start = trained.sampler.sample(key_start, (num_draws,))
        return by_chains(density, start, key_chains, 200)

    def likelihoods(key: Array):
        own = likelihood(trained.sampler.log_prob(data.held_out), "of its flow, exact")
        return [*of_energy(trained.energy, data, key), own]

    return Learned(density, draw, likelihoods)


def _learned(energy, data: Data) -> Learned:
    density = ns.EnergyDistribution(energy, data.training.shape[1])
    return Learned(
        density, chains_from_normal(density, data), lambda key: of_energy(energy, data, key)
    )
