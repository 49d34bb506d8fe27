# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Posteriors of the same models as those of arXiv 2503.01707 (table 1), and of the same sizes but for
`volatility`, given data that are drawn from the model with a fixed seed. What the paper took,
German Credit, the S&P 500 and the data of the inference gym, comes with no package of this project:
its numbers are not to be compared with, those of one run are with each other. Moments are of long
runs of NUTS, see `benchmarks.microcanonical.reference`.
"""

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, nn, random

from benchmarks.microcanonical.problem import Problem, of_model, squares, standard_normal

REFERENCE = Path(__file__).parent / "reference"
NUM_RETURNS = 300


def brownian() -> Callable:
    """
    A walk of 30 steps, of which the middle third is not seen, with unknown scales of the walk and
    of the noise: 32 dimensions.
    """
    rng = np.random.default_rng(0)
    seen = np.r_[0:10, 20:30]
    walk = np.cumsum(0.1 * rng.standard_normal(30))
    y = (walk + 0.15 * rng.standard_normal(30))[seen]

    def model():
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
        noise = numpyro.sample("noise", dist.LogNormal(0.0, 2.0))
        x = jnp.asarray(numpyro.sample("x", dist.GaussianRandomWalk(scale, 30)))
        numpyro.sample("y", dist.Normal(x[seen], noise).to_event(1), obs=y)

    return model


def credit() -> Callable:
    """
    Sparse logistic regression with 24 features and a constant, 1,000 data: 51 dimensions. The
    features are correlated, a third of the weights are not 0.
    """
    rng = np.random.default_rng(1)
    mixing = np.eye(24) + 0.3 * rng.standard_normal((24, 24))
    features = rng.standard_normal((1_000, 24)) @ mixing
    features = np.c_[features / features.std(axis=0), np.ones(1_000)]
    weights = np.where(np.arange(25) % 3 == 0, rng.standard_normal(25) / 2, 0.0)
    labels = rng.uniform(size=1_000) < 1 / (1 + np.exp(-features @ weights))
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels, jnp.int32)

    def model():
        everywhere = numpyro.sample("global_scale", dist.Gamma(0.5, 0.5))
        local = numpyro.sample("local_scales", dist.Gamma(0.5, 0.5).expand([25]).to_event(1))
        w = numpyro.sample("weights", dist.Normal(0, 1).expand([25]).to_event(1))
        logits = features @ (everywhere * local * w)
        numpyro.sample("label", dist.Bernoulli(logits=logits).to_event(1), obs=labels)

    return model


def items() -> Callable:
    """Item response: 400 students, 100 questions, 30,105 answers: 501 dimensions."""
    rng = np.random.default_rng(2)
    ability, difficulty = rng.standard_normal(400), rng.standard_normal(100)
    logits = 0.75 + ability[:, None] - difficulty
    right = rng.uniform(size=(400, 100)) < 1 / (1 + np.exp(-logits))
    answered = np.zeros(40_000, bool)
    answered[rng.permutation(40_000)[:30_105]] = True
    # With s of 1 for a right and -1 for a wrong answer, each costs log(1 + exp(-s logit)).
    sign = jnp.asarray(np.where(right, 1.0, -1.0), jnp.float32)
    answered = jnp.asarray(answered.reshape(400, 100), jnp.float32)

    def model():
        mean = numpyro.sample("mean_ability", dist.Normal(0.75, 1.0))
        student = numpyro.sample("ability", dist.Normal(0, 1).expand([400]).to_event(1))
        question = numpyro.sample("difficulty", dist.Normal(0, 1).expand([100]).to_event(1))
        logit = mean + jnp.reshape(student, (-1, 1)) - question
        numpyro.factor("answers", -jnp.sum(answered * nn.softplus(-sign * logit)))

    return model


def volatility() -> Callable:
    """
    Stochastic volatility, 300 returns: 302 dimensions, where the paper has 2,427 returns. The
    logarithm of the volatility is a random walk, returns have Student's t law.
    """
    rng = np.random.default_rng(3)
    walk = np.cumsum(0.1 * rng.standard_normal(NUM_RETURNS)) * 0.3 - 4.5
    returns = jnp.asarray(np.exp(walk) * rng.standard_t(10, NUM_RETURNS), jnp.float32)

    def model():
        sigma = numpyro.sample("sigma", dist.Exponential(50.0))
        nu = numpyro.sample("nu", dist.Exponential(0.1))
        s = numpyro.sample("s", dist.GaussianRandomWalk(sigma, NUM_RETURNS))
        numpyro.sample("r", dist.StudentT(nu, 0.0, jnp.exp(s)).to_event(1), obs=returns)

    return model


MODELS = {f.__name__: f for f in (brownian, credit, items, volatility)}


def volatility_start(key: Array) -> Array:
    """Of `nu`, `s` and `sigma`: near the level of the returns, which nobody has to search for."""
    walk = 0.02 * jnp.cumsum(random.normal(key, (NUM_RETURNS,)))
    return jnp.concatenate([jnp.log(10.0)[None], walk - 4.5, jnp.log(0.02)[None]])


def unsolved(name: str) -> Problem:
    """The problem of this name, without its moments."""
    potential, constrained, d = of_model(MODELS[name]())
    start = volatility_start if name == "volatility" else standard_normal(d)
    return Problem(potential, squares(constrained), np.zeros(0), np.zeros(0), start, None)


def posterior(name: str) -> Problem:
    mean, variance, _ = np.loadtxt(REFERENCE / f"{name}.csv", delimiter=",", unpack=True)
    return unsolved(name)._replace(mean=mean, variance=variance)
