# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The convolution of the networks of pictures, and its derivatives of first and second order."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from numpyro_scores.nn import ConvEnergy, UNetDenoiser
from numpyro_scores.nn._convolution import convolution, convolve

pytestmark = pytest.mark.usefixtures("quick_compilation")

X = np.random.default_rng(0).normal(size=(2, 4, 3, 3))
W = np.random.default_rng(1).normal(size=(3, 4, 3, 2))
PADDING = ((1, 1), (1, 2))


def reference(x, w, padding):
    return lax.conv_general_dilated(
        x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def derivatives(convolve, x, w):
    """Of a cubic of the convolution, in every order of the modes, and of batches."""

    def cubic(x, w):
        return jnp.sum(convolve(jnp.sin(x), w, PADDING) ** 3)

    def forward(function):
        return jax.jvp(function, (x, w), (jnp.cos(x), jnp.cos(w)))[1]

    def reverse(function):
        def squares(x, w):
            return sum(jnp.sum(entry**2) for entry in jax.tree.leaves(function(x, w)))

        return jax.grad(squares, (0, 1))(x, w)

    gradient, xs, ws = jax.grad(cubic, (0, 1)), jnp.stack([x, -x], 1), jnp.stack([w, 2 * w], 2)
    return {
        "value": convolve(x, w, PADDING),
        "forward": forward(cubic),
        "reverse": gradient(x, w),
        "forward over reverse": forward(gradient),
        "reverse over reverse": reverse(gradient),
        "reverse over forward": jax.grad(lambda t: forward(lambda x, w: cubic(x, w + t * w)))(0.5),
        "checkpoint": jax.grad(jax.checkpoint(cubic))(x, w),
        "pictures": jax.vmap(gradient, (1, None))(xs, w),
        "kernels": jax.vmap(gradient, (None, 2))(x, ws),
        "both": jax.vmap(gradient, (1, 2))(xs, ws),
    }


def test_it_and_its_derivatives_are_those_of_jax(x64):
    @jax.jit
    def both(x, w):
        return derivatives(convolve, x, w), derivatives(reference, x, w)

    found, expected = both(X, W)
    for name, values in expected.items():
        for f, e in zip(jax.tree.leaves(found[name]), jax.tree.leaves(values), strict=True):
            np.testing.assert_allclose(f, e, rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("kernel_size", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_the_layer_is_that_of_flax(x64, kernel_size):
    layer = convolution(3, 2, kernel_size, rngs=nnx.Rngs(0))
    flax = nnx.Conv(3, 2, (kernel_size, kernel_size), rngs=nnx.Rngs(0))
    assert jax.tree.map(jnp.shape, nnx.state(layer)) == jax.tree.map(jnp.shape, nnx.state(flax))
    for dtype, rtol in {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2e-2}.items():
        cast = [jax.tree.map(lambda p, d=dtype: p.astype(d), module) for module in (layer, flax)]
        found, expected = (module(jnp.asarray(X[0], dtype)) for module in cast)
        assert found.dtype == expected.dtype == dtype
        np.testing.assert_allclose(*map(np.float64, (found, expected)), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("module", [UNetDenoiser, ConvEnergy])
def test_no_convolution_of_a_derivative_has_its_axes_in_another_order(module):
    # XLA would compile it to naive code in a loop on a CPU.
    options = {"widths": (4,)} if module is UNetDenoiser else {"hidden_features": 4}
    graphdef, params = nnx.split(module((4, 4), rngs=nnx.Rngs(0), **options))

    def output(params, x):
        levels = (0.7,) if module is UNetDenoiser else ()
        return jnp.sum(jax.vmap(lambda x: nnx.merge(graphdef, params)(x, *levels))(x) ** 2)

    def second(params, x):
        return jnp.sum(jax.grad(output, 1)(params, x) ** 2)

    program = jax.jit(jax.grad(second, (0, 1))).lower(params, jnp.ones((2, 4, 4))).as_text()
    orders = re.findall(r"dim_numbers = (\S.*?->\[.*?\])", program)
    assert len(orders) > 10 and set(orders) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}


def test_two_devices_share_the_pictures():
    def loss(w, x):
        return jnp.sum(convolve(x, w, PADDING) ** 3)

    x, w = jnp.asarray(X, jnp.float32), jnp.asarray(W, jnp.float32)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    shards = NamedSharding(mesh, PartitionSpec("batch"))
    gradient = jax.jit(jax.grad(loss))
    expected, found = gradient(w, x), gradient(w, jax.device_put(x, shards))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
