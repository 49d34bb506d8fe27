# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Forward operators: their matrices, their adjoints, and what they are in NumPyro models."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy import ndimage
from skimage.transform import radon

from numpyro_scores import inverse

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 5))
PIXELS = RNG.random((6, 8)) < 0.4

# Made when asked for: an operator has the precision of the test.
OPERATORS = {
    "mask": lambda: inverse.Mask(PIXELS),
    "mask of channels": lambda: inverse.Mask(PIXELS, (6, 8, 2)),
    "periodic blur": lambda: inverse.Blur(KERNEL, (6, 8)),
    "periodic blur of channels": lambda: inverse.Blur(KERNEL, (6, 7, 2)),
    "blur of a line": lambda: inverse.Blur(KERNEL[0, :4], 6),
    "blur": lambda: inverse.Blur(KERNEL, (6, 8), periodic=False),
    "downsample": lambda: inverse.Downsample((6, 8, 2), 2),
    "downsample of rows": lambda: inverse.Downsample((6, 8), (3,)),
    "fourier": lambda: inverse.Fourier((6, 8)),
    "some fourier": lambda: inverse.Fourier((6, 8), PIXELS),
    "some fourier of channels": lambda: inverse.Fourier((5, 4, 2), PIXELS[:5, :4]),
    "radon": lambda: inverse.Radon((7, 7), [0.0, 20.0, 75.0, 90.0, 133.0]),
    "radon of a rectangle": lambda: inverse.Radon((6, 8), [20.0, 133.0], circle=False),
}
LINEAR = pytest.mark.parametrize("name", OPERATORS)


@jax.jit
def apply(operator, x):
    return operator(x)


@jax.jit
def matrices(operator):
    """Of the operator and of its adjoint, from the images of unit vectors."""

    def matrix(f, shape):
        num = int(np.prod(shape))
        return f(jnp.eye(num).reshape(num, *shape)).reshape(num, -1).T

    forward = matrix(operator, operator.in_shape)
    return forward, matrix(operator.adjoint, operator.out_shape)


@LINEAR
def test_the_adjoint_and_the_singular_values_are_those_of_the_matrix(x64, name):
    operator = OPERATORS[name]()
    forward, adjoint = matrices(operator)
    np.testing.assert_allclose(adjoint, forward.T, atol=1e-14)
    if name in ("blur", "radon", "radon of a rectangle"):
        with pytest.raises(NotImplementedError, match="have no formula here"):
            _ = operator.singular_values
    else:
        exact = np.linalg.svd(forward, compute_uv=False)
        np.testing.assert_allclose(operator.singular_values, exact, atol=1e-12)


def test_the_inner_products_agree_for_a_batch_of_points(x64):
    operator = OPERATORS["some fourier of channels"]()
    x, y = RNG.normal(size=(3, 2, *operator.in_shape)), RNG.normal(size=(3, 2, *operator.out_shape))
    products = np.sum(np.asarray(apply(operator, x)) * y, axis=(2, 3, 4))
    pulled_back = np.asarray(jax.jit(operator.adjoint)(y))
    np.testing.assert_allclose(np.sum(x * pulled_back, axis=(2, 3, 4)), products)


def test_a_mask_keeps_what_is_seen():
    x = RNG.normal(size=(6, 8, 2)).astype(np.float32)
    np.testing.assert_array_equal(inverse.Mask(PIXELS, (6, 8, 2))(x), x[PIXELS])


@pytest.mark.parametrize("periodic, mode", [(True, "wrap"), (False, "constant")])
def test_a_blur_is_the_convolution_of_scipy(x64, periodic, mode):
    x = RNG.normal(size=(6, 8))
    expected = ndimage.convolve(x, KERNEL, mode=mode)
    operator = inverse.Blur(KERNEL, (6, 8), periodic)
    np.testing.assert_allclose(apply(operator, x), expected, atol=1e-13)


def test_a_kernel_of_even_size_has_its_origin_right_of_the_middle(x64):
    kernel, impulse = np.array([1.0, 2.0, 3.0, 4.0]), np.eye(7)[3]
    expected = [0, 1, 2, 3, 4, 0, 0]
    for periodic in (True, False):
        np.testing.assert_allclose(inverse.Blur(kernel, 7, periodic)(impulse), expected, atol=1e-14)


def test_the_gaussian_kernel_is_a_density_with_its_variance(x64):
    kernel = inverse.gaussian_kernel(1.5, radius=9)
    np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(kernel.sum(0) @ np.arange(-9, 10) ** 2, 1.5**2, rtol=1e-6)


