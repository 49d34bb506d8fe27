# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every objective promises: energies as well as scores, any event shape, errors in words."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro.distributions import constraints

from numpyro_scores import (
    ULA,
    BernoulliRBM,
    EnergyDistribution,
    HutchinsonTrace,
    Ising,
    PairwiseMRF,
    Potts,
)
from numpyro_scores.densities import traces
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
X = np.random.default_rng(0).normal(size=(8, 4))
SCORE_OBJECTIVES = [
    ImplicitScoreMatching(),
    ImplicitScoreMatching(trace=HutchinsonTrace(2)),
    SlicedScoreMatching(),
    SlicedScoreMatching(num_projections=3, projection=traces.sphere, variance_reduced=False),
    SlicedScoreMatching(projection=traces.gaussian),
    DenoisingScoreMatching(0.3),
]
PROCESS_OBJECTIVE = DenoisingScoreMatching(VarianceExploding(0.02, 10.0))
ENERGY_OBJECTIVES = [
    FiniteDifferenceScoreMatching(),
    ContrastiveDivergence(sampler=partial(ULA, step_size=0.1, num_steps=1)),
    ConditionalNoiseContrastiveEstimation(0.5),
    EnergyDiscrepancy(0.5),
    PseudoLikelihood((-1, 1)),
    RatioMatching((-1, 1)),
]
WITHOUT_NOISE = (ImplicitScoreMatching, PseudoLikelihood, RatioMatching)


def energy(x):
    """Two modes, and every pair of coordinates coupled."""
    return jnp.sum(x**2) / 2 - jnp.logaddexp(jnp.sum(x), -jnp.sum(x)) + jnp.sum(x**4) / 8


def score(x):
    return -jax.grad(energy)(x)


def denoiser(x, sigma):
    return x / (1 + sigma**2) + jnp.tanh(jnp.sum(x)) * sigma


@partial(jax.jit, static_argnums=(0, 1))
def evaluate(objective, module, x, key=KEY):
    return objective(module, x, key=key)


SHAPES = [(4,), (2, 2)]


def name(objective):
    """The same in every process: the address of a function is not."""
    return re.sub(r"<function (\w+) at \w+>", r"\1", repr(objective))


class StandardNormal:
    """Noise that needs no NumPyro."""

    def __init__(self, shape):
        self.shape = shape

    def sample(self, key, sample_shape):
        return random.normal(key, (*sample_shape, *self.shape))

    def log_prob(self, x):
        square = jnp.sum(x**2, tuple(range(-len(self.shape), 0)))
        return -square / 2 - np.prod(self.shape) * jnp.log(2 * jnp.pi) / 2


def itself(field):
    return field


@dataclass(frozen=True, eq=False)
class Case:
    """An objective for points of one shape, what it takes, and how that becomes a module."""

    objective: Any
    field: Any
    as_module: Any = itself

    def __call__(self, x, key=KEY, field=None):
        if isinstance(self.objective, PseudoLikelihood | RatioMatching):
            x = np.sign(x) if isinstance(x, np.ndarray) else jnp.sign(x)
        return self.objective(self.as_module(field or self.field), x, key=key)


def pair(critic):
    return AdversarialPair(jnp.sin, critic)


CASES = (
    {name(o): lambda shape, o=o: Case(o, score) for o in SCORE_OBJECTIVES}
    | {name(PROCESS_OBJECTIVE): lambda shape: Case(PROCESS_OBJECTIVE, denoiser)}
    | {name(o): lambda shape, o=o: Case(o, energy) for o in ENERGY_OBJECTIVES}
    | {
        "NoiseContrastiveEstimation": lambda shape: Case(
            NoiseContrastiveEstimation(StandardNormal(shape)), energy
        ),
        "GenerativeAdversarial": lambda shape: Case(GenerativeAdversarial(shape), energy, pair),
        "AdversarialLikelihood": lambda shape: Case(AdversarialLikelihood(), energy, pair),
    }
)
OBJECTIVES = pytest.mark.parametrize("make", CASES.values(), ids=CASES)


@pytest.mark.parametrize("objective", SCORE_OBJECTIVES, ids=name)
def test_an_energy_has_the_loss_of_its_score(x64, objective):
    np.testing.assert_allclose(
        evaluate(objective, energy, X), evaluate(objective, score, X), rtol=1e-13
    )


@OBJECTIVES
def test_the_event_shape_does_not_matter(x64, make):
    flat, square = (jax.jit(make(s))(X.reshape(8, *s)) for s in SHAPES)
    np.testing.assert_allclose(flat, square, rtol=1e-12)


