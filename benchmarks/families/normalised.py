# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Families whose density is normalised and known."""

import flowjax.bijections
import flowjax.distributions
import flowjax.flows
import jax.numpy as jnp
from flax import nnx
from jax import random

import numpyro_scores as ns
from benchmarks.families.data import Data
from benchmarks.families.learned import Learned, normal_density, of_density
from benchmarks.families.networks import NUM_PARTS, mixture, negative_log_likelihood, train


def normal(data: Data) -> Learned:
    """A normal density, for comparison."""
    return _learned(normal_density(data), data)


def autoregressive(data: Data) -> Learned:
    size = data.training.shape[1]
    network = ns.nn.MADE(size, rngs=nnx.Rngs(0), num_outputs=3 * NUM_PARTS, hidden_features=128)
    prior = ns.distributions.AutoregressivePrior(network, size, conditional=mixture)
    steps = 2_500 if data.name == "moons" else 1_500
    return _learned(train(prior, negative_log_likelihood, data, steps), data)


def flow_of(data: Data, seed: int = 0) -> ns.distributions.FlowPrior:
    """Coupling layers: of splines in the plane, affine ones of digits."""
    plane = data.name == "moons"
    size = data.training.shape[1]
    spline = flowjax.bijections.RationalQuadraticSpline(knots=8, interval=4)
    flow = flowjax.flows.coupling_flow(
        random.key(seed),
        base_dist=flowjax.distributions.Normal(jnp.zeros(size)),
        transformer=spline if plane else None,
        flow_layers=4 if plane else 8,
        nn_width=32 if plane else 128,
        nn_depth=1,
    )
    return ns.distributions.FlowPrior(flow)


def flow(data: Data) -> Learned:
    steps = 2_500 if data.name == "moons" else 1_500
    return _learned(train(flow_of(data), negative_log_likelihood, data, steps), data)


def _learned(prior, data: Data) -> Learned:
    return Learned(
        prior,
        lambda key, n: prior.sample(key, (n,)),
        lambda _: [of_density(prior.log_prob, data, "exact")],
    )
