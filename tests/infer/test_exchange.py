# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""ExchangeKernel: posteriors of parameters on which unknown normalisers depend."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, draw, mean_and_error
from jax import random
from jax.scipy.special import logsumexp
from numpyro.handlers import scale
from numpyro.infer import MCMC, Gibbs

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

LATTICE = np.array([[1, -1, -1, -1], [1, -1, -1, 1], [1, 1, -1, -1], [-1, -1, -1, -1]], np.int8)


def states(shape):
    size = int(np.prod(shape))
    bits = np.arange(2**size)[:, None] >> np.arange(size) & 1
    return (2 * bits - 1).reshape(-1, *shape).astype(np.int8)


def log_density(coupling, field, shape):
    """Of every state of a lattice, normalised, for each of several couplings and fields."""

    def of_one(coupling, field):
        log_prob = ns.Ising(shape, coupling, field).log_prob(states(shape))
        return log_prob - logsumexp(log_prob)

    return jax.vmap(of_one)(coupling, field)


def coupling_and_field(x, shape):
    coupling = numpyro.sample("coupling", dist.HalfNormal(0.5))
    field = numpyro.sample("field", dist.Normal(0.0, 0.3))
    numpyro.sample("x", ns.Ising(shape, coupling, field), obs=x)


@pytest.mark.parametrize("count", [1, 2])
def test_with_exact_auxiliary_draws_it_is_in_detailed_balance(x64, count):
    """
    pi(a) A(a, b) = pi(b) A(b, a), for the acceptance A averaged over auxiliary draws; a scale makes
    the density count twice, and its normaliser with it.
    """
    shape, x = (2, 2), LATTICE[:2, :2]
    kernel = ns.ExchangeKernel(scale(coupling_and_field, scale=float(count)))
    kernel.init(random.key(0), 0, None, (x, shape), {})
    potential = kernel.get_potential_fn((x, shape))
    points = [
        {"coupling": jnp.array(c), "field": jnp.array(f)} for c, f in [(-1.5, 0.1), (0.3, -0.4)]
    ]
    index = np.flatnonzero((states(shape) == x).all((1, 2)))[0]
    draws = np.array(list(itertools.product(range(16), repeat=count)))  # of all auxiliaries
    auxiliary = jnp.asarray(states(shape))[draws]

    @jax.jit
    def log_densities(z):
        """Of the posterior up to a constant, and of all states."""
        v = kernel.get_constrain_fn((x, shape), {})(z)
        log_prob = log_density(v["coupling"][None], v["field"][None], shape)[0]
        unnormalized = ns.Ising(shape, v["coupling"], v["field"]).log_prob(x)
        # The potential has the density without its normaliser: put the right one there.
        return -potential(z) + count * (log_prob[index] - unnormalized), log_prob

    @jax.jit
    def acceptance(start, end):
        at = [kernel._densities(z, (x, shape), {}) for z in (start, end)]
        ratio = jax.vmap(lambda w: kernel._log_ratio(*at, {"x": w}))(auxiliary)
        ratio += potential(start) - potential(end)
        log_prob = jnp.sum(log_densities(end)[1][draws], axis=1)
        return jnp.sum(jnp.exp(log_prob + jnp.minimum(ratio, 0.0)))

    there, back = acceptance(*points), acceptance(*points[::-1])
    flows = [jnp.exp(log_densities(z)[0]) * a for z, a in zip(points, (there, back), strict=True)]
    np.testing.assert_allclose(flows[0], flows[1], rtol=1e-12)
    assert 0 < there < 1
    site = kernel._densities(points[0], (x, shape), {})["x"]
    assert kernel._auxiliary(random.key(0), site).shape == (count, *shape)


@pytest.mark.parametrize("power", [0.3, 2.5])
def test_other_powers_of_a_normaliser_are_told(power):
    kernel = ns.ExchangeKernel(scale(coupling_and_field, scale=power))
    with pytest.raises(ValueError, match=r"scale must be a positive integer.*log_normalizer"):
        kernel.init(random.key(0), 0, None, (LATTICE[:2, :2], (2, 2)), {})


