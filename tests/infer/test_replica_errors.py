# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What replica exchange cannot wrap, and starts and ladders that it does not take."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from infer.replicas import flat
from jax import random
from numpyro.infer import HMC, NUTS, BarkerMH, Gibbs

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def of_a_diffusion_prior():
    process = ns.VarianceExploding(0.01, 10.0)
    numpyro.sample("x", ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), process, 1))


@pytest.mark.parametrize(
    "kernel, message",
    [
        (BarkerMH(flat), "cannot wrap BarkerMH, which does not implement"),
        (Gibbs([(NUTS(flat), None)]), r"cannot wrap Gibbs, which does not implement"),
        (ns.MALA(potential_fn=jnp.sum), "MALA was built from a potential_fn"),
        (NUTS(potential_fn=jnp.sum), "NUTS was built from a potential_fn"),
        (ns.AnnealedLangevin(of_a_diffusion_prior), "goes through the noise levels of the priors"),
        (HMC(flat, find_heuristic_step_size=True), "find_heuristic_step_size=True"),
        (ns.SplitGibbs(of_a_diffusion_prior, coupling=0.3), "cannot wrap SplitGibbs"),
        (ns.ExchangeKernel(flat), "their normalisers are not known"),
        (
            ns.ReplicaExchange(ns.ULA(flat), ns.InverseTemperatures([1.0, 0.5])),
            "cannot wrap ReplicaExchange",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_kernel_that_cannot_be_wrapped(kernel, message):
    with pytest.raises(ValueError, match=message):
        ns.ReplicaExchange(kernel, ns.InverseTemperatures([1.0, 0.5]))


@pytest.mark.parametrize(
    "kernel, message",
    [
        (flat, "takes a kernel, such as MALA"),
        (ns.MALA, r"takes a kernel, MALA\(model\), got its class"),
        (dist.Normal(0.0, 1.0), "A distribution is drawn from by a kernel"),
    ],
    ids=["model", "class", "distribution"],
)
def test_what_is_no_kernel_is_told(kernel, message):
    with pytest.raises(TypeError, match=message):
        ns.ReplicaExchange(kernel, ns.InverseTemperatures([1.0, 0.5]))


def test_a_list_is_not_a_ladder():
    with pytest.raises(ValueError, match=r"ladder must be InverseTemperatures\(\[...\]\)"):
        ns.ReplicaExchange(ns.ULA(flat), [1.0, 0.5])


def test_a_block_of_gibbs_would_be_wrong():
    kernel = ns.ReplicaExchange(ns.ULA(flat), ns.InverseTemperatures([1.0, 0.5]))
    with pytest.raises(ValueError, match="does not implement `refresh`"):
        Gibbs([(kernel, None)])


def test_a_start_that_is_not_finite_on_some_rung():
    def model():
        x = numpyro.sample("x", dist.Normal())
        numpyro.factor("f", jnp.log(x))

    kernel = ns.ReplicaExchange(ns.ULA(model, step_size=0.1), ns.InverseTemperatures([1.0, 0.5]))
    keys, starts = random.split(random.key(0), 3), {"x": jnp.array([1.0, -1.0, 2.0])}
    with pytest.raises(ValueError, match=r"not finite at the start of chains \[1\]"):
        kernel.init(keys, 0, starts, (), {})


def test_init_comes_before_sample():
    kernel = ns.ReplicaExchange(ns.ULA(flat), ns.InverseTemperatures([1.0, 0.5]))
    with pytest.raises(RuntimeError, match="init must run before sample"):
        kernel.sample(None, (), {})
