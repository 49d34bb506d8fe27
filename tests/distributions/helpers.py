# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""One distribution of every kind, points of each, and what all must agree with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from numpyro_scores import (
    BernoulliRBM,
    DiffusionPrior,
    EnergyDistribution,
    GaussianBernoulliRBM,
    Ising,
    NoisePathIntegral,
    PairwiseMRF,
    Potts,
    ProbabilityFlow,
    ScoreDistribution,
    VarianceExploding,
)
from numpyro_scores.nn import MLPDenoiser, MLPEnergy, MLPNoiseEnergy

SHAPE = (2, 2)
PROCESS = VarianceExploding(sigma_min=0.1, sigma_max=50.0)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, *SHAPE)).astype(np.float32)
WEIGHTS, BIAS = RNG.normal(size=(3, 2)).astype(np.float32), np.array([0.3, -0.4], np.float32)


def quartic(x):
    return jnp.sum(x**4) / 4 + x[0, 0] * x[1, 1]


def cubic(x):
    """The score of `quartic`."""
    return -(x**3) - jnp.eye(2) * x[::-1, ::-1]


def wiener(x, sigma):
    return x / (1 + sigma**2)


def energy(**kwargs):
    return EnergyDistribution(quartic, SHAPE, **kwargs)


def energy_network(**kwargs):
    network = MLPEnergy(SHAPE, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    return EnergyDistribution(network, SHAPE, log_normalizer=jnp.array(0.5), **kwargs)


def score(**kwargs):
    return ScoreDistribution(cubic, SHAPE, reference=np.ones(SHAPE, np.float32), **kwargs)


def diffusion(**kwargs):
    return DiffusionPrior(wiener, PROCESS, SHAPE, log_density=ProbabilityFlow(8), **kwargs)


def diffusion_network(**kwargs):
    network = MLPDenoiser(SHAPE, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    return DiffusionPrior(network, PROCESS, SHAPE, log_density=NoisePathIntegral(8), **kwargs)


def diffusion_energy(**kwargs):
    network = MLPNoiseEnergy(SHAPE, rngs=nnx.Rngs(0), hidden_features=4, num_layers=1)
    return DiffusionPrior(network, PROCESS, SHAPE, **kwargs)


def ising(**kwargs):
    return Ising(SHAPE, 0.3, X[0, 0], **kwargs)


def potts(**kwargs):
    return Potts(SHAPE, 3, 0.3, WEIGHTS[:, 0], periodic=False, log_normalizer=0.5, **kwargs)


def pairwise(**kwargs):
    return PairwiseMRF([[0, 1], [2, 1]], BIAS, WEIGHTS, **kwargs)


def rbm(**kwargs):
    return BernoulliRBM(WEIGHTS, WEIGHTS[:, 0], BIAS, **kwargs)


def gaussian_rbm(**kwargs):
    return GaussianBernoulliRBM(WEIGHTS, WEIGHTS[:, 0], np.float32(0.7), BIAS, **kwargs)


def joint_rbm(**kwargs):
    return gaussian_rbm(**kwargs).joint()


def points(make):
    """Points of the support, shape `(2, 3, *event_shape)`."""
    event_shape = make().event_shape
    if make is joint_rbm:
        return np.concatenate([points(gaussian_rbm), points(rbm)[..., :2]], -1)
    x = X if event_shape == SHAPE else X[..., 0][..., [0, 1, 0]]
    if make in DISCRETE:
        states = np.arange(3) if make is potts else np.array([-1, 1] if make is ising else [0, 1])
        return states[(10 * x).astype(int) % len(states)].astype(np.float32)
    return x


def exact_score(d, x):
    """From what the distribution is made of."""
    if isinstance(d, GaussianBernoulliRBM):
        mean_hidden = jax.nn.sigmoid(d.hidden_bias + (x / d.visible_scale**2) @ d.weights)
        return (d.visible_mean - x + d.weights @ mean_hidden) / d.visible_scale**2
    if isinstance(d, EnergyDistribution):
        return -jax.grad(d.energy)(x)
    return d.score(x)


CAN_DRAW = [diffusion, diffusion_network, diffusion_energy]
DISCRETE = [ising, potts, pairwise, rbm, joint_rbm]
CANNOT_DRAW = [energy, energy_network, score, gaussian_rbm]
every = pytest.mark.parametrize("make", [*CANNOT_DRAW, *CAN_DRAW, *DISCRETE])
continuous = pytest.mark.parametrize("make", [*CANNOT_DRAW, *CAN_DRAW])


@jax.jit
def log_prob(d, x):
    return d.log_prob(x)


def pointwise(d, x):
    """The log densities one by one, of points of shape `(2, 3, *event_shape)`."""
    return np.array([[log_prob(d, point) for point in row] for row in x])


assert_close = np.testing.assert_allclose
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # float32