def grid_moments(x, shape, size):
    """Mean of (coupling, field) under the posterior, on a grid, by summing all states."""
    midpoints = (np.arange(size) + 0.5) / size
    coupling, field = np.meshgrid(2.5 * midpoints, 3 * midpoints - 1.5)
    coupling, field = np.float32(coupling.ravel()), np.float32(field.ravel())
    index = np.flatnonzero((states(shape) == x).all((1, 2)))[0]

    @jax.jit
    def moments(coupling, field):
        log_prob = jax.lax.map(
            lambda p: log_density(p[0][None], p[1][None], shape)[0, index], (coupling, field)
        )
        log_prob += dist.HalfNormal(0.5).log_prob(coupling) + dist.Normal(0.0, 0.3).log_prob(field)
        return jax.nn.softmax(log_prob) @ jnp.stack([coupling, field], axis=1)

    return np.asarray(moments(coupling, field))


@pytest.mark.parametrize(
    "shape, sampler",
    [
        ((3, 3), None),
        pytest.param((4, 4), partial(ns.BlockGibbs, num_steps=50), marks=pytest.mark.slow),
        pytest.param((4, 4), partial(ns.SwendsenWang, num_steps=20), marks=pytest.mark.slow),
    ],
)
def test_coupling_and_field_of_an_observed_lattice(shape, sampler):
    x = LATTICE[: shape[0], : shape[1]]
    mcmc = MCMC(
        ns.ExchangeKernel(coupling_and_field, sampler=sampler),
        num_warmup=200,
        num_samples=300,
        num_chains=30,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), x, shape)
    draws = mcmc.get_samples(group_by_chain=True)
    mean, error = mean_and_error(np.stack([draws["coupling"], draws["field"]], -1))
    assert np.all(error < 0.02)
    assert_within(mean, grid_moments(x, shape, 40), error)
    assert 0.25 < np.mean(mcmc.last_state.mean_accept_prob) < 0.55


def coupling_alone(x, sampler):
    coupling = numpyro.sample("coupling", dist.HalfNormal(0.5))
    numpyro.sample("x", ns.Ising((6, 6), coupling, sampler=sampler), obs=x)


@pytest.mark.slow
def test_coupling_of_a_larger_lattice():
    """6 x 6, with log Z of the couplings by the transfer matrix."""
    sampler = partial(ns.BlockGibbs, num_steps=200)
    x = ns.Ising((6, 6), 0.3, sampler=sampler).sample(random.key(7))
    mcmc = MCMC(
        ns.ExchangeKernel(partial(coupling_alone, sampler=None), sampler=sampler),
        num_warmup=200,
        num_samples=400,
        num_chains=30,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), x)
    coupling = (jnp.arange(200) + 0.5) / 100

    def log_prob(coupling):
        d = ns.Ising((6, 6), coupling)
        log_z = ns.log_normalizer(d, key=random.key(0), method=ns.TransferMatrix()).estimate
        return d.log_prob(x) - log_z + dist.HalfNormal(0.5).log_prob(coupling)

    weights = jax.nn.softmax(jax.lax.map(log_prob, coupling))
    mean, error = mean_and_error(np.asarray(mcmc.get_samples(group_by_chain=True)["coupling"]))
    assert error < 0.005
    assert_within(mean, weights @ coupling, error)


def blurred_lattice(y):
    coupling = numpyro.sample("coupling", dist.Uniform(0.0, 1.0))
    x = numpyro.sample(
        "x", ns.Ising((2, 3), coupling, sampler=ns.BlockGibbs), infer={"exchange": True}
    )
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)


