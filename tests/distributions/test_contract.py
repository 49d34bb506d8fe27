# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every distribution promises, whatever it is made of."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from flax import nnx
from jax import random
from numpyro import handlers
from numpyro.infer.util import log_density

from numpyro_scores import (
    DiffusionPrior,
    EnergyDistribution,
    NoisePathIntegral,
    ProbabilityFlow,
    ScoreDistribution,
    VarianceExploding,
)
from numpyro_scores.nn import MLPDenoiser, MLPEnergy

SHAPE = (2, 2)
PROCESS = VarianceExploding(sigma_min=0.1, sigma_max=50.0)
X = np.random.default_rng(0).normal(size=(2, 3, *SHAPE)).astype(np.float32)


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


def exact_score(d, x):
    """From what the distribution is made of."""
    if isinstance(d, EnergyDistribution):
        return -jax.grad(d.energy)(x)
    return d.score(x)


CAN_DRAW = [diffusion, diffusion_network]
CANNOT_DRAW = [energy, energy_network, score]
pytestmark = [
    pytest.mark.filterwarnings("error:Out-of-support"),
    pytest.mark.usefixtures("quick_compilation"),
]
every = pytest.mark.parametrize("make", [*CANNOT_DRAW, *CAN_DRAW])


@jax.jit
def log_prob(d, x):
    return d.log_prob(x)


def pointwise(d, x):
    """The log densities one by one, shape `x.shape[:-2]`."""
    points = x.reshape(-1, *SHAPE)
    return np.array([log_prob(d, point) for point in points]).reshape(x.shape[:-2])


assert_close = np.testing.assert_allclose
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # float32


@every
def test_round_trip_through_its_leaves(make):
    d = make()
    leaves, treedef = jax.tree.flatten(d)
    again = treedef.unflatten(leaves)
    assert type(again) is type(d)
    assert jax.tree.structure(again) == treedef
    assert (again.batch_shape, again.event_shape) == ((), SHAPE)
    assert type(again.support) is type(d.support) and again.support == d.support
    assert log_prob(again, X[0, 0]) == log_prob(d, X[0, 0])


@every
def test_an_equal_distribution_is_not_traced_again(make):
    traces = []

    @jax.jit
    def compiled(d, x):
        traces.append(d)
        return d.log_prob(x)

    others = [make(), jax.tree.map(lambda leaf: 1.5 * leaf, make())]
    values = [compiled(d, X[0, 0]) for d in [make(), *others]]
    assert len(traces) == 1
    assert values[0] == values[1]
    # Its parameters are arguments of the compiled function, not constants in it.
    assert (values[0] != values[2]) == bool(jax.tree.leaves(make()))


@every
def test_a_pickled_distribution_is_the_same(make):
    d = make()
    again = pickle.loads(pickle.dumps(d))
    assert jax.tree.structure(again) == jax.tree.structure(d)
    assert log_prob(again, X[0, 0]) == log_prob(d, X[0, 0])


@every
def test_batches_of_any_rank_are_mapped(make):
    d = make()
    expected = pointwise(d, X)
    for batch, value in [(X, expected), (X[0], expected[0]), (X[0, 0], expected[0, 0])]:
        found = log_prob(d, batch)
        assert found.shape == value.shape
        assert_close(found, value, **TOLERANCE)


@every
def test_vmap_is_a_batch(make):
    d = make()
    found = jax.jit(jax.vmap(jax.vmap(d.log_prob)))(X)
    assert_close(found, log_prob(d, X), **TOLERANCE)


@every
def test_distributions_are_mapped_over_stacked_parameters(make):
    ds = [make(), jax.tree.map(lambda leaf: 1.5 * leaf, make())]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *ds)
    axes = 0 if jax.tree.leaves(stacked) else None  # a plain energy has no parameters
    found = jax.vmap(log_prob, (axes, 0))(stacked, X[0, :2])
    assert_close(found, [log_prob(d, x) for d, x in zip(ds, X[0, :2], strict=True)], **TOLERANCE)


@every
def test_the_gradient_is_the_score(make):
    d = make()
    found = jax.jit(jax.vmap(jax.vmap(jax.grad(d.log_prob))))(X)
    expected = jax.jit(jax.vmap(jax.vmap(lambda x: exact_score(d, x))))(X)
    assert_close(found, expected, **TOLERANCE)


@every
def test_expand(make):
    d = make()
    expanded = d.expand((2, 3))
    assert (expanded.batch_shape, expanded.event_shape) == ((2, 3), SHAPE)
    assert_close(log_prob(expanded, X), log_prob(d, X), **TOLERANCE)


@every
def test_to_event_sums(make):
    d = make()
    independent = d.expand((2, 3)).to_event(1)
    assert (independent.batch_shape, independent.event_shape) == ((2,), (3, *SHAPE))
    assert_close(log_prob(independent, X), log_prob(d, X).sum(-1), **TOLERANCE)


@every
def test_a_mask_hides_points_and_their_gradients(make):
    d = make()
    mask = np.array([True, False, True])
    broken = X[0].copy()
    broken[1] = np.nan

    @jax.jit
    @jax.value_and_grad
    def total(x):
        return d.mask(mask).log_prob(x).sum()

    value, grad = total(broken)
    assert_close(value, log_prob(d, X[0])[mask].sum(), **TOLERANCE)
    expected = jax.jit(jax.vmap(lambda x: exact_score(d, x)))(X[0])
    assert_close(grad, np.where(mask[:, None, None], expected, 0), **TOLERANCE)


