# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""BlockGibbs: several sites, beside other kernels, and models that it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, draw, enumerated
from jax import random
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, Gibbs, Predictive

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = np.random.default_rng(0).normal(size=(2, 4))


def two_sites(y):
    """A chain of dependence: components of groups, and a lattice whose data they change."""
    with numpyro.plate("groups", 2):
        k = numpyro.sample("k", dist.Bernoulli(0.3))
    x = numpyro.sample("x", ns.Ising((2, 2), 0.3))
    numpyro.sample("y", dist.Normal(x * (1.0 + k), 1.0).to_event(2), obs=y)


def of_the_groups(values, y):
    scales = 1.0 + jnp.arange(2)[:, None]
    terms = dist.Normal(values["x"] * scales[:, None], 1.0).log_prob(y).sum(-2)
    return dist.Bernoulli(logits=jnp.log(0.3 / 0.7) + terms[1] - terms[0])


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(None, marks=pytest.mark.slow),
        [(["k"], of_the_groups), (["x"], None)],
        pytest.param([(["x", "k"], None)], marks=pytest.mark.slow),
    ],
)
def test_several_sites_have_their_joint_posterior(blocks):
    y = DATA[:, :2]
    kernel = ns.BlockGibbs(two_sites, blocks, num_steps=20)
    z = draw(kernel, random.key(2), 4000, None, y).z
    x, k = enumerated((-1, 1), (2, 2)), enumerated((0, 1), (2,))
    pairs = {"x": np.repeat(x, len(k), 0), "k": np.tile(k, (len(x), 1))}
    energy = jax.jit(jax.vmap(kernel.get_potential_fn((y,))))(pairs)
    pi = np.asarray(jax.nn.softmax(-energy))
    for name, values in z.items():
        values = np.asarray(values, float)
        assert_within(
            values.mean(0), np.tensordot(pi, pairs[name], 1), values.std(0) / np.sqrt(len(values))
        )


def unknown_noise(y=None):
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    sampler = partial(ns.BlockGibbs, num_steps=20)
    x = numpyro.sample("x", ns.Ising((2, 3), 0.4, 0.1, periodic=False, sampler=sampler))
    numpyro.sample("y", dist.Normal(x, noise).to_event(2), obs=y)


@pytest.mark.slow
def test_beside_nuts_an_unknown_noise_scale_has_its_posterior():
    y = np.array([[1.2, 0.6, -0.9], [0.4, 1.1, -1.6]])
    kernel = Gibbs([(ns.BlockGibbs(unknown_noise), ["x"]), (NUTS(unknown_noise), ["noise"])])
    mcmc = MCMC(kernel, num_warmup=200, num_samples=6000, num_chains=2, progress_bar=False)
    mcmc.run(random.key(0), y)
    draws = mcmc.get_samples(group_by_chain=True)
    noise, x = np.linspace(1e-3, 4, 2000), enumerated((-1, 1), (2, 3))
    log_prob = ns.Ising((2, 3), 0.4, 0.1, periodic=False).log_prob(x)[:, None]
    log_prob += dist.Normal(x[:, None], noise[:, None, None]).to_event(2).log_prob(y)
    log_prob += dist.HalfNormal(1.0).log_prob(noise)
    pi = np.exp(log_prob - log_prob.max())
    pi /= pi.sum()
    # Batches of 200 draws are as good as independent, of 50 not: the rare values of a site come in
    # runs, in which the noise is large.
    batches = np.asarray(draws["noise"]).reshape(60, 200)
    assert_within(batches.mean(), (pi.sum(0) * noise).sum(), batches.mean(1).std() / 60**0.5)
    batches = np.asarray(draws["x"], float).reshape(60, 200, 2, 3).mean(1)
    assert_within(batches.mean(0), np.tensordot(pi.sum(1), x, 1), batches.std(0) / 60**0.5)


@pytest.mark.slow
def test_draws_from_a_sampler_and_the_posterior_predictive():
    d = ns.Ising((2, 2), 0.3, 0.2, sampler=partial(ns.BlockGibbs, num_steps=20))
    x = np.asarray(d.sample(random.key(0), (3000,)), float)
    values = enumerated((-1, 1), (2, 2))
    pi = jax.nn.softmax(d.log_prob(values))
    assert_within(x.mean(0), np.tensordot(pi, values, 1), x.std(0) / np.sqrt(len(x)))
    machine = ns.BernoulliRBM(np.ones((4, 3)), np.ones(4), np.ones(3), sampler=ns.BlockGibbs)
    assert machine.sample(random.key(0), (2, 3)).shape == (2, 3, 4)
    assert machine.joint().sample(random.key(0), (2,)).shape == (2, 7)
    assert Predictive(unknown_noise, num_samples=3)(random.key(0))["y"].shape == (3, 2, 3)


def blurred(y):
    x = numpyro.sample("x", ns.Ising((2, 4), 0.3))
    numpyro.sample("y", dist.Normal(x + jnp.roll(x, 1, 1), 1.0).to_event(2), obs=y)


def of_the_sum(y):
    x = numpyro.sample("x", ns.Ising((2, 4), 0.3))
    numpyro.factor("f", 0.1 * jnp.sum(x))