@OBJECTIVES
def test_the_key_decides(make):
    evaluate = jax.jit(make((4,)))
    first, again, other = (evaluate(X, random.key(i)) for i in (0, 0, 1))
    assert first == again
    assert (first != other) == (not isinstance(make((4,)).objective, WITHOUT_NOISE))


def test_equal_objectives_compile_once():
    traces = []

    def counted(x):
        traces.append(x)
        return -x

    evaluate(SlicedScoreMatching(num_projections=7), counted, X)
    num_traces = len(traces)
    evaluate(SlicedScoreMatching(num_projections=7), counted, X)
    assert num_traces == len(traces) > 0


@OBJECTIVES
def test_it_runs_under_the_switches_that_look_for_faults(make):
    case = make((4,))

    def loss(factor, x):
        return case(x, field=lambda *args: factor * case.field(*args))

    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        value, slope = jax.jit(jax.value_and_grad(loss))(1.0, X)
    assert np.isfinite(value) and np.isfinite(slope) and slope != 0


UNIT = np.random.default_rng(0).uniform(size=(5, 3))
ON_SUPPORTS = {
    "positive": (constraints.positive, UNIT),
    "interval": (constraints.interval(0.0, jnp.array(2.0)), UNIT),
    "simplex": (constraints.simplex, UNIT / UNIT.sum(1, keepdims=True)),
}


@pytest.mark.parametrize("objective", [*SCORE_OBJECTIVES[::2], *ENERGY_OBJECTIVES[:4]], ids=name)
@pytest.mark.parametrize(
    "support", [pytest.param("positive", marks=pytest.mark.slow), "interval", "simplex"]
)
def test_distributions_with_a_support_run_under_the_switches(support, objective):
    support, x = ON_SUPPORTS[support]
    d = EnergyDistribution(
        jax.tree_util.Partial(lambda a, x: a * jnp.sum(x**3), jnp.array(1.5)), 3, support=support
    )
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        value, slope = jax.jit(jax.value_and_grad(lambda d: objective(d, x, key=KEY)))(d)
    assert np.isfinite(value) and slope.energy.args[0] != 0


LATTICES = {
    "ising": lambda: Ising((2, 3), jnp.array(0.4)),
    "potts": lambda: Potts((2, 3), 3, jnp.array(0.4), jnp.zeros(3)),
    "field": lambda: PairwiseMRF([(0, 1), (1, 2)], jnp.ones(2), jnp.zeros((3, 3)), 3),
    "rbm": lambda: BernoulliRBM(0.1 * jnp.ones((4, 2)), jnp.zeros(4), jnp.zeros(2)),
    "both sides": lambda: BernoulliRBM(0.1 * jnp.ones((4, 2)), jnp.zeros(4), jnp.zeros(2)).joint(),
}


@pytest.mark.parametrize(
    "objective", [PseudoLikelihood(), RatioMatching(), ContrastiveDivergence(2)], ids=name
)
@pytest.mark.parametrize("lattice", LATTICES)
def test_discrete_distributions_make_no_nan(lattice, objective):
    d = LATTICES[lattice]()
    x = np.ones((4, *d.event_shape))
    with jax.debug_nans(True):
        value, slope = jax.jit(jax.value_and_grad(lambda d: objective(d, x, key=KEY)))(d)
    assert np.isfinite(value)
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(slope))


@OBJECTIVES
@pytest.mark.parametrize("shape", [(), (5,), (0, 3)])
def test_a_point_is_not_a_batch(make, shape):
    with pytest.raises(ValueError, match=r"x must be a batch of points of shape \(n, \*event"):
        make((4,))(np.zeros(shape))


@OBJECTIVES
@pytest.mark.parametrize(
    "output", [lambda x, *_: x[:2], lambda x, *_: jnp.outer(x, x), lambda x, *_: x[None]]
)
def test_a_wrong_output_shape_is_told(make, output):
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        make((4,))(X, field=output)


def test_what_is_neither_a_denoiser_nor_an_energy_is_told():
    with pytest.raises(
        ValueError, match=r"denoiser D\(x, sigma\) must map one point.*shape \(2,\)"
    ):
        PROCESS_OBJECTIVE(lambda x, sigma: x[:2], X, key=KEY)


@pytest.mark.parametrize("objective", ENERGY_OBJECTIVES[1:], ids=name)
def test_a_score_is_not_an_energy(objective):
    with pytest.raises(ValueError, match=r"Expected an energy, .* output has shape \(4,\)"):
        objective(score, X, key=KEY)
