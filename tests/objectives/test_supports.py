# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Distributions with a bounded support: every objective finds the parameter, or refuses.

The estimate is one Newton step from the truth on many points, which is off by the bias of an
objective that does not keep to the support: a rate of 0.1 in place of 2, say.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax import random
from jax.tree_util import Partial
from numpyro.distributions import constraints

import numpyro_scores as ns
from numpyro_scores.objectives import (
    ConditionalNoiseContrastiveEstimation,
    ContrastiveDivergence,
    DenoisingScoreMatching,
    EnergyDiscrepancy,
    FiniteDifferenceScoreMatching,
    ImplicitScoreMatching,
    NoiseContrastiveEstimation,
    PersistentContrastiveDivergence,
    SlicedScoreMatching,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
LEVELS = (np.arange(3_000) + 0.5) / 3_000  # of quantiles
rng = np.random.default_rng(0)


class Family(NamedTuple):
    """Densities `exp(-theta * statistic(x) - rest(x)) / Z` on a support."""

    support: Any
    theta: float
    statistic: Callable
    data: np.ndarray
    noise: Any
    log_normalizer: float
    rest: Callable = lambda x: 0.0

    @property
    def energy(self):
        def energy(theta, x):
            return theta * self.statistic(x) + self.rest(x)

        return Partial(energy, jnp.array(self.theta))

    def distribution(self, **options):
        shape = self.data.shape[1:]
        return ns.EnergyDistribution(self.energy, shape, support=self.support, **options)


def over(*low_and_high):
    """Noise that reaches over the border."""
    return dist.Uniform(*low_and_high).expand([1]).to_event(1)


EXPONENTIAL = -np.log1p(-LEVELS)[:, None] / 2
TRUNCATED = -np.log1p(-LEVELS * (1 - np.exp(-0.8 * 4)))[:, None] / 0.8 - 1
FAMILIES = {
    "positive": Family(constraints.positive, 2.0, jnp.sum, EXPONENTIAL, over(-1, 5), -np.log(2.0)),
    "nonnegative": Family(
        constraints.nonnegative, 2.0, jnp.sum, EXPONENTIAL, over(-1, 5), -np.log(2.0)
    ),
    "greater than": Family(
        constraints.greater_than(1.0), 2.0, jnp.sum, 1 + EXPONENTIAL, over(0, 6), -2 - np.log(2)
    ),
    "less than": Family(
        constraints.less_than(jnp.array(-1.0)),
        -2.0,
        jnp.sum,
        -1 - EXPONENTIAL,
        over(-6, 0),
        -2 - np.log(2),
    ),
    "interval": Family(
        constraints.interval(-1, 3),
        0.8,
        jnp.sum,
        TRUNCATED,
        over(-2, 4),
        np.log((np.exp(0.8) - np.exp(-2.4)) / 0.8),
    ),
    "unit interval": Family(  # Beta(2, 3)
        constraints.unit_interval,
        -1.0,
        lambda x: jnp.sum(jnp.log(x)),
        np.quantile(rng.beta(2, 3, 400_000), LEVELS)[:, None],
        over(-0.2, 1.1),
        -np.log(12.0),
        lambda x: -2 * jnp.sum(jnp.log1p(-x)),
    ),
    "simplex": Family(  # Dirichlet(2, 3, 4)
        constraints.simplex,
        -1.0,
        lambda x: jnp.log(x[0]),
        rng.dirichlet([2, 3, 4], 6_000),
        dist.Dirichlet(jnp.ones(3)),
        np.log(2.0 * 6 / 40_320),
        lambda x: -2 * jnp.log(x[1]) - 3 * jnp.log(x[2]),
    ),
    "ordered": Family(
        constraints.ordered_vector,
        1.0,
        lambda x: jnp.sum(x**2) / 2,
        np.sort(rng.normal(size=(6_000, 2)), axis=1),
        dist.Normal(0, 1.5).expand([2]).to_event(1),
        np.log(np.pi),
    ),
    "real": Family(
        constraints.real,
        1.0,
        lambda x: jnp.sum(x**2) / 2,
        np.quantile(rng.normal(size=400_000), LEVELS)[:, None],
        dist.Normal(0, 1.5).expand([1]).to_event(1),
        np.log(2 * np.pi) / 2,
    ),
}
SLOW = ("nonnegative", "less than", "ordered", "real")
ON_EACH_SUPPORT = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in FAMILIES]
)
OBJECTIVES = {
    "implicit": ImplicitScoreMatching(),
    "sliced": SlicedScoreMatching(),
    "finite difference": FiniteDifferenceScoreMatching(0.05),
    "denoising": DenoisingScoreMatching(0.05, control_variate=True),
    "conditional noise": ConditionalNoiseContrastiveEstimation(0.5),
    "energy discrepancy": EnergyDiscrepancy(0.5),
}


@partial(jax.jit, static_argnums=(0,))
def newton_step(objective, d, x):
    def loss(theta):
        return objective(_with_theta(d, theta), x, key=KEY)

    theta = d.energy.args[0]
    slope, curvature = jax.jvp(jax.grad(loss), (theta,), (jnp.ones_like(theta),))
    return theta - slope / curvature


