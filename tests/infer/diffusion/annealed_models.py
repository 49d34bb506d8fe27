# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Models that do something to a diffusion prior, and the kernels that go through its noise levels.

The priors are standard normals, for which all kernels but `DiffusionPosteriorSampling` are exact up
to their steps, and every posterior is a Gaussian in closed form.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.contrib.control_flow import cond, scan
from numpyro.distributions import transforms
from numpyro.handlers import mask, scale, substitute

import numpyro_scores as ns

PROCESS = ns.VarianceExploding(0.02, 10.0)


def denoise(x, sigma):
    return x / (1 + sigma**2)


PRIOR = ns.DiffusionPrior(denoise, PROCESS, 2)
Y = np.array([2.0, -2.0])


def observe(x, y=Y, noise=1.0):
    y = jnp.broadcast_to(jnp.asarray(y), x.shape)
    numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)


def scaled_likelihood():
    x = numpyro.sample("x", PRIOR)
    with scale(scale=4.0):
        observe(x)


def masked_likelihood():
    with numpyro.plate("n", 2):
        x = numpyro.sample("x", PRIOR)
        with mask(mask=jnp.array([True, False])):
            observe(x)


def masked_prior():
    with numpyro.plate("n", 2):
        with mask(mask=jnp.array([True, False])):
            x = numpyro.sample("x", PRIOR)
        observe(x)


def no_prior():
    with mask(mask=False):
        x = numpyro.sample("x", PRIOR)
    observe(x)


def expanded():
    x = numpyro.sample("x", PRIOR.expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x.sum(axis=0), 1.0).to_event(1), obs=jnp.asarray(Y))


def with_all_kinds_of_messages():
    """None of them matters."""
    with numpyro.plate("n", 2):
        x = numpyro.sample("x", PRIOR)
        offset = numpyro.param("offset", lambda key: random.normal(key) * 0)
        key = numpyro.prng_key()
        observe(x + offset + 0 * random.normal(key))
    numpyro.factor("", jnp.zeros(()))
    numpyro.deterministic("twice", 2 * x)
    cond(True, partial(numpyro.sample, "a"), partial(numpyro.sample, "a"), dist.Normal())


def subsampled():
    """Two of six data, each of which counts three times."""
    x = numpyro.sample("x", PRIOR)
    with numpyro.plate("n", 6, subsample_size=2) as index:
        observe(jnp.broadcast_to(x, (2, 2)), np.tile(Y, (6, 1))[index], 2.0)


def in_other_units(transform):
    x = numpyro.sample("x", dist.TransformedDistribution(PRIOR, transform))
    observe(x, noise=3.0)


def beside_a_scan():
    """A random walk of three steps, whose last is measured together with x."""
    x = numpyro.sample("x", PRIOR)

    def step(walk, _):
        walk = numpyro.sample("walk", dist.Normal(walk, 1 / 3))
        return walk, walk

    walk, _ = scan(step, jnp.zeros(()), None, length=3)
    observe(x + walk)


def scaled_prior():
    with scale(scale=4.0):
        x = numpyro.sample("x", PRIOR)
    observe(x)


def a_mean_of_a_prior():
    """x ~ N(mean, 1) with mean ~ N(0, 1)."""
    mean = numpyro.sample("mean", dist.Normal())
    denoiser = jax.tree_util.Partial(lambda m, x, sigma: m + denoise(x - m, sigma), mean)
    x = numpyro.sample("x", ns.DiffusionPrior(denoiser, PROCESS, 2))
    observe(x)


def gaussian(prior, noise, y):
    """Means and variances of x ~ N(0, prior) given y = x + noise."""
    gain = prior @ np.linalg.inv(prior + noise)
    return gain @ y, np.diag(prior - gain @ prior)


EYE = np.eye(2)
HALF = (np.tile(Y / 2, (2, 1)), np.full((2, 2), 0.5))
DIAGONAL = transforms.AffineTransform(jnp.array([1.0, -1.0]), jnp.array([3.0, 6.0]))
# The model, and the means and variances of x.
MODELS = {
    "scale on the likelihood": (scaled_likelihood, 0.8 * Y, np.full(2, 0.2)),
    "mask on the likelihood": (masked_likelihood, [Y / 2, 0 * Y], [[0.5] * 2, [1.0] * 2]),
    "mask on a prior": (masked_prior, [Y / 2, Y], [[0.5] * 2, [1.0] * 2]),
    "no prior": (no_prior, Y, np.ones(2)),
    "expand and to_event": (expanded, np.tile(Y / 3, (2, 1)), np.full((2, 2), 2 / 3)),
    "plate, param, prng_key, factor, cond": (with_all_kinds_of_messages, *HALF),
    "subsample with indices": (
        substitute(subsampled, data={"n": jnp.array([1, 4])}),
        0.6 * Y,
        np.full(2, 0.4),
    ),
    "affine": (
        partial(in_other_units, transforms.AffineTransform(5.0, 3.0)),
        (5 + Y) / 2,
        np.full(2, 4.5),
    ),
    "affine, a unit for each entry": (
        partial(in_other_units, DIAGONAL),
        [(1 + 2) / 2, -1 + (-2 + 1) * 0.8],
        [4.5, 7.2],
    ),
    "scan": (beside_a_scan, *gaussian(EYE, EYE + 1 / 3, Y)),
    "scale on the prior": (scaled_prior, Y / 5, np.full(2, 0.2)),
    "a prior that depends on another site": (a_mean_of_a_prior, *gaussian(EYE + 1, EYE, Y)),
}
KERNELS = {
    "AnnealedLangevin": partial(ns.AnnealedLangevin, num_levels=40),
    "DAPS": partial(ns.DAPS, num_levels=20),
    "DPS": partial(ns.DiffusionPosteriorSampling, sampler=ns.Ancestral(30)),
    "MomentMatching": partial(ns.MomentMatching, sampler=ns.Heun(30, churn=20.0)),
    "SplitGibbs": partial(ns.SplitGibbs, coupling=0.25, sampler=ns.Ancestral(30)),
}


def draws(kernel, num_chains=1_000):
    """Draws of x as NumPyro collects them, one of each chain; of `SplitGibbs` the last of 30."""
    num_warmup, num_draws = (10, 30) if isinstance(kernel, ns.SplitGibbs) else (0, 1)
    state = kernel.init(random.split(random.key(0), num_chains), num_warmup, None, (), {})

    def sample(_, state):
        return kernel.sample(state, (), {})

    state = jax.jit(lambda state: jax.lax.fori_loop(0, num_draws, sample, state))(state)
    assert not np.any(state.diverging)
    return np.asarray(jax.vmap(kernel.postprocess_fn((), {}))(state.z)["x"], np.float64)


def plain(noise):
    def model():
        observe(numpyro.sample("x", PRIOR), noise=noise)

    return model


REFUSED = {"scale on the prior", "a prior that depends on another site"}  # by all that denoise
