# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What is trained, wherever it is, and what stays or is carried from step to step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from flax import nnx
from jax import random
from training.helpers import DATA, quick_fit

import numpyro_scores as ns
from numpyro_scores.training._parameters import Parts

pytestmark = pytest.mark.usefixtures("quick_compilation")

DECAY = {"optimizer": optax.adamw(0.1, weight_decay=0.5), "num_steps": 5, "ema_decay": 0.0}


class Constant(nnx.Variable):
    pass


class Quadratic(nnx.Module):
    """An energy about a mean that is a constant, not a parameter."""

    def __init__(self):
        self.weight = nnx.Param(jnp.ones(3))
        self.mean = Constant(jnp.full(3, 2.0))

    def __call__(self, x):
        return jnp.sum(self.weight[...] * (x - self.mean[...]) ** 2)


def everything(module, x, *, key):
    """A loss that pulls at every array of floats in a module."""
    leaves = [leaf for leaf in jax.tree.leaves(module) if hasattr(leaf, "dtype")]
    return sum(jnp.sum(x**2) for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))


class Pair(nnx.Module):
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, x):
        return self.inner(x)


@pytest.mark.parametrize(
    "wrap, energy_of",
    [
        (lambda m: m, lambda m: m),
        (lambda m: ns.EnergyDistribution(m, 3), lambda d: d.energy),
        (lambda m: ns.EnergyDistribution(Pair(m), 3), lambda d: d.energy.inner),
        (lambda m: partial(lambda m, label, x: m(x), m, 1), lambda p: p.args[0]),
        (lambda m: m.__call__, lambda f: f.__self__),
    ],
    ids=["bare", "distribution", "nested", "partial", "method"],
)
def test_of_a_flax_module_anywhere_the_parameters_are_trained(wrap, energy_of):
    def loss(module, x, *, key):
        return everything(energy_of(module), x, key=key)

    trained = energy_of(quick_fit(wrap(Quadratic()), loss, **DECAY).module)
    np.testing.assert_array_equal(trained.mean[...], 2)
    bare = quick_fit(Quadratic(), everything, **DECAY).module
    np.testing.assert_allclose(trained.weight[...], bare.weight[...], rtol=1e-6)
    assert np.all(np.asarray(bare.weight[...]) < 0.9)


@pytest.mark.parametrize(
    "module, fixed",
    [
        (
            ns.EnergyDistribution(
                Quadratic(), 3, support=dist.constraints.interval(jnp.zeros(()), jnp.array(10.0))
            ),
            lambda d: d.support.base_constraint.upper_bound,
        ),
        (
            ns.ScoreDistribution(
                jax.tree_util.Partial(lambda w, x: -w * x, jnp.ones(3)), 3, reference=jnp.ones(3)
            ),
            lambda d: d.reference,
        ),
        (
            ns.DiffusionPrior(
                jax.tree_util.Partial(lambda w, x, sigma: w * x, jnp.ones(3)),
                ns.VarianceExploding(0.1, 5.0),
                3,
            ),
            lambda d: d.sigma,
        ),
    ],
    ids=["support", "reference", "level"],
)
def test_of_a_distribution_support_reference_and_level_stay(module, fixed):
    before = jax.tree.map(np.array, jax.tree.leaves(module))
    trained = quick_fit(module, everything, **DECAY).module
    assert float(np.max(fixed(trained))) == float(np.max(fixed(module)))
    changed = [
        not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(trained), before, strict=True)
    ]
    assert any(changed)


def positive_scale():
    return dist.Normal(jnp.zeros(3), jnp.full(3, 2.0)).to_event(1)


def test_a_scale_is_trained_on_its_logarithm():
    def loss(module, x, *, key):
        return jnp.sum(module.experts[0].base_dist.scale)

    product = ns.ProductOfExperts([positive_scale()])
    options = {"optimizer": optax.sgd(0.5), "num_steps": 3, "ema_decay": 0.0}
    trained = quick_fit(product, loss, **options).module
    log_scale = np.log(2.0)
    for _ in range(3):
        log_scale -= 0.5 * np.exp(log_scale)
    np.testing.assert_allclose(trained.experts[0].base_dist.scale, np.exp(log_scale), rtol=1e-5)
    assert np.all(trained.experts[0].base_dist.scale > 0)


