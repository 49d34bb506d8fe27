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
from numpyro_scores.nn import MLPDenoiser, MLPEnergy

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


CAN_DRAW = [diffusion, diffusion_network]
DISCRETE = [ising, potts, pairwise, rbm, joint_rbm]
CANNOT_DRAW = [energy, energy_network, score, gaussian_rbm]
pytestmark = [
    pytest.mark.filterwarnings("error:Out-of-support"),
    pytest.mark.usefixtures("quick_compilation"),
]
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


@every
def test_round_trip_through_its_leaves(make):
    d = make()
    leaves, treedef = jax.tree.flatten(d)
    again = treedef.unflatten(leaves)
    assert type(again) is type(d)
    assert jax.tree.structure(again) == treedef
    assert (again.batch_shape, again.event_shape) == ((), d.event_shape)
    assert type(again.support) is type(d.support) and again.support == d.support
    x = points(make)[0, 0]
    assert log_prob(again, x) == log_prob(d, x)


@every
def test_an_equal_distribution_is_not_traced_again(make):
    traces = []

    @jax.jit
    def compiled(d, x):
        traces.append(d)
        return d.log_prob(x)

    others = [make(), jax.tree.map(lambda leaf: 1.5 * leaf, make())]
    values = [compiled(d, points(make)[0, 0]) for d in [make(), *others]]
    assert len(traces) == 1
    assert values[0] == values[1]
    # Its parameters are arguments of the compiled function, not constants in it.
    assert (values[0] != values[2]) == bool(jax.tree.leaves(make()))


@every
def test_a_pickled_distribution_is_the_same(make):
    d = make()
    again = pickle.loads(pickle.dumps(d))
    assert jax.tree.structure(again) == jax.tree.structure(d)
    x = points(make)[0, 0]
    assert log_prob(again, x) == log_prob(d, x)


@every
def test_batches_of_any_rank_are_mapped(make):
    d, x = make(), points(make)
    expected = pointwise(d, x)
    for batch, value in [(x, expected), (x[0], expected[0]), (x[0, 0], expected[0, 0])]:
        found = log_prob(d, batch)
        assert found.shape == value.shape
        assert_close(found, value, **TOLERANCE)


@every
def test_vmap_is_a_batch(make):
    d, x = make(), points(make)
    found = jax.jit(jax.vmap(jax.vmap(d.log_prob)))(x)
    assert_close(found, log_prob(d, x), **TOLERANCE)


@every
def test_distributions_are_mapped_over_stacked_parameters(make):
    x = points(make)[0, :2]
    ds = [make(), jax.tree.map(lambda leaf: 1.5 * leaf, make())]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *ds)
    axes = 0 if jax.tree.leaves(stacked) else None  # a plain energy has no parameters
    found = jax.vmap(log_prob, (axes, 0))(stacked, x)
    assert_close(found, [log_prob(d, x) for d, x in zip(ds, x, strict=True)], **TOLERANCE)


@continuous
def test_the_gradient_is_the_score(make):
    d, x = make(), points(make)
    found = jax.jit(jax.vmap(jax.vmap(jax.grad(d.log_prob))))(x)
    expected = jax.jit(jax.vmap(jax.vmap(lambda x: exact_score(d, x))))(x)
    assert_close(found, expected, **TOLERANCE)


@every
def test_expand(make):
    d, x = make(), points(make)
    expanded = d.expand((2, 3))
    assert (expanded.batch_shape, expanded.event_shape) == ((2, 3), d.event_shape)
    assert_close(log_prob(expanded, x), log_prob(d, x), **TOLERANCE)


@every
def test_to_event_sums(make):
    d, x = make(), points(make)
    independent = d.expand((2, 3)).to_event(1)
    assert (independent.batch_shape, independent.event_shape) == ((2,), (3, *d.event_shape))
    assert_close(log_prob(independent, x), log_prob(d, x).sum(-1), **TOLERANCE)


