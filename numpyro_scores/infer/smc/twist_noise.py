# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The noise that a particle gains at a level, drawn by what the data say of it."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.scipy.linalg import solve_triangular

from numpyro_scores.infer.smc.twist import DiffusionTwist, with_noise


def informed_noise(
    key: Array,
    x: Array,
    slope: Array,
    twist: DiffusionTwist,
    sigma: Array,
    churned: Array,
    new_sigma: Array,
) -> tuple[Array, Array]:
    r"""
    A particle at the noise level `sigma` with the noise :math:`s z` added that raises it to
    `churned`, from where it will fall to `new_sigma`; and :math:`\log N(z; 0, I) - \log q(z)`.

    With few Normal numbers, whose mean moves by :math:`A z`, :math:`A = J\, \nabla m\, s` in
    the notation of the twist, and has the covariance :math:`S` at `new_sigma`, `z` is drawn from

    .. math:: q(z) \propto N(z; b, I)\, N(r; A z, S), \qquad r = y - f(m(x)),

    as a draw of :math:`N(b, I)` moved by its own residual (Matheron's rule); :math:`b` is `s` times
    the slope of the log density of all other data. If all is linear and Gaussian, the weights of
    the particles then vary with their old positions alone. Without such numbers :math:`b` is that
    of the log twist, and all there is.

    :param slope: of the log twist at `x`, shape `(d,)`.
    """
    high, low = twist.levels(x, churned), twist.levels(x, sigma)
    s = jnp.sqrt((high - low) * (high + low))
    key_noise, key_data = random.split(key)
    noise = random.normal(key_noise, x.shape, x.dtype)
    if not twist.has_covariance(x):
        b = s * slope
        z = b + noise
        return x + s * z, _log_ratio(z, b)
    mean, product = jax.linearize(partial(twist.mean, sigma=sigma), x)
    data, rest = twist.data(mean)
    b = jnp.zeros_like(x)
    if rest is not None:
        (slope,) = jax.linear_transpose(product, x)(jax.grad(lambda m: twist.data(m)[1])(mean))
        b = s * slope
    rows, images = twist.informed(mean, twist.products(mean, product))
    covariance = with_noise(twist.covariance(rows, images, new_sigma), data.scale)
    images = images * s
    # Each of these waits for the one before: two batched calls of LAPACK at once can block for ever
    # on busy cores (jaxlib 0.10, with the threads of OpenBLAS).
    root, root_sum = jnp.linalg.cholesky(jnp.stack([covariance, images @ images.T + covariance]))
    residual = data.value - data.loc - images @ b
    drawn = images @ noise + root @ random.normal(key_data, residual.shape, x.dtype)
    white, white_drawn = _solved(root_sum, jnp.stack([residual, drawn]))
    z = noise + images.T @ _solved(root_sum, white - white_drawn, transpose=True)
    left = _solved(root, residual - images @ z)
    log_det = jnp.sum(jnp.log(jnp.diagonal(root_sum) / jnp.diagonal(root)))
    log_ratio = (jnp.vdot(left, left) - jnp.vdot(white, white)) / 2 - log_det
    z = b + z
    return x + s * z, log_ratio + _log_ratio(z, b)


def _log_ratio(z: Array, b: Array) -> Array:
    """`log N(z; 0, I) - log N(z; b, I)`."""
    return -jnp.vdot(b, z - b / 2)


def _solved(root: Array, rows: Array, transpose: bool = False) -> Array:
    """Each row after division by a lower triangular matrix, or by its transpose."""
    columns = jnp.atleast_2d(rows).T
    return solve_triangular(root, columns, trans=int(transpose), lower=True).T.reshape(rows.shape)