@every
def test_plates_in_a_model(make):
    d = make()

    def model(scale):
        with numpyro.plate("rows", 2, dim=-2), numpyro.plate("columns", 6, 3, dim=-1):
            x = numpyro.sample("x", d)
        numpyro.sample("y", numpyro.distributions.Normal(x.sum(), scale), obs=1.0)

    seeded = handlers.seed(model, 0)
    value = jax.jit(lambda x: log_density(seeded, (2.0,), {}, {"x": x})[0])(X)
    likelihood = -((1 - X.sum()) ** 2) / 8 - np.log(2 * np.sqrt(2 * np.pi))
    # A subsample of three of six columns stands for all of them.
    assert_close(value, 2 * log_prob(d, X).sum() + likelihood, **TOLERANCE)


@every
def test_a_model_is_drawn_as_a_graph(make):
    def model(d, y=None):
        with numpyro.plate("columns", 3):
            x = numpyro.sample("x", d)
        numpyro.sample("y", numpyro.distributions.Normal(x.sum(), 1.0), obs=y)

    graph = numpyro.render_model(model, (make(), 1.0), render_distributions=True)
    assert "x -> y" in graph.source
    assert f"x ~ {type(make()).__name__}" in graph.source


@pytest.mark.parametrize("make", [*CANNOT_DRAW, diffusion])
def test_values_are_validated_on_request(make):
    # Only where nothing is traced can NumPyro look at the values.
    d = make(validate_args=True)
    with pytest.warns(UserWarning, match="Out-of-support values"):
        d.log_prob(np.full(SHAPE, np.nan, np.float32))
    with warnings.catch_warnings(action="error"):
        assert_close(d.log_prob(X[0, 0]), log_prob(make(), X[0, 0]), **TOLERANCE)
        make(validate_args=False).log_prob(np.full(SHAPE, np.nan, np.float32))


@every
def test_intermediates_are_accepted(make):
    d = make()
    program = str(jax.make_jaxpr(d.log_prob)(X))
    assert str(jax.make_jaxpr(lambda x: d.log_prob(x, None))(X)) == program
    assert str(jax.make_jaxpr(lambda x: d.log_prob(x, intermediates=[]))(X)) == program


@every
def test_integers_are_numbers(make):
    found = jax.eval_shape(make().log_prob, np.ones((3, *SHAPE), int))
    assert (found.shape, found.dtype) == ((3,), jnp.result_type(float))


@every
@pytest.mark.parametrize("validate_args", [False, True])
def test_another_event_shape_is_told(make, validate_args):
    d = make(validate_args=validate_args)
    message = r"log_prob takes points of event shape \(2, 2\), .* got a value of shape "
    for shape in [(), (2,), (4,), (3, 2), (2, 2, 1)]:
        with pytest.raises(ValueError, match=message):
            d.log_prob(np.zeros(shape))


CONSTRUCTORS = pytest.mark.parametrize(
    "make",
    [
        lambda event_shape: EnergyDistribution(jnp.sum, event_shape),
        lambda event_shape: ScoreDistribution(jnp.negative, event_shape),
        lambda event_shape: DiffusionPrior(wiener, PROCESS, event_shape),
    ],
)


@CONSTRUCTORS
@pytest.mark.parametrize("event_shape", [3, np.int64(3), [3], (3,)])
def test_an_event_shape_is_a_tuple_or_one_size(make, event_shape):
    d = make(event_shape)
    assert d.event_shape == (3,)
    assert log_prob(d, np.zeros((5, 3))).shape == (5,)


@CONSTRUCTORS
@pytest.mark.parametrize("event_shape", [0, -1, (2, 0), (2.0,)])
def test_a_bad_event_shape_is_told(make, event_shape):
    with pytest.raises(ValueError, match="every entry of event_shape must be a positive integer"):
        make(event_shape)


@CONSTRUCTORS
def test_a_point_may_be_a_scalar(make):
    assert log_prob(make(()), np.zeros(5)).shape == (5,)


@every
def test_it_is_continuous_and_not_reparametrised(make):
    d = make()
    assert not d.is_discrete
    assert not d.has_rsample
    assert d.event_dim == 2
    assert d.support.event_dim == 2


@pytest.mark.parametrize("make", CANNOT_DRAW)
def test_one_that_cannot_draw_names_a_kernel(make):
    for d in (make(), make().expand((3,)), make().mask(False)):
        with pytest.raises(NotImplementedError, match=r"cannot be sampled directly.*MCMC\(.*MALA"):
            d.sample(random.key(0), (2,))


@pytest.mark.parametrize("make", CAN_DRAW)
def test_one_that_can_draws_any_shape(make):
    @jax.jit
    def draws(d, key):
        return d.expand((3,)).sample(key, (2,))

    found = draws(make(), random.key(0))
    assert found.shape == (2, 3, *SHAPE)
    assert len(np.unique(found)) == found.size
    with pytest.raises(ValueError, match="needs a random key, got None"):
        make().sample(None)