def test_downsampling_takes_means_of_blocks(x64):
    x = RNG.normal(size=(6, 8))
    expected = [[x[i : i + 3, j : j + 2].mean() for j in range(0, 8, 2)] for i in (0, 3)]
    np.testing.assert_allclose(inverse.Downsample((6, 8), (3, 2))(x), expected, rtol=1e-12)


def test_fourier_has_the_coefficients_of_numpy_at_the_mask(x64):
    x = RNG.normal(size=(6, 8))
    expected = np.fft.fft2(x, norm="ortho")[PIXELS]
    found = np.asarray(apply(inverse.Fourier((6, 8), PIXELS), x))
    np.testing.assert_allclose(found[:, 0] + 1j * found[:, 1], expected, atol=1e-13)


@pytest.mark.parametrize("shape, circle", [((16, 16), True), ((15, 15), True), ((11, 14), False)])
def test_the_radon_transform_is_that_of_scikit_image(x64, shape, circle):
    x = RNG.random(shape)
    if circle:
        centred = np.indices(shape) - shape[0] // 2
        x = np.where(np.sum(centred**2, 0) <= (shape[0] // 2) ** 2, x, 0)
    angles = np.array([0.0, 13.0, 45.0, 90.0, 101.5, 170.0])
    expected = radon(x, angles, circle=circle)
    np.testing.assert_allclose(apply(inverse.Radon(shape, angles, circle), x), expected, atol=1e-9)


def test_phase_retrieval_sees_intensities_and_no_sign_nor_place(x64):
    operator = inverse.PhaseRetrieval((4, 5))
    x = RNG.normal(size=(4, 5))
    expected = np.abs(np.fft.fft2(x, (8, 10), norm="ortho")) ** 2
    for same in (x, -x, x[::-1, ::-1]):
        np.testing.assert_allclose(apply(operator, same), expected, atol=1e-12)
    # It is smooth at zero, where an amplitude has no derivative.
    gradient = jax.jit(jax.grad(lambda x: operator(x).sum()))(np.zeros((4, 5)))
    np.testing.assert_array_equal(gradient, 0)
    assert not hasattr(operator, "adjoint")


def model(operator, y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand(operator.in_shape).to_event())
    numpyro.sample("y", dist.Normal(operator(x), 0.3).to_event(len(operator.out_shape)), obs=y)


@pytest.mark.parametrize("name", ["some fourier", "radon", "blur"])
def test_an_operator_is_an_argument_of_a_model_under_jit_grad_and_vmap(x64, name):
    operator = OPERATORS[name]()
    x, y = RNG.normal(size=(2, *operator.in_shape)), RNG.normal(size=operator.out_shape)

    @jax.jit
    def gradients(operator, x):
        def log_joint(x):
            return log_density(model, (operator, y), {}, {"x": x})[0]

        return jax.vmap(jax.grad(log_joint))(x)

    expected = -x + jax.jit(operator.adjoint)(y - apply(operator, x)) / 0.3**2
    for equal in (operator, OPERATORS[name]()):
        np.testing.assert_allclose(gradients(equal, x), expected, rtol=1e-9, atol=1e-9)
    assert gradients._cache_size() == 1


def test_operators_with_different_kernels_are_mapped_and_differentiated(x64):
    kernels = RNG.normal(size=(4, 3, 3))
    x = RNG.normal(size=(6, 8))

    @jax.jit
    def blurred(kernel):
        return inverse.Blur(kernel, (6, 8))(x)

    stacked = jax.jit(jax.vmap(lambda kernel: inverse.Blur(kernel, (6, 8))))(kernels)
    found = jax.jit(jax.vmap(lambda operator: operator(x)))(stacked)
    np.testing.assert_allclose(found, [blurred(kernel) for kernel in kernels], atol=1e-13)
    # A convolution is linear in its kernel.
    gradient = jax.jit(jax.grad(lambda kernel: jnp.vdot(blurred(kernel), x)))(kernels[0])
    np.testing.assert_allclose(np.vdot(gradient, kernels[1]), np.vdot(blurred(kernels[1]), x))


def test_counts_have_a_finite_density_and_gradient_in_the_dark():
    blur = inverse.Blur(inverse.gaussian_kernel(1.0, 2), (16, 16))
    x = np.zeros((16, 16), np.float32)
    x[3, 3] = 1.0
    assert np.min(apply(blur, x)) < 0  # by rounding

    def log_prob(x):
        rate = jnp.maximum(1_000 * blur(x), 0.0) + 0.1
        return dist.Poisson(rate).log_prob(jnp.ones((16, 16))).sum()

    value, gradient = jax.jit(jax.value_and_grad(log_prob))(x)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_a_mask_a_factor_and_a_kernel_may_be_lists():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(inverse.Mask([True, False, True])([1.0, 2.0, 3.0]), [1, 3])
        assert inverse.Fourier(2, [True, False]).out_shape == (1, 2)
        assert inverse.Downsample((6, 8), [3, 2]).out_shape == (2, 4)
        np.testing.assert_allclose(inverse.Blur([1, 2, 1], 3)([0.0, 1.0, 0.0]), [1, 2, 1], 1e-6)


def test_angles_that_look_like_radians_are_told():
    with pytest.warns(UserWarning, match="from 0 to 2.83: are they in radians.*rad2deg"):
        inverse.Radon((6, 6), np.linspace(0, np.pi, 10, endpoint=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for angles in ([0.0], [0.0, 0.5], [-2.0, 60.0]):
            inverse.Radon((6, 6), angles)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: inverse.Mask(PIXELS)(np.ones((8, 6))), ValueError, r"shape \(6, 8\).*\(8, 6\)"),
        (lambda: inverse.Mask(PIXELS)(np.ones((6, 8)) * 1j), TypeError, "takes real points"),
        (
            lambda: inverse.Downsample((6, 8), 2).adjoint(np.ones((6, 8))),
            ValueError,
            r"Downsample.adjoint\(y\) takes points of shape \(3, 4\).*\(6, 8\) to \(3, 4\)",
        ),
        (lambda: inverse.Mask(PIXELS * 1.0), TypeError, "array of bool, got float64"),
        (lambda: inverse.Mask(PIXELS & False), ValueError, "true somewhere"),
        (lambda: inverse.Mask(PIXELS, (8, 6)), ValueError, r"\(6, 8\).*in_shape \(8, 6\)"),
        (lambda: jax.jit(inverse.Mask)(PIXELS), TypeError, "outside of jax.jit"),
        (lambda: inverse.Fourier((8, 6), PIXELS), ValueError, r"mask has shape \(6, 8\)"),
        (lambda: inverse.Blur(np.ones((3, 3)), 9), ValueError, r"1 to 1 axes.*\(3, 3\)"),
        (lambda: inverse.Blur(np.ones((3, 9)), (6, 8)), ValueError, "must fit.*periodic=False"),
        (lambda: inverse.Blur(np.full(3, np.nan), 9), ValueError, "kernel must be of finite"),
        (lambda: inverse.Blur(np.ones(3) * 1j, 9), TypeError, "kernel must be of real numbers"),
        (lambda: inverse.Blur(np.ones((0, 3)), (6, 8)), ValueError, r"kernel.*shape \(0, 3\)"),
        (lambda: inverse.Blur(np.ones(3), 9, "zero"), TypeError, "True or False, got 'zero'"),
        (lambda: inverse.gaussian_kernel(0.0, 2), ValueError, "std must be a finite positive"),
        # As many standard deviations as the kernel has entries would be mixed with them.
        (
            lambda: jax.jit(lambda std: inverse.gaussian_kernel(std, 2))(np.ones(5)),
            ValueError,
            r"std must be one number, got shape \(5,\).*jax.vmap",
        ),
        (lambda: inverse.Downsample((6, 8), 4), ValueError, r"factor \(4, 4\) must divide.*\(6, 8"),
        (lambda: inverse.Radon((6, 8), [0.0]), ValueError, r"circle=False, got in_shape \(6, 8\)"),
        (lambda: inverse.Radon((6, 6), 0.0), ValueError, r"angles must have shape"),
        (lambda: inverse.Radon((6, 6), []), ValueError, r"angles must have at least one entry"),
        (lambda: inverse.Radon((6, 6), [0.0, np.nan]), ValueError, "angles must be of finite"),
        (lambda: inverse.Fourier(PIXELS), ValueError, "every entry of in_shape must be"),
        (lambda: inverse.PhaseRetrieval((6, 6), 0), ValueError, "oversampling must be a positive"),
    ],
)
def test_what_does_not_match_is_told(make, error, message):
    with pytest.raises(error, match=message):
        make()
