# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Networks of pictures: the U-Net and the convolutional energy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import random

from numpyro_scores.nn import (
    ConvEnergy,
    MLPEnergy,
    UNetDenoiser,
    inner_product,
    squared_error,
    squared_norm,
)
from numpyro_scores.nn.unet_blocks import GroupNorm, doubled, patches
from numpyro_scores.objectives import DenoisingScoreMatching, KarrasWeight
from numpyro_scores.processes import VarianceExploding
from numpyro_scores.training import fit

pytestmark = pytest.mark.usefixtures("quick_compilation")


def unet(shape=(4, 5), seed=0, **options):
    return UNetDenoiser(shape, rngs=nnx.Rngs(seed), **{"widths": (8, 16)} | options)


def perturbed(module):
    """Away from the initial weights, some of which are zero."""
    rng = np.random.default_rng(0)

    def perturb(leaf):
        return leaf + rng.normal(size=leaf.shape, scale=0.3).astype(leaf.dtype)

    return jax.tree.map(perturb, module)


def picture(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize(
    "shape", [(7, 5, 2), *(pytest.param(s, marks=pytest.mark.slow) for s in [(4, 5), (1, 3)])]
)
def test_before_training_the_unet_is_the_best_linear_denoiser(x64, shape):
    module, x = unet(shape, sigma_data=0.5, num_classes=2), picture(shape)
    assert module.sigma_data == 0.5
    sigma = np.array([0.002, 0.5, 80.0])
    found = jax.jit(jax.vmap(module, (None, 0, 0)))(x, sigma, np.array([0, 1, 1]))
    gain = 0.25 / (0.25 + sigma**2)
    np.testing.assert_allclose(found, np.multiply.outer(gain, x), rtol=1e-6)


def test_the_trained_unet_still_has_the_limits_of_no_and_of_all_noise():
    x = jnp.asarray(picture((4, 5)), jnp.float32)
    denoise = jax.jit(jax.vmap(perturbed(unet())))
    near, middle, far, twice = denoise(
        jnp.stack([x, x, x, 2 * x]), jnp.array([1e-5, 1.0, 1e5, 1e5])
    )
    # sigma -> 0: the point itself; sigma -> infinity: of the size of the data, whatever the point.
    np.testing.assert_allclose(near, x, atol=1e-3)
    assert np.abs(middle - x).max() > 0.1
    np.testing.assert_allclose(far, twice, atol=0.02)
    assert 0.01 < np.abs(far).max() < 100


@pytest.mark.slow
def test_every_pixel_sees_every_other_and_the_level():
    module, x = perturbed(unet((7, 7))), jnp.asarray(picture((7, 7)), jnp.float32)
    jacobian, by_level = jax.jit(jax.jacobian(module, argnums=(0, 1)))(x, 0.7)
    assert np.all(np.abs(jacobian) > 0) and np.all(np.abs(by_level) > 0)


def convolutions(jaxpr):
    return [equation for equation in jaxpr.eqns if equation.primitive.name == "convolve"]


def test_a_batch_is_one_batched_convolution():
    module, x = unet((7, 7)), jnp.zeros((6, 7, 7))
    alone = convolutions(jax.make_jaxpr(partial(module, sigma=0.7))(x[0]))
    batched = convolutions(jax.make_jaxpr(jax.vmap(module))(x, jnp.ones(6)))
    assert len(batched) == len(alone) > 0
    assert all(equation.invars[0].aval.shape[0] == 6 for equation in batched)


def test_patches_and_doubling_keep_every_pixel():
    h = jnp.arange(3 * 5 * 2.0).reshape(3, 5, 2)
    found = patches(h)
    assert found.shape == (2, 3, 8)
    np.testing.assert_array_equal(found[0, 1], h[:2, 2:4].ravel())
    # An odd edge is repeated.
    np.testing.assert_array_equal(found[1, 2], jnp.tile(h[2, 4], 4))
    np.testing.assert_array_equal(doubled(h, (6, 9))[:6, :9:2], jnp.repeat(h, 2, 0))
    assert doubled(h, (5, 9)).shape == (5, 9, 2)


def test_group_norm_is_that_of_flax():
    h = jnp.asarray(picture((3, 4, 24)), jnp.float32)
    module, flax = GroupNorm(24), nnx.GroupNorm(24, num_groups=6, epsilon=1e-5, rngs=nnx.Rngs(0))
    flax.scale[...] = module.scale[...] = jnp.linspace(1, 2, 24)
    np.testing.assert_allclose(module(h), flax(h[None])[0], rtol=1e-4, atol=1e-5)


def test_a_label_is_dropped_as_often_as_it_is_asked_and_only_with_a_key():
    options = {"num_classes": 3, "label_dropout": 0.25, "widths": (4,), "attention_levels": ()}
    module, x = perturbed(unet(**options)), jnp.asarray(picture((4, 5)), jnp.float32)
    without = jax.jit(lambda: module(x, 0.7))()
    labelled = jax.jit(jax.vmap(lambda label: module(x, 0.7, label)))(jnp.arange(3))
    assert np.abs(labelled - without).max(axis=(1, 2)).min() > 1e-3
    assert np.abs(labelled[0] - labelled[1]).max() > 1e-3

    keys = random.split(random.key(0), 2_000)
    drawn = jax.jit(jax.vmap(lambda key: module(x, 0.7, 1, key=key)))(keys)
    dropped = np.isclose(drawn, without, atol=1e-4).all(axis=(1, 2))
    shown = np.isclose(drawn, labelled[1], atol=1e-4).all(axis=(1, 2))
    assert np.all(dropped ^ shown)
    assert abs(dropped.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2_000)
    # Without a label there is nothing to drop.
    with_key = jax.jit(lambda key: module(x, 0.7, key=key))(keys[0])
    np.testing.assert_allclose(with_key, without, atol=1e-5)


@pytest.mark.slow
def test_with_labels_it_learns_both_denoisers():
    # Class 0 is the picture -1, class 1 the picture +1: at a large noise level the denoiser of a
    # class is that picture, the one without a label their mean, 0.
    label = np.arange(400) % 2
    data = {"x": np.ones((400, 2, 2)) * (2.0 * label - 1)[:, None, None], "label": label}
    level = DenoisingScoreMatching(VarianceExploding(2.99, 3.0), KarrasWeight(1.0))

    def objective(denoiser, batch, *, key):
        def loss(x, label, key):
            key_drop, key_loss = random.split(key)
            return level(partial(denoiser, label=label, key=key_drop), x[None], key=key_loss)

        return jnp.mean(
            jax.vmap(loss)(batch["x"], batch["label"], random.split(key, len(batch["x"])))
        )

    fitted = fit(
        unet((2, 2), num_classes=2, label_dropout=0.5),
        objective,
        data,
        key=random.key(0),
        optimizer=optax.adam(3e-3),
        num_steps=500,
        batch_size=64,
        ema_decay=0.99,
        progress_bar=False,
    )
    module = fitted.module
    x = jnp.zeros((2, 2))
    np.testing.assert_allclose(module(x, 3.0, 0), -1, atol=0.3)
    np.testing.assert_allclose(module(x, 3.0, 1), 1, atol=0.3)
    np.testing.assert_allclose(module(x, 3.0), 0, atol=0.3)


@pytest.mark.slow
def test_half_precision_is_near_full_precision():
    module, x = perturbed(unet(widths=(4, 8))), jnp.asarray(picture((4, 5)), jnp.bfloat16)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), module)
    denoise = jax.jit(jax.vmap(lambda m, x, s: m(x, s), (None, None, 0)))
    # A training in half precision gives the levels in half precision, too.
    sigma = jnp.array([0.01, 1], jnp.bfloat16)
    found = denoise(half, x, sigma)
    exact = denoise(module, x.astype(jnp.float32), sigma.astype(jnp.float32))
    # The skip is in float32: what is lost is of the size of the noise.
    assert found.dtype == jnp.float32
    error = np.abs(found - exact).max(axis=(1, 2))
    scale = np.abs(exact - x.astype(jnp.float32)).max(axis=(1, 2))
    assert np.all(error < 0.1 * scale) and np.all(error > 0)


