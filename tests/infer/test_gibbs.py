# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Kernels as blocks of `numpyro.infer.Gibbs`, beside NUTS and DiscreteGibbs."""

from functools import partial
from operator import itemgetter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, mean_and_error
from jax import lax, random
from numpyro.infer import NUTS, DiscreteGibbs, DiscreteHMCGibbs, Gibbs
from numpyro.infer.gibbs import GIBBS_SITES_KWARG

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

Y = np.array([-1.2, -0.4, 0.3, 0.9, 1.6, 2.4])
NOISE, SHARE = 0.7, 0.4

# The programs of this file are large and run once: compiling is most of its time.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def denoiser(x, sigma):
    """Of a standard normal."""
    return x / (1 + sigma**2)


def mixture(prior, y):
    """Two components, whose locations are inferred with the assignments of the data to them."""
    low = numpyro.sample("low", prior)
    high = numpyro.sample("high", dist.Normal(1.5, 1.0))
    with numpyro.plate("data", len(Y)):
        k = numpyro.sample("k", dist.Bernoulli(SHARE))
        numpyro.sample("y", dist.Normal(jnp.where(k == 1, high, low[0]), NOISE), obs=y)


MODEL = partial(mixture, dist.Normal(0.0, 1.0).expand([1]).to_event(1))
DIFFUSION_MODEL = partial(mixture, ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.05, 5.0), 1))

# Steps so small that the bias of those without a Metropolis test is below the errors here.
KERNELS = {
    "ULA": partial(ns.ULA, MODEL, step_size=0.005, num_steps=30),
    "LeimkuhlerMatthews": partial(
        ns.OverdampedLangevin,
        MODEL,
        step_size=0.02,
        num_steps=5,
        integrator=ns.LeimkuhlerMatthews(),
    ),
    "UnderdampedLangevin": partial(ns.UnderdampedLangevin, MODEL, step_size=0.1, num_steps=5),
    "SKROCK": partial(ns.SKROCK, MODEL, step_size=0.01, num_stages=2, num_steps=20),
    "MALA": partial(ns.MALA, MODEL, step_size=0.1, num_steps=5),
    "MALT": partial(ns.MALT, MODEL, step_size=0.3, num_steps=10),
    "MAMS": partial(ns.MAMS, MODEL, trajectory_length=0.7, adapt_mass_matrix=False),
    "MCLMC": partial(
        ns.MCLMC,
        MODEL,
        step_size=0.1,
        decoherence_length=0.7,
        num_steps=10,
        adapt_mass_matrix=False,
    ),
    "AnnealedLangevin": partial(ns.AnnealedLangevin, DIFFUSION_MODEL, num_levels=20, num_steps=5),
}
BESIDE_NUTS = ("MALA",)


def exact_moments():
    """E[s] and E[s s^T] of s = (low, high, k): given the locations the k are independent."""
    low, high = np.meshgrid(*[np.linspace(-6.0, 6.0, 601)] * 2, indexing="ij")
    odds = (
        SHARE
        / (1 - SHARE)
        * np.exp(((Y - low[..., None]) ** 2 - (Y - high[..., None]) ** 2) / (2 * NOISE**2))
    )
    log_density = (
        -(low**2 + (high - 1.5) ** 2) / 2
        - np.sum((Y - low[..., None]) ** 2, axis=-1) / (2 * NOISE**2)
        + np.sum(np.log1p(odds), axis=-1)
    )
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    s = np.concatenate([low[..., None], high[..., None], odds / (1 + odds)], axis=-1)
    first = np.einsum("ab,abi->i", weights, s)
    second = np.einsum("ab,abi,abj->ij", weights, s, s)
    of_k = np.arange(2, len(first))
    second[of_k, of_k] = first[of_k]  # k^2 = k
    return first, second


