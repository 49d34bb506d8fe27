# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Kernels as blocks of `numpyro.infer.Gibbs`, beside NUTS and DiscreteGibbs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, mean_and_error
from jax import random
from numpyro.infer import MCMC, NUTS, DiscreteGibbs, Gibbs
from numpyro.infer.gibbs import GIBBS_SITES_KWARG

import numpyro_scores as ns

Y, NOISE, SHIFT, PROBABILITY = 1.5, 0.7, 2.0, 0.4


def denoiser(x, sigma):
    return x / (1 + sigma**2)


def model_with(prior, y):
    """y = x + v + w + 2 k + noise, with x, v and w standard normal."""
    k = numpyro.sample("k", dist.Bernoulli(PROBABILITY))
    x = numpyro.sample("x", prior)
    v = numpyro.sample("v", dist.Normal(0.0, 1.0))
    w = numpyro.sample("w", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(x[0] + v + w + SHIFT * k, NOISE), obs=y)


MODEL = partial(model_with, dist.Normal(0.0, 1.0).expand([1]).to_event(1))
DIFFUSION_MODEL = partial(
    model_with, ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.05, 5.0), 1)
)


def exact_moments():
    """E[s] and E[s s^T] of s = (k, x, v, w): given k all is Gaussian, the evidence too."""
    a = np.ones(3)
    covariance = np.linalg.inv(np.eye(3) + np.outer(a, a) / NOISE**2)
    shifted = Y - SHIFT * np.arange(2)
    evidence = np.exp(-(shifted**2) / (2 * (3 + NOISE**2))) * [1 - PROBABILITY, PROBABILITY]
    weights = evidence / evidence.sum()
    means = np.column_stack([np.arange(2), shifted[:, None] * (covariance @ a) / NOISE**2])
    second = np.einsum("k,ki,kj->ij", weights, means, means)
    second[1:, 1:] += covariance
    return weights @ means, second


BLOCKS = {
    "Langevin": [
        (DiscreteGibbs(MODEL), ["k"]),
        (ns.MALA(MODEL, num_steps=5), ["x"]),
        # The variance of v given the rest is 3% too large: below the errors of this test.
        (ns.ULA(MODEL, step_size=0.02, num_steps=5), ["v"]),
        (NUTS(MODEL, max_tree_depth=3), ["w"]),
    ],
    "annealed": [
        (DiscreteGibbs(DIFFUSION_MODEL), ["k"]),
        (ns.AnnealedLangevin(DIFFUSION_MODEL, num_levels=50, num_steps=20), ["x"]),
        (NUTS(DIFFUSION_MODEL, max_tree_depth=3), ["v", "w"]),
    ],
}


@pytest.mark.parametrize("blocks", BLOCKS)
def test_the_posterior_of_blocks(blocks):
    """First and second moments, within and between blocks, within 4 standard errors (0.025)."""
    mcmc = MCMC(
        Gibbs(BLOCKS[blocks]),
        num_warmup=100,
        num_samples=200,
        num_chains=100,
        chain_method=jax.vmap,
        progress_bar=False,
    )
    mcmc.run(random.key(0), Y)
    draws = mcmc.get_samples(group_by_chain=True)
    s = np.stack([np.reshape(draws[site], (100, 200)) for site in "kxvw"], axis=-1)
    first, second = exact_moments()
    for moment, expected in [(s, first), (np.einsum("cdi,cdj->cdij", s, s), second)]:
        mean, error = mean_and_error(moment)
        assert np.all(error < 0.025), error
        assert_within(mean, expected, error)


KERNELS = {
    "ULA": partial(ns.ULA, MODEL, step_size=0.1),
    "MALA": partial(ns.MALA, MODEL, step_size=0.1),
    "MALT": partial(ns.MALT, MODEL, step_size=0.3),
    "AnnealedLangevin": partial(ns.AnnealedLangevin, DIFFUSION_MODEL, num_levels=2),
}


def conditioned(model, *args, **kwargs):
    """As `numpyro.infer.Gibbs` hands a model to its blocks."""
    values = kwargs.pop(GIBBS_SITES_KWARG, {})
    with numpyro.handlers.condition(data=values):
        return model(*args, **kwargs)


@pytest.mark.parametrize("name", KERNELS)
def test_refresh_is_a_new_start_at_the_same_point(x64, name):
    """What a state keeps of the model is that of the new neighbours; nothing else changes."""
    kernel = KERNELS[name]().wrap_model(lambda model: partial(conditioned, model))

    def neighbours(w):
        return {GIBBS_SITES_KWARG: {"k": 1, "v": 0.3, "w": w}}

    z = {"x": jnp.array([0.3])}
    state = kernel.init(random.key(0), 0, z, (Y,), neighbours(0.5))
    refreshed = kernel.refresh(state, (Y,), neighbours(-2.0))
    fresh = kernel.init(random.key(0), 0, z, (Y,), neighbours(-2.0))
    for field in ("z", "potential_energy", "z_grad", "integrator_state"):
        if hasattr(state, field):
            jax.tree.map(
                partial(np.testing.assert_allclose, rtol=1e-12),
                getattr(refreshed, field),
                getattr(fresh, field),
            )
    moved = kernel.sample(refreshed, (Y,), neighbours(-2.0)).z["x"]
    unmoved = kernel.sample(state, (Y,), neighbours(0.5)).z["x"]
    assert np.all(np.isfinite(moved)) and np.all(moved != unmoved)


@pytest.mark.parametrize("kernel", [ns.ULA, ns.MALA])
def test_init_params_come_constrained(kernel):
    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("x", dist.Normal(0.0, scale))

    blocks = Gibbs([(kernel(model), ["scale"]), (ns.MALA(model, step_size=0.1), ["x"])])
    state = blocks.init(random.key(0), 0, {"scale": jnp.array(2.0)}, (), {})
    np.testing.assert_allclose(state.z["scale"], np.log(2.0), rtol=1e-6)
    # The block beside it saw the constrained value too.
    x = state.z["x"]
    np.testing.assert_allclose(
        state.block_states[1].potential_energy,
        -dist.Normal(0.0, 2.0).log_prob(x) - dist.HalfNormal(1.0).log_prob(2.0),
        rtol=1e-5,
    )


def test_a_kernel_of_a_potential_is_no_block():
    kernel = ns.MALA(potential_fn=lambda x: x**2)
    with pytest.raises(ValueError, match="potential function cannot be blocks"):
        Gibbs([(kernel, ["x"])])
    with pytest.raises(ValueError, match="built from a potential_fn has no model to wrap"):
        kernel.wrap_model(lambda model: model)
