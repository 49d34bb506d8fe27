# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What kernels of noise levels refuse in words; transformed priors, supports, warmups."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.diffusion.annealed_models import (
    KERNELS,
    MODELS,
    PRIOR,
    REFUSED,
    Y,
    in_other_units,
    observe,
    plain,
    subsampled,
)
from jax import random
from numpyro.contrib.control_flow import scan
from numpyro.distributions import transforms
from numpyro.handlers import scale

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("model", sorted(REFUSED))
def test_what_has_no_denoiser_is_refused(model, kernel):
    if kernel == "AnnealedLangevin":
        return
    with pytest.raises(ValueError, match=r"AnnealedLangevin\(model\)"):
        KERNELS[kernel](MODELS[model][0]).init(random.key(0), 0, None, (), {})


def in_a_scan():
    def step(carry, _):
        return carry, numpyro.sample("x", PRIOR)

    observe(scan(step, 0.0, None, length=2)[1])


def scaled_beneath_a_curve():
    with scale(scale=2.0):
        in_other_units(transforms.ExpTransform())


def two_mixed():
    mixture = dist.MixtureGeneral(dist.Categorical(jnp.ones(2) / 2), [PRIOR, PRIOR])
    observe(numpyro.sample("x", mixture))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "model, message",
    [
        (subsampled, "'n' has a random subsample of 2 of 6"),
        (in_a_scan, "cannot anneal site 'x'.*by scan or cond"),
        (two_mixed, r"mixtures \['x'\] of noise-conditional priors"),
    ],
)
def test_what_no_kernel_can_do_is_told(model, message, kernel):
    with pytest.raises(ValueError, match=message):
        KERNELS[kernel](model).init(random.key(0), 0, None, (), {})


def test_a_power_of_a_density_with_a_jacobian_is_refused():
    with pytest.raises(ValueError, match="also has the Jacobian"):
        ns.AnnealedLangevin(scaled_beneath_a_curve).init(random.key(0), 0, None, (), {})


@pytest.mark.parametrize("model", [PRIOR, 3])
def test_what_is_no_model_is_told(model):
    with pytest.raises(TypeError, match="AnnealedLangevin takes a NumPyro model"):
        ns.AnnealedLangevin(model)


def test_a_curved_transform_and_a_support_that_depends_on_another_site():
    """
    x = exp(v) of a standard normal v, measured as log x with noise 1; and u ~ U(0, b) with b ~
    U(1, 2), of which nothing is measured: E[u] = 3/4, and u < b.
    """

    def model():
        x = numpyro.sample("x", dist.TransformedDistribution(PRIOR, transforms.ExpTransform()))
        b = numpyro.sample("b", dist.Uniform(1.0, 2.0))
        u = numpyro.sample("u", dist.Uniform(0.0, b).expand([1]).to_event(1))
        numpyro.deterministic("share", u / b)
        observe(jnp.log(x))

    kernel = ns.DAPS(model, num_levels=20)
    state = kernel.init(random.split(random.key(0), 1_000), 0, None, (), {})
    state = jax.jit(lambda state: kernel.sample(state, (), {}))(state)
    found = jax.jit(jax.vmap(kernel.postprocess_fn((), {})))(state.z)
    log_x = np.log(np.asarray(found["x"], np.float64))
    np.testing.assert_allclose(log_x.mean(axis=0), Y / 2, atol=0.12)
    np.testing.assert_allclose(log_x.var(axis=0), 0.5, rtol=0.25)
    u, b = np.asarray(found["u"])[:, 0], np.asarray(found["b"])
    assert np.all(u < b) and np.all(u > 0)
    np.testing.assert_allclose(found["share"][:, 0], u / b, rtol=1e-6)
    np.testing.assert_allclose(u.mean(), 0.75, atol=0.06)
    blocks = kernel.get_constrain_fn((), {})(jax.tree.map(lambda z: z[0], state.z))
    assert set(blocks) == {"x", "b", "u"}
    np.testing.assert_allclose(blocks["x"], found["x"][0], rtol=1e-6)


@pytest.mark.parametrize("make", [partial(ns.DAPS, num_levels=3), KERNELS["MomentMatching"]])
def test_the_draws_of_a_warmup_cost_nothing(make):
    """A run has the same draws whatever its warmup, and those of the warmup no gradients."""
    kernel = make(plain(1.0))
    keys = random.split(random.key(0), 3)
    sample = jax.jit(lambda state: kernel.sample(state, (), {}))
    first = kernel.init(keys, 2, None, (), {})
    state = sample(sample(first))
    jax.tree.map(np.testing.assert_array_equal, state.z, first.z)
    np.testing.assert_array_equal(state.num_grad_evals, 0)
    drawn = sample(state)
    assert np.all(drawn.num_grad_evals > 0)
    np.testing.assert_array_equal(drawn.i, 3)
    kernel = make(plain(1.0))
    without = kernel.init(keys, 0, None, (), {})
    without = jax.jit(lambda state: kernel.sample(state, (), {}))(without)
    jax.tree.map(np.testing.assert_array_equal, drawn.z, without.z)


def of_unknown_noise():
    with numpyro.plate("n", 2):
        x = numpyro.sample("x", PRIOR)
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        observe(x, noise=noise[:, None])


@pytest.mark.slow
@pytest.mark.parametrize("kernel", KERNELS)
def test_switches_of_jax_and_kinds_of_keys(kernel):
    made = KERNELS[kernel](of_unknown_noise)
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        for key in (random.key(0), random.PRNGKey(0), random.key(0, impl="rbg")):
            state = made.init(random.split(key, 2), 1, None, (), {})
            for _ in range(2):
                state = made.sample(state, (), {})
            assert np.all(np.isfinite(state.z["x"]))