def moments(kernel, num_chains=200, num_warmup=50, num_draws=100):
    """First and second moments of s by independent chains, each as mean and standard error."""

    def chain(key):
        def step(state, _):
            state = kernel.sample(state, (Y,), {})
            return state, kernel.postprocess_fn((Y,), {})(state.z)

        state = kernel.init(key, num_warmup, None, (Y,), {})
        draws = lax.scan(step, state, length=num_warmup + num_draws)[1]
        return jnp.column_stack([draws["low"], draws["high"], draws["k"]])[num_warmup:]

    s = np.asarray(jit(jax.vmap(chain))(random.split(random.key(0), num_chains)), float)
    return [mean_and_error(s), mean_and_error(np.einsum("cdi,cdj->cdij", s, s))]


@pytest.fixture(scope="module")
def numpyros():
    return moments(DiscreteHMCGibbs(NUTS(MODEL, max_tree_depth=4)))


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("MALA", "AnnealedLangevin") else pytest.param(name, marks=pytest.mark.slow)
        for name in KERNELS
    ],
)
def test_a_block_beside_discrete_gibbs_has_the_posterior(name, numpyros):
    """Within 4 standard errors (at most 0.05) of the exact one and of NumPyro's HMC-in-Gibbs."""
    kernel = KERNELS[name]()
    blocks = [(DiscreteGibbs(kernel.model), ["k"]), (kernel, ["low", "high"])]
    if name in BESIDE_NUTS:
        blocks[1:] = [(kernel, ["low"]), (NUTS(kernel.model, max_tree_depth=3), ["high"])]
    for (mean, error), theirs, exact in zip(
        moments(Gibbs(blocks)), numpyros, exact_moments(), strict=True
    ):
        assert np.all(error < 0.05), error
        assert_within(mean, exact, error)
        assert_within(mean, theirs[0], np.hypot(error, theirs[1]))


def conditioned(model, *args, **kwargs):
    """As `numpyro.infer.Gibbs` hands a model to its blocks."""
    values = kwargs.pop(GIBBS_SITES_KWARG, {})
    with numpyro.handlers.condition(data=values):
        return model(*args, **kwargs)


@pytest.mark.parametrize("name", KERNELS)
def test_refresh_is_a_new_start_at_the_same_point(x64, name):
    """What a state keeps of the model is that of the new neighbours; nothing else changes."""
    kernel = KERNELS[name]().wrap_model(lambda model: partial(conditioned, model))

    def neighbours(k):
        return {GIBBS_SITES_KWARG: {"k": k}}

    @jit
    def states(k):
        z = {"low": jnp.array([0.3]), "high": jnp.array(1.2)}
        starts = jax.vmap(lambda k: kernel.init(random.key(0), 0, z, (Y,), neighbours(k)))(k)
        before, fresh = (jax.tree.map(itemgetter(i), starts) for i in range(2))
        refreshed = kernel.refresh(before, (Y,), neighbours(k[1]))
        return fresh, refreshed, kernel.sample(refreshed, (Y,), neighbours(k[1]))

    fresh, refreshed, moved = states(jnp.array([[0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 0, 1]]))
    for field in ("z", "potential_energy", "z_grad", "grad", "memory"):
        if hasattr(fresh, field):
            jax.tree.map(
                partial(np.testing.assert_allclose, rtol=1e-12),
                getattr(refreshed, field),
                getattr(fresh, field),
            )
    assert np.all(np.isfinite(moved.z["low"])) and np.all(moved.z["low"] != refreshed.z["low"])


@pytest.mark.parametrize("kernel", [ns.ULA, ns.MALA])
def test_init_params_come_constrained(kernel):
    def model():
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("x", dist.Normal(0.0, scale))

    blocks = Gibbs(
        [(kernel(model, step_size=0.1), ["scale"]), (ns.MALA(model, step_size=0.1), ["x"])]
    )
    state = jit(lambda start: blocks.init(random.key(0), 0, start, (), {}))({"scale": 2.0})
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
