# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The noise that a particle gains at a level, drawn by what the data say of it."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.scipy.linalg import cho_solve

from numpyro_scores.infer._diffusion_twist import DiffusionTwist
from numpyro_scores.infer._particle_model import ParticleModel


def informed_noise(
    key: Array,
    x: Array,
    slope: Array,
    model: ParticleModel,
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
    twist = DiffusionTwist(model)
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
    covariance = twist.covariance(rows, images, new_sigma) + jnp.diag(data.scale**2)
    images = images * s
    # One call: two that wait for nothing of each other can block (jaxlib 0.10 on two cores).
    root, root_sum = jnp.linalg.cholesky(jnp.stack([covariance, images @ images.T + covariance]))
    residual = data.value - data.loc
    shift = root @ random.normal(key_data, residual.shape, x.dtype)
    z = b + noise
    z = z + images.T @ cho_solve((root_sum, True), residual - images @ z - shift)
    log_ratio = _log_normal(root_sum, residual - images @ b)
    log_ratio -= _log_normal(root, residual - images @ z)
    return x + s * z, log_ratio + _log_ratio(z, b)


def _log_ratio(z: Array, b: Array) -> Array:
    """`log N(z; 0, I) - log N(z; b, I)`."""
    return -jnp.vdot(b, z - b / 2)


def _log_normal(root: Array, x: Array) -> Array:
    """`log N(x; 0, root root^T)`, but for a constant."""
    w = lax.linalg.triangular_solve(root, x[:, None], left_side=True, lower=True)
    return -jnp.sum(w**2) / 2 - jnp.sum(jnp.log(jnp.diagonal(root)))