@continuous
def test_a_mask_hides_points_and_their_gradients(make):
    d, x = make(), points(make)[0]
    mask = np.array([True, False, True])
    broken = x.copy()
    broken[1] = np.nan

    @jax.jit
    @jax.value_and_grad
    def total(x):
        return d.mask(mask).log_prob(x).sum()

    value, grad = total(broken)
    assert_close(value, log_prob(d, x)[mask].sum(), **TOLERANCE)
    expected = jax.jit(jax.vmap(lambda x: exact_score(d, x)))(x)
    assert_close(grad[mask], expected[mask], **TOLERANCE)
    assert not grad[~mask].any()


@pytest.mark.parametrize("make", DISCRETE)
def test_a_mask_hides_points(make):
    d, x = make(), points(make)[0]
    mask = np.array([True, False, True])
    assert_close(d.mask(mask).log_prob(x), np.where(mask, log_prob(d, x), 0), **TOLERANCE)


@every
def test_plates_in_a_model(make):
    d, points_ = make(), points(make)

    def model(scale):
        with numpyro.plate("rows", 2, dim=-2), numpyro.plate("columns", 6, 3, dim=-1):
            x = numpyro.sample("x", d)
        numpyro.sample("y", numpyro.distributions.Normal(x.sum(), scale), obs=1.0)

    seeded = handlers.seed(model, 0)
    value = jax.jit(lambda x: log_density(seeded, (2.0,), {}, {"x": x})[0])(points_)
    likelihood = -((1 - points_.sum()) ** 2) / 8 - np.log(2 * np.sqrt(2 * np.pi))
    # A subsample of three of six columns stands for all of them.
    assert_close(value, 2 * log_prob(d, points_).sum() + likelihood, **TOLERANCE)


@every
def test_a_model_is_drawn_as_a_graph(make):
    def model(d, y=None):
        with numpyro.plate("columns", 3):
            x = numpyro.sample("x", d)
        numpyro.sample("y", numpyro.distributions.Normal(x.sum(), 1.0), obs=y)

    if make in DISCRETE:  # NumPyro starts a continuous site that cannot be drawn by itself
        model = handlers.substitute(model, {"x": points(make)[0]})
    graph = numpyro.render_model(model, (make(), 1.0), render_distributions=True)
    assert "x -> y" in graph.source
    assert f"x ~ {type(make()).__name__}" in graph.source


@pytest.mark.parametrize("make", [*CANNOT_DRAW, diffusion, *DISCRETE])
def test_values_are_validated_on_request(make):
    # Only where nothing is traced can NumPyro look at the values.
    d, x = make(validate_args=True), points(make)[0, 0]
    outside = np.full(d.event_shape, np.nan if not d.is_discrete else 0.5, np.float32)
    with pytest.warns(UserWarning, match="Out-of-support values"):
        d.log_prob(outside)
    with warnings.catch_warnings(action="error"):
        assert_close(d.log_prob(x), log_prob(make(), x), **TOLERANCE)
        make(validate_args=False).log_prob(outside)


@every
def test_intermediates_are_accepted(make):
    d, x = make(), points(make)
    program = str(jax.make_jaxpr(d.log_prob)(x))
    assert str(jax.make_jaxpr(lambda x: d.log_prob(x, None))(x)) == program
    assert str(jax.make_jaxpr(lambda x: d.log_prob(x, intermediates=[]))(x)) == program


@every
def test_integers_are_numbers(make):
    d = make()
    found = jax.eval_shape(d.log_prob, np.ones((3, *d.event_shape), int))
    assert (found.shape, found.dtype) == ((3,), jnp.result_type(float))


@pytest.mark.parametrize("make", [*CANNOT_DRAW[:3], *CAN_DRAW, ising, potts])
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
def test_it_is_discrete_or_continuous_and_not_reparametrised(make):
    d = make()
    assert d.is_discrete == type(d).support.is_discrete == (make in DISCRETE)
    assert not d.has_rsample
    assert d.event_dim == d.support.event_dim == len(d.event_shape)
    assert d.support(d.support.feasible_like(points(make)[0, 0]))


@pytest.mark.parametrize("make", DISCRETE)
def test_a_discrete_one_that_cannot_draw_names_its_kernel(make):
    with pytest.raises(
        NotImplementedError, match=r"cannot be sampled directly.*MCMC\(numpyro_scores.BlockGibbs"
    ):
        make().sample(random.key(0))


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
