# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How alike two pictures are: peak signal-to-noise ratio, structural similarity."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.signal import convolve

from numpyro_scores._validation import check_count, check_positive, is_concrete


def psnr(x: Array, reference: Array, *, data_range: float) -> Array:
    r"""
    The peak signal-to-noise ratio, :math:`10 \log_{10} (L^2 / \langle (x - r)^2 \rangle)` decibel.

    :param x: a picture, any shape.
    :param reference: a picture of the same shape.
    :param data_range: `L`, largest minus least possible value: 255 for bytes, 2 for -1 to 1.
    :return: shape `()`; infinite for equal pictures.
    :raises ValueError: if the shapes differ, the pictures are empty, or a value is not finite.
    """
    x, reference = _pictures(x, reference, data_range)
    return 10 * jnp.log10(data_range**2 / jnp.mean((x - reference) ** 2))


def ssim(
    x: Array,
    reference: Array,
    *,
    data_range: float,
    window_size: int = 11,
    sigma: float = 1.5,
) -> Array:
    r"""
    The mean structural similarity (Wang et al. 2004, equation 13),

    .. math:: \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}
        {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}, \qquad
        C_1 = (0.01 L)^2,\; C_2 = (0.03 L)^2,

    with the moments in a normal window, over all windows that lie within the picture and all
    channels.

    :param x: a picture, shape `(height, width)` or `(height, width, channels)`.
    :param reference: a picture of the same shape.
    :param data_range: `L`, largest minus least possible value.
    :param window_size: width of the window in pixels, odd; small pictures want a smaller one.
    :param sigma: standard deviation of the window in pixels.
    :return: shape `()`, at most 1, which is for equal pictures.
    :raises ValueError: if the shapes differ or are smaller than the window, or if a value is not
        finite.
    """
    check_count("window_size", window_size)
    check_positive("sigma", sigma)
    x, reference = _pictures(x, reference, data_range)
    if x.ndim not in (2, 3) or min(x.shape[:2]) < window_size or window_size % 2 == 0:
        raise ValueError(
            "ssim takes a picture of shape (height, width) or (height, width, channels), at least "
            f"window_size, an odd number, each way; got shape {x.shape} and window_size "
            f"{window_size}."
        )
    return _ssim(x, reference, data_range, sigma, window_size)


@partial(jax.jit, static_argnums=4)
def _ssim(x, reference, data_range, sigma, window_size):
    offsets = jnp.arange(window_size) - window_size // 2
    window = jnp.exp(-(offsets**2) / (2 * sigma**2)).astype(x.dtype)
    window = (window / jnp.sum(window)).reshape(-1, *(1,) * (x.ndim - 1))

    def mean(z):
        return convolve(convolve(z, window, "valid"), window.swapaxes(0, 1), "valid")

    # About a common level, since a variance is a difference of squares.
    level = jnp.mean(reference)
    a, b = x - level, reference - level
    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a**2) - mean_a**2 + mean(b**2) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    mean_x, mean_y = mean_a + level, mean_b + level
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return jnp.mean(luminance * (2 * covariance + c2) / (variances + c2))


def _pictures(x: Any, reference: Any, data_range: Any) -> tuple[Array, Array]:
    check_positive("data_range", data_range)
    if jnp.shape(x) != jnp.shape(reference) or jnp.size(x) == 0:
        raise ValueError(
            f"The pictures must have one shape and pixels, got {jnp.shape(x)} and "
            f"{jnp.shape(reference)}. For batches use jax.vmap."
        )
    for name, picture in (("x", x), ("reference", reference)):
        if is_concrete(picture) and not np.all(np.isfinite(np.asarray(picture))):
            count = np.sum(~np.isfinite(np.asarray(picture)))
            raise ValueError(f"{name} must be finite, but {count} of its pixels are not.")
    x, reference = jnp.asarray(x), jnp.asarray(reference)
    dtype = jnp.result_type(x, reference, float)
    return x.astype(dtype), reference.astype(dtype)