def turned(y):
    x = numpyro.sample("x", ns.Ising((4, 4), 0.3))
    numpyro.sample("y", dist.Normal(x.T, 1.0).to_event(2), obs=jnp.tile(y, (2, 1)))


def almost_elementwise(y):
    x = numpyro.sample("x", ns.Ising((2, 4), 0.3))
    numpyro.sample("y", dist.Normal(x.at[0, 0].add(x[1, 3]), 1.0).to_event(2), obs=y)


def markov(y):
    with numpyro.plate("data", 4):
        z = numpyro.sample("x", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(z + jnp.roll(z, 1), 1.0).to_event(1), obs=y[0])


def continuous(y):
    numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("u", dist.Normal())


def counts(y):
    numpyro.sample("x", dist.Poisson(3.0))


def inferred_coupling(y):
    k = numpyro.sample("k", dist.Bernoulli(0.5))
    numpyro.sample("x", ns.Ising((2, 4), 0.3 * k))


def to_enumerate(y):
    numpyro.sample("x", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})


def visible_data(y):
    machine = ns.GaussianBernoulliRBM(np.ones((4, 3)), 0.0, 1.0, np.ones(3))
    x = numpyro.sample("x", machine.joint())
    numpyro.sample("y", dist.Normal(x[:4], 1.0).to_event(1), obs=y[0])


def masked(y):
    machine = ns.GaussianBernoulliRBM(np.ones((4, 3)), 0.0, 1.0, np.ones(3))
    with handlers.mask(mask=False):
        numpyro.sample("x", machine.joint())


def scaled(y):
    with handlers.scale(scale=0.5):
        numpyro.sample("x", ns.BernoulliRBM(np.ones((4, 3)), np.ones(4), np.ones(3)))


def subsampled(y):
    with numpyro.plate("data", 4, subsample_size=2):
        numpyro.sample("x", dist.Bernoulli(0.5))


NOT_A_SUM = r"'x', of shape \(.*\), at once: the log density of \['.'\] is not a sum over single"


@pytest.mark.parametrize(
    "model, message",
    [
        (blurred, NOT_A_SUM),
        (of_the_sum, NOT_A_SUM),
        (turned, NOT_A_SUM),
        (almost_elementwise, NOT_A_SUM),
        (markov, NOT_A_SUM),
        (continuous, r"updates discrete sites, but \['u'\] are continuous. Give them a kernel"),
        (counts, "finitely many states, but site 'x' is of Poisson"),
        (inferred_coupling, r"'x' has an unnormalised density .* latent sites \['k'\]"),
        (to_enumerate, r"\['x'\], which the model asks to enumerate"),
        (visible_data, r"continuous elements of site 'x' .*, but \['y'\] depend on them"),
        (masked, "density of site 'x' is scaled .* or masked"),
        (scaled, "density of site 'x' is scaled"),
        (subsampled, r"cannot subsample: the plates \['data'\]"),
        (lambda y: None, "found no discrete latent site"),
    ],
)
def test_a_model_that_cannot_be_drawn_in_blocks_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        draw(ns.BlockGibbs(model), random.key(0), 2, None, DATA)


@pytest.mark.parametrize(
    "blocks, message",
    [
        ([(["k"], None)], r"they miss \['x'\], and \[\] are no latent"),
        ([(["k", "x"], None), (["z"], None)], r"they miss \[\], and \['z'\] are no latent"),
        ([(["k"], None), (["x", "k"], None)], r"overlap: \['k'\] stand in several"),
        ([("k", None)], "must be pairs of a list of names .*, got"),
        ([(["k"], 3), (["x"], None)], r"conditional of the sites \['k'\] must be a function"),
        ([(["k"], lambda values, y: 3), (["x"], None)], r"must return a NumPyro .*, got int"),
        (
            [(["k"], lambda values, y: dist.Bernoulli(0.5)), (["x"], None)],
            r"'k' must have the shape of the site, \(2,\), got \(\)",
        ),
    ],
)
def test_blocks_that_do_not_fit_the_model_are_told(blocks, message):
    with pytest.raises(ValueError, match=message):
        draw(ns.BlockGibbs(two_sites, blocks), random.key(0), 2, None, DATA[:, :2])


def lattice(y):
    x = numpyro.sample("x", ns.Ising((2, 4), 0.3))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)


@pytest.mark.parametrize(
    "init_params, message",
    [
        ({"z": np.ones((2, 2, 4))}, r"values of the sites \['x'\], got \['z'\]"),
        ({"x": np.ones((2, 4))}, r"must have shape \(2, 2, 4\), got \(2, 4\)"),
    ],
)
def test_a_start_that_does_not_fit_is_told(init_params, message):
    with pytest.raises(ValueError, match=message):
        draw(ns.BlockGibbs(lattice), random.key(0), 2, init_params, DATA)


def test_data_that_are_nan_are_told():
    with (
        pytest.warns(UserWarning, match="Out-of-support"),  # NumPyro says so too
        pytest.raises(ValueError, match="not finite at the start"),
    ):
        draw(ns.BlockGibbs(two_sites), random.key(0), 2, None, np.full((2, 2), np.nan))