@pytest.mark.slow
def test_a_latent_lattice_of_unknown_coupling():
    y = np.array([[1.6, 0.9, 1.1], [0.7, 1.4, 0.2]])
    kernel = Gibbs(
        [
            (ns.BlockGibbs(blurred_lattice), ["x"]),
            (
                ns.ExchangeKernel(blurred_lattice, sampler=partial(ns.BlockGibbs, num_steps=20)),
                None,
            ),
        ]
    )
    mcmc = MCMC(kernel, num_warmup=300, num_samples=4000, progress_bar=False)
    mcmc.run(random.key(0), y)
    coupling = (jnp.arange(200) + 0.5) / 200
    likelihood = dist.Normal(states((2, 3)), 1.0).to_event(2).log_prob(y)
    log_prob = log_density(coupling, jnp.zeros(200), (2, 3)) + likelihood
    weights = jax.nn.softmax(log_prob.ravel()).reshape(log_prob.shape)
    # Batches of 100 draws are as good as independent.
    batches = np.asarray(mcmc.get_samples()["coupling"]).reshape(40, 100).mean(1)
    assert_within(batches.mean(), weights.sum(1) @ coupling, batches.std() / 40**0.5)
    batches = np.asarray(mcmc.get_samples()["x"], float).reshape(40, 100, 2, 3).mean(1)
    expected = np.tensordot(weights.sum(0), states((2, 3)), 1)
    assert_within(batches.mean(0), expected, batches.std(0) / 40**0.5)


def unknown_precision(x):
    precision = numpyro.sample("precision", dist.Gamma(2.0, 1.0))
    energy = jax.tree_util.Partial(lambda p, x: p * x**2 / 2, precision)
    numpyro.sample("x", ns.EnergyDistribution(energy, ()).expand([3]), obs=x)


def test_precision_of_a_continuous_energy():
    """x ~ N(0, 1 / p) with p ~ Gamma(2, 1) has the posterior Gamma(2 + 3 / 2, 1 + |x|^2 / 2)."""
    x = np.array([0.5, -1.5, 1.0])
    # Moves so large that it matters at which parameters the auxiliary draws are made.
    kernel = ns.ExchangeKernel(
        unknown_precision,
        sampler=partial(ns.MALA, step_size=0.2, num_steps=100),
        step_size=2.0,
        adapt_step_size=False,
        adapt_mass_matrix=False,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=150,
        num_samples=200,
        num_chains=40,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), x)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["precision"])
    mean, error = mean_and_error(draws)
    assert_within(mean, 3.5 / (1 + np.sum(x**2) / 2), error)


def unmarked(y=None):
    coupling = numpyro.sample("coupling", dist.Uniform(0.0, 1.0))
    numpyro.sample("x", ns.Ising((2, 3), coupling))


def both(y=None):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    energy = jax.tree_util.Partial(lambda s, x: jnp.sum(x**2) * s, scale)
    numpyro.sample("x", ns.EnergyDistribution(energy, 2))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ns.ExchangeKernel(coupling_and_field, step_size=0.0), "step_size must be"),
        (lambda: ns.ExchangeKernel(coupling_and_field, num_steps=0), "num_steps must be"),
        (lambda: ns.ExchangeKernel(coupling_and_field, target_accept_prob=1.0), "must be in"),
        (lambda: draw(ns.ExchangeKernel(both), random.key(0), 2), r"values of \['x'\], whose norm"),
        (
            lambda: draw(ns.BlockGibbs(unmarked), random.key(0), 2),
            r"'x' has an unnormalised density .* ExchangeKernel.*infer=\{'exchange': True\}",
        ),
    ],
)
def test_what_it_cannot_do_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_sampler_that_makes_no_kernel_is_told():
    with pytest.raises(TypeError, match="sampler must make a kernel, .*, got 3"):
        ns.ExchangeKernel(coupling_and_field, sampler=3)
    model = partial(coupling_and_field, shape=(2, 2))
    kernel = ns.ExchangeKernel(model, sampler=lambda model: 3)
    with pytest.raises(TypeError, match="sampler must return a kernel"):
        draw(kernel, random.key(0), 2, None, LATTICE[:2, :2])