@pytest.mark.parametrize(
    "make, moved, fixed",
    [
        (lambda: dist.HalfNormal(jnp.array([2.0])), lambda d: d._normal.scale, None),
        (lambda: dist.LogNormal(jnp.zeros(1), jnp.ones(1)), lambda d: d.base_dist.scale, None),
        (lambda: dist.StudentT(jnp.full(1, 5.0)), lambda d: d._chi2.concentration, None),
        (
            lambda: dist.TruncatedNormal(jnp.zeros(1), jnp.ones(1), low=jnp.full(1, -3.0)),
            lambda d: d.base_dist.scale,
            lambda d: d.low,
        ),
        (
            lambda: dist.Pareto(jnp.ones(1), jnp.full(1, 3.0)),
            lambda d: d.alpha,
            lambda d: d.scale,
        ),
        (
            lambda: dist.MultivariateNormal(jnp.zeros(2), 2 * jnp.eye(2)),
            lambda d: d.scale_tril,
            None,
        ),
        (
            lambda: dist.MixtureSameFamily(
                dist.Categorical(probs=jnp.array([0.3, 0.7])),
                dist.Normal(jnp.array([0.0, 1.0]), jnp.ones(2)),
            ),
            lambda d: d.component_distribution.scale,
            None,
        ),
    ],
    ids=["half", "lognormal", "t", "truncated", "pareto", "multivariate", "mixture"],
)
def test_parameters_of_numpyro_stay_within_their_constraints_and_bounds_stay(make, moved, fixed):
    parts = Parts(make())
    shift = jax.tree.map(lambda x: x - 0.5, parts.params)
    shifted, same = parts.merge(shift, parts.state), parts.merge(parts.params, parts.state)
    shifted.validate_args()
    for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(make()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert not np.allclose(moved(shifted), moved(same))
    if fixed is not None:
        np.testing.assert_array_equal(fixed(shifted), fixed(make()))

    @jax.jit
    def log_probs(shifted, same):
        return shifted.log_prob(same.sample(random.key(0), (3,)))

    assert np.all(np.isfinite(log_probs(shifted, same)))


def test_nothing_but_bounds_is_nothing_to_train():
    with pytest.raises(TypeError, match="nothing to train in Uniform"):
        Parts(dist.Uniform(jnp.zeros(2), jnp.ones(2)))


def test_parameters_have_the_names_of_their_fields():
    # NumPyro's own order of fields is another in each process.
    machine = ns.BernoulliRBM(jnp.ones((2, 2)), jnp.zeros(2), jnp.ones(2))
    assert list(Parts(machine).params) == ["hidden_bias", "visible_bias", "weights"]
    pair = ns.objectives.AdversarialPair(Quadratic(), Quadratic())
    params = Parts(pair).params
    assert set(params) == {"generator", "critic"} and list(params["critic"]) == ["weight"]


def test_what_two_modules_share_stays_shared():
    inner = Quadratic()
    parts = Parts(ns.objectives.AdversarialPair(Pair(inner), inner))
    assert len(jax.tree.leaves(parts.params)) == 1
    merged = parts.merge(parts.params, parts.state)
    assert merged.generator.inner is merged.critic


class Noisy(nnx.Module):
    def __init__(self):
        self.weight = nnx.Param(jnp.ones(3))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x, sigma=None):
        return self.dropout(self.weight[...] * x)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: partial(Pair(m))])
def test_each_step_has_a_dropout_mask_of_its_own(wrap):
    def mask(module, x, *, key):
        return jnp.sum(jnp.where(module(jnp.ones(3)) > 0, 2.0 ** jnp.arange(3), 0))

    frozen = {"optimizer": optax.sgd(0.0), "num_steps": 64}
    losses = quick_fit(wrap(Noisy()), mask, **frozen, validation=DATA[:10]).losses
    assert set(losses) == set(range(8))
    # Points that are held out meet the whole network.
    fitted = quick_fit(wrap(Noisy()), mask, **frozen, validation=DATA[:10])
    np.testing.assert_array_equal(fitted.validation_losses, 7)
    np.testing.assert_array_equal(fitted.losses, losses)


def test_dropout_trains_under_objectives_that_map_over_points():
    objective = ns.objectives.DenoisingScoreMatching(ns.VarianceExploding(0.5, 3.0))
    fitted = quick_fit(Noisy(), objective)
    assert len(set(fitted.losses)) == 20
    # It comes back in evaluation mode, where it can be mapped over points.
    prior = ns.DiffusionPrior(fitted.module, ns.VarianceExploding(0.5, 3.0), 3)
    assert prior.denoise(DATA[:2]).shape == (2, 3)


class Counting(nnx.Module):
    def __init__(self):
        self.weight = nnx.Param(jnp.ones(()))
        self.mean = nnx.BatchStat(jnp.zeros(()))

    def __call__(self, x):
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * jnp.mean(x)
        return self.weight[...] * x


@pytest.mark.parametrize("wrap", [lambda m: m, partial], ids=["bare", "partial"])
def test_statistics_of_batches_are_carried(wrap):
    def loss(module, x, *, key):
        return jnp.sum(module(x)) * 0 + 1

    data, options = np.ones((1, 1)), {"batch_size": 1, "num_steps": 10}
    fitted = quick_fit(wrap(Counting()), loss, data, **options)
    module = fitted.module if isinstance(fitted.module, Counting) else fitted.module.func
    np.testing.assert_allclose(module.mean[...], 1 - 0.9**10, rtol=1e-5)


def test_statistics_of_single_points_are_told():
    with pytest.raises(ValueError, match="changes a variable of its own .* nnx.LayerNorm"):
        quick_fit(Counting(), ns.objectives.ImplicitScoreMatching())