def _with_theta(d, theta):
    # NumPyro flattens a distribution in an order that each process chooses.
    changed = copy.copy(d)
    changed.energy = Partial(d.energy.func, theta)
    return changed


@pytest.mark.parametrize("objective", OBJECTIVES)
@ON_EACH_SUPPORT
def test_each_objective_finds_the_parameter_on_each_support(name, objective):
    family = FAMILIES[name]
    estimate = newton_step(OBJECTIVES[objective], family.distribution(), family.data)
    # The square of one normal a point stands for the trace in denoising, which is noisier.
    rtol = 0.12 if objective == "denoising" else 0.06
    np.testing.assert_allclose(estimate, family.theta, rtol=rtol)


@ON_EACH_SUPPORT
def test_noise_contrastive_estimation_finds_parameter_and_normaliser(name):
    family = FAMILIES[name]
    objective = NoiseContrastiveEstimation(family.noise, 4)

    @jax.jit
    def step(both):
        def loss(both):
            energy = Partial(family.energy.func, both[0])
            d = ns.EnergyDistribution(
                energy, family.data.shape[1:], support=family.support, log_normalizer=both[1]
            )
            return objective(d, family.data, key=KEY)

        hessian, slope = jax.jacfwd(lambda both: (jax.grad(loss)(both),) * 2, has_aux=True)(both)
        return both - jnp.linalg.solve(hessian, slope)

    truth = jnp.array([family.theta, family.log_normalizer])
    np.testing.assert_allclose(step(truth), truth, atol=0.1)


@ON_EACH_SUPPORT
def test_chains_keep_to_the_support_and_to_the_law(name):
    """From the data, which have the law of the energy, chains move, and it stays."""
    family = FAMILIES[name]
    data = family.data.astype(np.float32)
    d = family.distribution()
    sampler = partial(ns.MALA, step_size=0.1, num_steps=10)
    moved = jax.jit(lambda d, x: ns.objectives.contrastive.moved_points(d, sampler, KEY, x, 1))(
        d, data
    )
    assert np.all(d.support(moved)) and not np.any(np.all(moved == data, axis=1).mean() > 0.2)
    before, after = np.asarray(
        jax.jit(jax.vmap(jax.vmap(family.statistic)))(np.stack([data, moved]))
    )
    # Of an exponential family this is the gradient of the likelihood, over its curvature.
    assert abs(before.mean() - after.mean()) / before.var() < 5 / len(data) ** 0.5 / before.std()


@pytest.mark.parametrize(
    "objective",
    [
        ContrastiveDivergence(sampler=partial(ns.MALA, step_size=0.2, num_steps=10)),
        PersistentContrastiveDivergence(200, sampler=partial(ns.MALA, step_size=0.2, num_steps=5)),
    ],
)
def test_contrastive_divergence_learns_a_rate(objective):
    d = ns.EnergyDistribution(
        Partial(lambda log_rate, x: jnp.exp(log_rate) * jnp.sum(x), jnp.zeros(())),
        1,
        support=constraints.positive,
    )
    fitted = ns.fit(
        d,
        objective,
        EXPONENTIAL.astype("float32"),
        key=KEY,
        num_steps=300,
        optimizer=optax.adam(0.03),
        ema_decay=0.95,
        progress_bar=False,
    ).module
    np.testing.assert_allclose(jnp.exp(fitted.energy.args[0]), 2.0, rtol=0.08)


def test_for_positive_data_it_is_hyvarinens_loss_of_non_negative_data(x64):
    """With `s` the score in `x`: x^2 s^2 / 2 + 2 x s + x^2 s', and a constant of 1 / 2."""
    x = np.abs(np.random.default_rng(1).normal(size=(7, 3)))

    def log_density(x):
        return -jnp.sum(x**1.5) - jnp.sin(x[0])

    d = ns.EnergyDistribution(lambda x: -log_density(x), 3, support=constraints.positive)

    @jax.jit
    @jax.vmap
    def derivatives(x):
        return jax.grad(log_density)(x), jnp.diag(jax.hessian(log_density)(x))

    s, slopes = derivatives(x)
    expected = np.mean(np.sum(x**2 * s**2 / 2 + 2 * x * s + x**2 * slopes + 0.5, axis=1))
    found = jax.jit(lambda x: ImplicitScoreMatching()(d, x))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("objective", ["implicit", "sliced", "denoising"])
@pytest.mark.parametrize("name", ["simplex", "real"])
def test_a_distribution_known_by_its_score_has_the_loss_of_its_energy(x64, name, objective):
    family = FAMILIES[name]
    energy = family.distribution()
    score = ns.ScoreDistribution(
        lambda x: -jax.grad(energy.energy)(x), energy.event_shape, support=family.support
    )
    objective = OBJECTIVES[objective]
    losses = jax.jit(lambda x: [objective(d, x, key=KEY) for d in (energy, score)])
    np.testing.assert_allclose(*losses(family.data[:5]), rtol=1e-10)


def test_the_bounds_of_a_support_are_no_parameters():
    bounds = np.array([0.0, 5.0], np.float32)

    def loss(bounds):
        support = constraints.interval(bounds[0], bounds[1])
        return ImplicitScoreMatching()(
            ns.EnergyDistribution(jnp.sum, 1, support=support), EXPONENTIAL[:10]
        )

    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(bounds), 0)
