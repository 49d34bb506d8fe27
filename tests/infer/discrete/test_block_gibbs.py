# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""BlockGibbs: its transition matrix and its draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, draw, enumerated, mean_and_error
from jax import random
from numpyro import handlers
from numpyro.infer import MCMC
from numpyro.infer.util import log_density

import numpyro_scores as ns
from numpyro_scores.infer.discrete.model_trace import Trace, blocks_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

rng = np.random.default_rng(0)
FIELD = rng.normal(size=(2, 4))
DATA = rng.normal(size=(2, 4))
WEIGHTS, VISIBLE, HIDDEN = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)
TABLES, FIELDS = rng.normal(size=(3, 3, 3)), rng.normal(size=(4, 3))
LOCATIONS = np.array([-1.0, 0.5, 2.0])


def with_noise(prior, y):
    x = numpyro.sample("x", prior())
    numpyro.sample("y", dist.Normal(x, 0.8).to_event(np.ndim(y)), obs=y)


def of_the_visible_units(prior, y):
    x = numpyro.sample("x", prior())
    v = prior().split(x).visible
    numpyro.sample("y", dist.Bernoulli(0.2 + 0.6 * v).to_event(1), obs=y)


def missing_and_tempered(prior, y):
    x = numpyro.sample("x", prior())
    with handlers.scale(scale=0.3):
        numpyro.sample("y", dist.Normal(x, 0.8).mask(y > 0).to_event(2), obs=y)


def in_a_plate(prior, y):
    with numpyro.plate("lattices", 2):
        x = numpyro.sample("x", prior())
        with handlers.mask(mask=jnp.array([True, False])):
            numpyro.sample("y", dist.Normal(x, 0.8).to_event(2), obs=y)


def mixture(y):
    with numpyro.plate("repeats", 2, dim=-2), numpyro.plate("data", 3, dim=-1):
        z = numpyro.sample("x", dist.Categorical(np.array([0.2, 0.5, 0.3])))
        scale = jnp.array([1.0, 0.5, 2.0])[z]
        location = jnp.array(LOCATIONS)[z][..., None] * jnp.ones(2)
        numpyro.sample("y", dist.Normal(location, 1).to_event(1), obs=y)
        numpyro.factor("f", -scale)


def repeats(prior, y):
    x = numpyro.sample("x", prior())
    with numpyro.plate("repeats", len(y)):
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)


def ising():
    return ns.Ising((2, 4), 0.4, FIELD)


def rbm():
    return ns.BernoulliRBM(WEIGHTS, VISIBLE, HIDDEN)


# Models of a site x, with the number of its states.
MODELS = {
    "odd torus": (
        partial(with_noise, lambda: ns.Ising((3, 3), -0.3, 0.1)),
        rng.normal(size=(3, 3)),
        (-1, 1),
    ),
    "missing and tempered": (partial(missing_and_tempered, ising), DATA, (-1, 1)),
    "repeats": (
        partial(repeats, lambda: ns.Ising((2, 2), 0.4)),
        rng.normal(size=(3, 2, 2)),
        (-1, 1),
    ),
    "a tempered prior": (
        handlers.scale(partial(with_noise, lambda: ns.Potts((2, 2), 3, 0.7)), 0.4),
        DATA[:, :2],
        range(3),
    ),
    "in a plate": (
        partial(in_a_plate, lambda: ns.Ising((2, 2), 0.4, FIELD[:, :2])),
        np.stack([DATA[:, :2], DATA[:, 2:]]),
        (-1, 1),
    ),
    "tables": (
        partial(
            with_noise,
            lambda: ns.PairwiseMRF([[0, 1], [1, 2], [2, 3]], TABLES, FIELDS, num_states=3),
        ),
        DATA[0],
        range(3),
    ),
    "rbm": (partial(with_noise, rbm), DATA[0], (0, 1)),
    "both sides": (partial(of_the_visible_units, lambda: rbm().joint()), DATA[0] > 0, (0, 1)),
    "mixture": (mixture, rng.normal(size=(2, 3, 2)), range(3)),
}


def transition_matrix(update, trace_at, values):
    """Of one sweep, from the conditionals that the kernel draws from."""
    start = {"x": jnp.asarray(values[0])}
    if not update.has_blocks:
        log_prob = jax.jit(update.conditional(start, trace_at)(0, ()).log_prob)(values)
        return np.tile(np.exp(np.sum(log_prob, tuple(range(1, values.ndim)))), (len(values), 1))
    d = blocks_of(jax.jit(lambda start: trace_at(start)["x"]["fn"])(start))
    choices = [enumerated(update.states, block.shape) for block in d.split(values[0])]
    sizes = [len(choice) for choice in choices]
    # Every combination of the blocks, and the number of the value that it makes.
    combinations = np.stack(np.meshgrid(*map(range, sizes), indexing="ij"), -1).reshape(
        -1, d.num_blocks
    )
    blocks = tuple(jnp.asarray(c[i]) for c, i in zip(choices, combinations.T, strict=True))
    number = {value.tobytes(): i for i, value in enumerate(values)}
    made = np.array([number[x.tobytes()] for x in np.asarray(d.join(blocks), np.int8)])
    # Where a sweep starts; of units that are not kept, anywhere.
    matrix = np.zeros((len(values), len(made)))
    matrix[made, np.arange(len(made))] = len(values) / len(made)
    matrix = matrix.reshape(-1, *sizes)

    @jax.jit
    @jax.vmap
    def log_probs(*blocks):
        conditional = update.conditional(start, trace_at)
        return [jnp.sum(conditional(k, blocks).log_prob(b)) for k, b in enumerate(blocks)]

    for k, log_prob in enumerate(log_probs(*blocks)):
        table = np.exp(log_prob).reshape(sizes)
        matrix = table * matrix.sum(axis=k + 1, keepdims=True)
    matrix = matrix.reshape(len(values), -1)
    return np.stack([matrix[:, made == i].sum(axis=1) for i in range(len(values))], axis=1)


