# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Denoisers that users of torch have, of deepinv and of diffusers, where these are installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_scores as ns

pytestmark = pytest.mark.slow

SHAPE = (1, 16, 16)


def drunet():
    """It sees the noise level as a second channel (Zhang et al. 2021)."""
    models = pytest.importorskip("deepinv").models
    network = models.DRUNet(1, 1, nc=(8, 8, 16, 16), nb=1, pretrained=None)
    return network, lambda network, x, sigma: network(x, sigma)


def dncnn():
    """Blind: it does not see the noise level (Zhang et al. 2017)."""
    models = pytest.importorskip("deepinv").models
    network = models.DnCNN(1, 1, depth=5, nf=8, pretrained=None)
    return network, lambda network, x, sigma: network(x)


def unet():
    network = pytest.importorskip("diffusers").UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    return network, lambda network, x, sigma: network(x, sigma).sample


@pytest.mark.parametrize("make", [drunet, dncnn, unet])
def test_values_and_gradients_are_those_of_torch(make):
    """Under `jit` and `vmap`, and of steps by `lax.scan`."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network, call = make()
    network = network.eval().requires_grad_(False)
    function = ns.from_torch(lambda x, sigma: call(network, x, sigma), SHAPE)
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(2, 3, *SHAPE)).astype(np.float32)
    sigma = np.array([0.1, 0.3, 1.0], np.float32)

    @jax.jit
    @jax.vmap
    def value_and_gradient(x, sigma, c):
        out, pullback = jax.vjp(lambda x: function(x, sigma), x)
        return out, pullback(c)[0]

    @jax.jit
    @jax.vmap
    @jax.grad
    def gradient_of_steps(x):
        def step(x, sigma):
            return x - 0.1 * function(x, sigma), None

        return jnp.sum(jax.lax.scan(step, x, jnp.asarray(sigma))[0] ** 2)

    point, levels = torch.tensor(x, requires_grad=True), torch.tensor(sigma)
    wanted = call(network, point, levels)
    (gradient,) = torch.autograd.grad((wanted * torch.tensor(c)).sum(), point)
    steps = point
    for level in levels:
        steps = steps - 0.1 * call(network, steps, level.expand(3))
    (gradient_by_steps,) = torch.autograd.grad((steps**2).sum(), point)
    found = *value_and_gradient(x, sigma, c), gradient_of_steps(x)
    for ours, theirs in zip(found, (wanted, gradient, gradient_by_steps), strict=True):
        theirs = theirs.detach().numpy()
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
