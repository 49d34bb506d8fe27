# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the kernels of discrete sites promise as kernels of `MCMC`, and as blocks of `Gibbs`."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_within, mean_and_error
from jax import lax, random
from numpyro.infer import NUTS, Gibbs

import numpyro_scores as ns

NUM_CHAINS, NUM_WARMUP, NUM_SAMPLES = 2, 3, 4
Y = np.array([[0.5, -1.0, 2.0], [1.0, 0.0, -0.5]])
KERNELS = {
    "GibbsWithGradients": partial(ns.GibbsWithGradients, num_steps=3),
    "DiscreteLangevin": partial(ns.DiscreteLangevin, num_steps=2),
    "unadjusted": partial(ns.DiscreteLangevin, num_steps=2, adjusted=False, step_size=0.3),
    "SwendsenWang": ns.SwendsenWang,
}

# In float64 all ways to run a chain agree.
pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")


def model(y):
    x = numpyro.sample("x", ns.Ising((2, 3), 0.4))
    numpyro.deterministic("up", jnp.sum(x == 1))
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=y)


@pytest.fixture(
    scope="module",
    # These three are wired alike.
    params=[
        pytest.param(name, marks=pytest.mark.slow)
        if name in ("GibbsWithGradients", "unadjusted")
        else name
        for name in KERNELS
    ],
)
def name(request):
    return request.param


FIELDS = ("potential_energy", "accept_prob")


@pytest.fixture(scope="module")
def vectorized(name):
    """Two vectorized chains that keep the contract."""
    mcmc = ns.testing.check_kernel(
        partial(KERNELS[name], model),
        Y,
        key=random.key(0),
        extra_fields=() if name == "SwendsenWang" else FIELDS,
        # What maps the chains is the same for all.
        chain_methods=["parallel"] if name == "DiscreteLangevin" else ["sequential"],
        num_chains=NUM_CHAINS,
        num_warmup=NUM_WARMUP,
        num_samples=NUM_SAMPLES,
    )
    return mcmc, mcmc.get_samples(group_by_chain=True)


def test_draws_are_states_and_fields_are_of_the_draws(name, vectorized):
    mcmc, draws = vectorized
    assert draws["x"].shape == (NUM_CHAINS, NUM_SAMPLES, 2, 3) and draws["x"].dtype == np.int8
    assert set(np.unique(draws["x"])) == {-1, 1}
    assert np.any(draws["x"][0] != draws["x"][1])
    assert np.any(np.diff(draws["x"], axis=1) != 0)
    if name != "SwendsenWang":
        fields = mcmc.get_extra_fields(group_by_chain=True)
        energy = jax.jit(jax.vmap(jax.vmap(mcmc.sampler.get_potential_fn((Y,), {}))))
        expected = energy({"x": draws["x"]})
        np.testing.assert_allclose(fields["potential_energy"], expected, rtol=1e-12)
        assert np.all((fields["accept_prob"] > 0) & (fields["accept_prob"] <= 1))
    data = ns.to_inference_data(mcmc)
    np.testing.assert_array_equal(data["posterior"]["x"].values, draws["x"])


def test_init_params_are_where_a_chain_starts(name):
    kernel = KERNELS[name](model)
    x = np.where(Y > 0, 1, -1)
    state = kernel.init(random.key(0), 0, {"x": x}, (Y,), {})
    np.testing.assert_array_equal(state.z["x"], x)
    with pytest.raises(ValueError, match=r"init_params\['x'\] must have shape \(2, 3\), got \(3,"):
        kernel.init(random.key(0), 0, {"x": x[0]}, (Y,), {})
    with pytest.raises(ValueError, match="not finite at the start"):
        kernel.init(random.key(0), 0, None, (Y * np.nan,), {})


BLUR = np.array([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]])
BLURRED = np.array([0.2, 1.1])


def deblurring():
    noise = numpyro.sample("noise", dist.LogNormal(-0.5, 0.5))
    with numpyro.plate("pixels", 3):
        x = numpyro.sample("x", dist.Bernoulli(0.4))
    numpyro.sample("y", dist.Normal(BLUR @ x, noise).to_event(1), obs=BLURRED)


def exact_means():
    """Of the pixels and of the log noise: all pictures, and a fine grid of the noise."""
    log_noise = np.linspace(-4, 4, 4001)
    x = np.array(list(itertools.product([0, 1], repeat=3)))
    prior = x.sum(-1) * np.log(0.4) + (3 - x.sum(-1)) * np.log(0.6)
    residuals = np.sum((BLURRED - x @ BLUR.T) ** 2, axis=-1)
    log_p = prior[:, None] - residuals[:, None] / (2 * np.exp(2 * log_noise)) - 2 * log_noise
    log_p += -((log_noise + 0.5) ** 2) / (2 * 0.5**2)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    return np.append(p.sum(1) @ x, p.sum(0) @ log_noise)


@pytest.mark.parametrize(
    "name", [pytest.param("GibbsWithGradients", marks=pytest.mark.slow), "DiscreteLangevin"]
)
def test_a_block_beside_nuts_has_the_posterior(name):
    """A likelihood that joins the pixels, and whose noise another block moves."""
    num_chains, num_warmup, num_draws = 40, 30, 150
    kernel = Gibbs(
        [(KERNELS[name](deblurring), ["x"]), (NUTS(deblurring, max_tree_depth=3), ["noise"])]
    )

    def chain(key):
        def step(state, _):
            state = kernel.sample(state, (), {})
            return state, jnp.append(state.z["x"], state.z["noise"])

        state = kernel.init(key, num_warmup, None, (), {})
        return lax.scan(step, state, length=num_warmup + num_draws)[1][num_warmup:]

    draws = np.asarray(jax.jit(jax.vmap(chain))(random.split(random.key(0), num_chains)))
    mean, error = mean_and_error(draws)
    assert np.all(error < 0.03), error
    assert_within(mean, exact_means(), error)
