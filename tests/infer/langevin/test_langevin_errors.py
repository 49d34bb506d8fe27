# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Models, starts and fields that are none are told in words."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def energy(z):
    return jnp.sum(z**2) / 2


@pytest.mark.parametrize("kernel", [ns.MALA, ns.MALT, ns.ULA, ns.UnderdampedLangevin])
@pytest.mark.parametrize(
    "what, message",
    [
        (dist.Normal(), r"got the distribution Normal: def model\(\)"),
        (ns.MALA, "got the class MALA"),
        (ns.MALA(lambda: None), "got MALA"),
        (3, "got 3"),
    ],
)
def test_what_is_no_model(kernel, what, message):
    with pytest.raises(TypeError, match=f"takes a NumPyro model.*{message}"):
        kernel(what)


@pytest.mark.parametrize("kernel", [ns.MALA, ns.BlockGibbs])
def test_the_class_of_a_kernel(kernel):
    with pytest.raises(TypeError, match=rf"takes a kernel, {kernel.__name__}\(model\), got its"):
        MCMC(kernel, num_warmup=1, num_samples=1)


@pytest.mark.parametrize("kernel", [ns.MALA, ns.MALT, ns.ULA])
def test_a_model_without_a_number_to_sample(kernel):
    def observed():
        numpyro.sample("y", dist.Normal(), obs=0.0)

    def empty():
        numpyro.sample("x", dist.Normal().expand([0]).to_event(1))

    for model, which in [(observed, "none"), (empty, r"only \['x'\] of size 0")]:
        with pytest.raises(ValueError, match=f"needs a continuous latent site.*has {which}"):
            kernel(model).init(random.key(0), 0, None, (), {})


@pytest.mark.parametrize("field", ["num_steps", "energy"])
def test_a_field_of_numpyros_states(field):
    mcmc = MCMC(ns.ULA(potential_fn=energy), num_warmup=0, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match=f"no field '{field}'.*Its fields.*num_grad_evals"):
        mcmc.run(random.key(0), extra_fields=(field,), init_params=jnp.zeros(2))


def test_a_start_of_integers():
    def normal():
        numpyro.sample("x", dist.Normal().expand([2]).to_event(1))

    start = {"x": np.array([1, 2])}
    state = ns.MALA(normal).init(random.key(0), 0, start, (), {})
    np.testing.assert_array_equal(state.z_grad, [1.0, 2.0])
    kernel = ns.ULA(potential_fn=lambda z: jnp.sum(z["x"] ** 2) / 2)
    state = kernel.init(random.key(0), 0, start, (), {})
    assert state.z["x"].dtype == np.float32
    with pytest.raises(ValueError, match="must be real"):
        ns.MALA(normal).init(random.key(0), 0, {"x": np.array([1j, 2])}, (), {})