@pytest.mark.parametrize(
    "readout, formula",
    [
        (inner_product, lambda x, f: np.sum(x * f)),
        (squared_error, lambda x, f: np.sum((x - f) ** 2)),
        (squared_norm, lambda x, f: np.sum(f**2)),
        (lambda x, f: jnp.sum(jnp.cos(x) * f), lambda x, f: np.sum(np.cos(x) * f)),
    ],
)
@pytest.mark.parametrize("network", [MLPEnergy, ConvEnergy])
def test_the_readouts_are_their_formulas(x64, network, readout, formula):
    options = {"rngs": nnx.Rngs(0), "hidden_features": 8, "num_layers": 1}
    module, x = network((3, 4), **options, readout=readout), picture((3, 4))
    first, last = module.layers
    point = x.ravel() if network is MLPEnergy else x[..., None]
    found, f = jax.jit(lambda x, point: (module(x), last(jax.nn.silu(first(point)))))(x, point)
    np.testing.assert_allclose(found, formula(x, np.asarray(f).reshape(x.shape)), rtol=1e-6)
    assert found.shape == ()


def test_the_convolutional_energy_is_the_same_everywhere():
    # Away from the edges a picture may be moved.
    module = ConvEnergy((12, 13, 2), rngs=nnx.Rngs(0), hidden_features=4, num_layers=2)
    x = np.zeros((12, 13, 2), np.float32)
    x[4:6, 4:7] = picture((2, 3, 2))
    energy = jax.jit(module)
    np.testing.assert_allclose(energy(np.roll(x, (2, 1), (0, 1))), energy(x), rtol=1e-5)
    assert abs(energy(x)) > 1e-3


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: unet((6,)), ValueError, r"UNetDenoiser takes pictures, .* got \(6,\)"),
        (lambda: unet(widths=()), ValueError, "the number of widths must be a positive integer"),
        (lambda: unet(widths=(8, 0)), ValueError, "every entry of widths must be a positive"),
        (lambda: unet(num_blocks=0), ValueError, "num_blocks must be a positive integer"),
        (lambda: unet(attention_levels=(2,)), ValueError, "indices of the 2 levels .* got \\(2,"),
        (lambda: unet(num_classes=0), ValueError, "num_classes must be a positive integer"),
        (
            lambda: unet(label_dropout=1.5),
            ValueError,
            r"label_dropout must be in \[0, 1\], got 1.5",
        ),
        (lambda: unet()(np.zeros((4, 5)), 1.0, 0), ValueError, "has no labels: make it with num_c"),
        (lambda: unet(num_classes=2)(np.zeros((4, 5)), 1.0, 2), ValueError, r"in \[0, 2\), got 2"),
        (lambda: unet(num_classes=2)(np.zeros((4, 5)), 1.0, 0.5), ValueError, "one integer, of sh"),
        (lambda: unet()(np.zeros((4, 4)), 1.0), ValueError, r"point of shape \(4, 5\), got shape"),
        (
            lambda: ConvEnergy((2, 2), rngs=nnx.Rngs(0), kernel_size=0),
            ValueError,
            "kernel_size must be a positive integer",
        ),
        (lambda: ConvEnergy((4,), rngs=nnx.Rngs(0)), ValueError, "ConvEnergy takes pictures"),
        (
            lambda: MLPEnergy((4,), rngs=nnx.Rngs(0), readout="inner"),
            TypeError,
            r"readout must be a function \(x, f\) -> \(\), .* got 'inner'",
        ),
    ],
)
def test_a_bad_argument_is_told(make, error, message):
    with pytest.raises(error, match=message):
        make()