def looked_at(model, *args):
    """The update of a model's one discrete site, and the shape of the site."""
    kernel = ns.BlockGibbs(model)
    kernel.look(args, {})
    (update,) = kernel._found.plan
    trace_at = Trace(model, args, {})
    shape = jax.eval_shape(lambda key: trace_at.start(key)["x"]["value"], random.key(0)).shape
    return update, shape


def exact(model, values, *args):
    """The probabilities of all values of the site, from NumPyro's log density."""
    seeded = handlers.seed(model, 0)
    log_prob = jax.vmap(lambda x: log_density(seeded, args, {}, {"x": x})[0])
    return np.asarray(jax.jit(lambda values: jax.nn.softmax(log_prob(values)))(values))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "name",
    [
        name
        if name in ("missing and tempered", "in a plate", "rbm", "both sides")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in MODELS
    ],
)
def test_a_sweep_leaves_the_posterior_invariant(name):
    model, y, states = MODELS[name]
    update, shape = looked_at(model, y)
    values = enumerated(states, shape)
    pi = exact(model, values, y)
    matrix = transition_matrix(update, Trace(model, (y,), {}), values)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(pi @ matrix, pi, rtol=0, atol=1e-12)
    # It moves: the second eigenvalue is below one.
    assert np.sort(np.abs(np.linalg.eigvals(matrix)))[-2] < 0.999


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("odd torus", marks=pytest.mark.slow),
        pytest.param("in a plate", marks=pytest.mark.slow),
        "rbm",
    ],
)
def test_draws_have_the_posterior(name):
    """As many chains as states allow, each run to forget its start."""
    model, y, states = MODELS[name]
    kernel = ns.BlockGibbs(model, num_steps=30)
    z = np.asarray(draw(kernel, random.key(1), 4000, None, y).z["x"])
    values = enumerated(states, z.shape[1:])
    pi = exact(model, values, y)
    # Means of the elements and of products of two: blocks drawn with one key have the right means.
    flat, points = (x.reshape(len(x), -1).astype(float) for x in (z, values))
    for moments in (lambda x: x, lambda x: (x[:, :, None] * x[:, None]).reshape(len(x), -1)):
        mean = pi @ moments(points)
        variance = pi @ moments(points) ** 2 - mean**2
        error = np.sqrt(np.maximum(variance, 0) / len(z)) + 1e-6
        assert_within(moments(flat).mean(0), mean, error, 4.5)


def test_energy_of_a_large_lattice():
    """At K = 0.3 a spin of the 64 x 64 torus has the energy -0.7045 (Kaufman 1949)."""
    kernel = ns.BlockGibbs(lambda: numpyro.sample("x", ns.Ising((64, 64), 0.3)), num_steps=10)
    mcmc = MCMC(
        kernel,
        num_warmup=10,
        num_samples=20,
        num_chains=8,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0))
    x = mcmc.get_samples(group_by_chain=True)["x"]
    assert x.dtype == jnp.int8 and mcmc.last_state.i.tolist() == [30] * 8
    x = np.asarray(x, float)
    energy = -np.mean(x * (np.roll(x, 1, -1) + np.roll(x, 1, -2)), axis=(-1, -2))
    mean, error = mean_and_error(energy)
    assert error < 0.004
    assert_within(mean, -0.7045, error)


def run(chain_method, num_samples=4):
    mcmc = MCMC(
        ns.BlockGibbs(MODELS["missing and tempered"][0]),
        num_warmup=2,
        num_samples=num_samples,
        num_chains=2,
        chain_method=chain_method,
        progress_bar=False,
    )
    mcmc.run(random.key(0), DATA)
    return mcmc


@pytest.mark.slow
def test_chains_are_the_same_however_they_are_mapped():
    draws = [
        run(chain_method).get_samples(group_by_chain=True)["x"]
        for chain_method in ("vectorized", "parallel")
    ]
    assert np.ptp(draws[0]) == 2
    np.testing.assert_array_equal(draws[0], draws[1])


def test_a_resumed_run_goes_on_where_it_stopped():
    whole = run("vectorized", 8).get_samples(group_by_chain=True)["x"]
    mcmc = run("vectorized", 4)
    first = mcmc.get_samples(group_by_chain=True)["x"]
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.post_warmup_state.rng_key, DATA)
    second = mcmc.get_samples(group_by_chain=True)["x"]
    np.testing.assert_array_equal(np.concatenate([first, second], 1), whole)
