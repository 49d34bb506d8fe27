# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Networks of torch as functions of JAX. Torch is no dependency, not of the tests either."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC

import numpyro_scores as ns

torch: Any = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
needs_torch = pytest.mark.skipif(torch is None, reason="torch is not installed")


@pytest.fixture(scope="module")
def module():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(2, 6, 3, padding=1)
            self.norm = torch.nn.GroupNorm(2, 6)
            self.last = torch.nn.Conv2d(6, 2, 3, padding=1)

        def forward(self, x, t):
            h = self.norm(self.first(x) + t[:, None, None, None])
            y = h.flatten(2).transpose(1, 2)
            y = torch.nn.functional.scaled_dot_product_attention(y, y, y)
            return self.last(torch.nn.functional.silu(h + y.transpose(1, 2).reshape(h.shape)))

    torch.manual_seed(0)
    return Network().eval()


def points(dtype):
    rng = np.random.RandomState(0)
    arrays = rng.normal(size=(3, 2, 4, 4)), np.array([0.3, 1.0, 2.0]), rng.normal(size=(3, 2, 4, 4))
    return [a.astype(dtype) for a in arrays]


@needs_torch
@pytest.mark.parametrize("dtype, bound", [("float32", 1e-6), ("float64", 1e-14)])
def test_values_and_derivatives_are_those_of_torch(x64, module, dtype, bound):
    module = module.to(getattr(torch, dtype))
    network = ns.from_torch(module, (2, 4, 4))
    x, t, c = points(dtype)

    @jax.jit
    @jax.vmap
    def found(x, t, c):
        out, pullback = jax.vjp(network, x, t)
        _, tangent = jax.linearize(network, x, t)
        return out, *pullback(c), jnp.vdot(c, tangent(c, jnp.zeros_like(t)))

    out, grad_x, grad_t, curvature = found(x, t, c)
    inputs = [torch.tensor(a, requires_grad=True) for a in (x, t)]
    wanted = module(*inputs)
    (torch.tensor(c) * wanted).sum().backward()
    assert out.dtype == dtype
    np.testing.assert_allclose(out, wanted.detach(), atol=10 * bound)
    np.testing.assert_allclose(grad_x, inputs[0].grad, atol=10 * bound)
    np.testing.assert_allclose(grad_t, inputs[1].grad, atol=100 * bound)
    # c . J c is the same forward and backward.
    backward = (grad_x * c).sum((1, 2, 3))
    np.testing.assert_allclose(curvature, backward, atol=100 * bound)

    @jax.jit
    @jax.vmap
    def second(x, t, c):
        gradient = jax.grad(lambda x: jnp.vdot(c, network(x, t)))
        return jax.linearize(gradient, x)[1](c), jax.vjp(gradient, x)[1](c)[0]

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        weighted = (module(*inputs) * torch.tensor(c)).sum()
        (grad,) = torch.autograd.grad(weighted, inputs[:1], create_graph=True)
        (wanted,) = torch.autograd.grad((grad * torch.tensor(c)).sum(), inputs[:1])
    for hessian in second(x, t, c):
        np.testing.assert_allclose(hessian, wanted, atol=100 * bound)


@needs_torch
def test_scan_nested_vmap_and_another_dtype(module):
    module = module.float()
    network = ns.from_torch(module, (2, 4, 4))
    x, t, _ = points("float32")

    def euler(x):
        return jax.lax.scan(lambda x, t: (x - 0.1 * network(x, t), None), x, jnp.asarray(t))[0]

    steps = torch.tensor(x, requires_grad=True)
    y = steps
    for time in torch.tensor(t):
        y = y - 0.1 * module(y, time.expand(3))
    (y**2).sum().backward()
    grad = jax.jit(jax.vmap(jax.grad(lambda x: (euler(x) ** 2).sum())))(x)
    np.testing.assert_allclose(grad, steps.grad, atol=1e-5)
    both = jax.vmap(jax.vmap(network, (None, 0)), (0, None))(x, t)
    np.testing.assert_allclose(both[1, 2], network(x[1], t[2]), atol=1e-6)
    half = network(x[0].astype("bfloat16"), t[0])  # torch computes in the dtype of its weights
    assert half.dtype == jnp.bfloat16


@needs_torch
@pytest.mark.slow
def test_large_pictures_in_several_threads():
    """Torch's threads and XLA's wait for each other nowhere, be there one core or more."""
    convolution = torch.nn.Conv2d(2, 2, 3, padding=1).eval()
    network = ns.from_torch(lambda x, t: convolution(x) + t[:, None, None, None], (2, 128, 128))
    t = jnp.linspace(0, 1, 5)

    @jax.jit
    def run(x):
        matrix = jnp.ones((200, 200))

        def step(carry, t):
            x, matrix = carry
            return (x - 0.1 * jax.vmap(network, (0, None))(x, t), jnp.tanh(matrix @ matrix)), None

        return jax.lax.scan(step, (x, matrix), t)[0]

    x = jax.random.normal(jax.random.key(0), (4, 2, 128, 128))
    alone = run(x)[0]
    with ThreadPoolExecutor(4) as pool:
        for together, _ in pool.map(run, [x] * 4):
            np.testing.assert_array_equal(together, alone)


@needs_torch
def test_a_prior_of_a_torch_network_has_the_posterior_of_its_gaussian():
    """Noise of N(1, I) data: E[z | x_t] is linear, and the posterior known."""

    def noise(x_t, sigma):
        sigma = sigma[:, None]
        alpha = 1 / torch.sqrt(1 + sigma**2)
        return (x_t - alpha) * sigma * alpha

    denoiser = ns.processes.EpsilonPrediction(ns.from_torch(noise, (2,)), lambda sigma: sigma)
    prior = ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.02, 10.0), (2,))

    def model():
        x = numpyro.sample("x", prior)
        numpyro.sample("y", dist.Normal(x, 1.0).to_event(1), obs=jnp.array([3.0, -1.0]))

    kernel = ns.AnnealedLangevin(model, num_levels=20, num_steps=20)
    mcmc = MCMC(
        kernel,
        num_warmup=0,
        num_samples=1,
        num_chains=400,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0))
    draws = mcmc.get_samples()["x"]
    np.testing.assert_allclose(draws.mean(0), [2.0, 0.0], atol=0.15)
    np.testing.assert_allclose(draws.std(0), 0.5**0.5, atol=0.1)


@needs_torch
def test_what_is_refused(module):
    with pytest.raises(ValueError, match="Network is in training mode"):
        ns.from_torch(type(module)(), (2, 4, 4))
    with pytest.raises(TypeError, match="must be a torch.nn.Module or a function"):
        ns.from_torch(3, (2,))
    network = ns.from_torch(lambda x: x[..., :1], (2,))
    with pytest.raises(Exception, match="must return a tensor of the shape of its points"):
        network(jnp.ones(2))
    with pytest.raises(ValueError, match="shape"):
        network(jnp.ones(3))


def test_without_torch_it_says_so():
    """In a process where torch can't be imported, whether or not it is installed."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpyro_scores as ns\n"
        "try: ns.from_torch(len, (2,))\n"
        "except ImportError as error: print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "from_torch needs torch" in found.stdout
