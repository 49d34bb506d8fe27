# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The noise that a particle gains at a level, drawn by what the data say of it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.scipy.linalg import solve_triangular

from numpyro_scores.infer.smc.directions import Directions, Product, Seen
from numpyro_scores.infer.smc.linear_data import (
    DataBasis,
    LinearSpread,
    LowRankNormal,
    spread_of,
)
from numpyro_scores.infer.smc.normal_data import GaussianData, with_noise
from numpyro_scores.infer.smc.other_data import Lines
from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.trees import map_rows


def informed_noise(
    key: Array,
    x: Array,
    slope: Array,
    twist: DiffusionTwist,
    sigma: Array,
    churned: Array,
    new_sigma: Array,
    seen: Seen | None = None,
) -> tuple[Array, Array]:
    r"""
    A particle at the noise level `sigma` with the noise :math:`s z` added that raises it to
    `churned`, from where it will fall to `new_sigma`; and :math:`\log N(z; 0, I) - \log q(z)`.

    With few numbers, whose mean moves by :math:`A z`, :math:`A = J\, \nabla m\, s` in the notation
    of the twist, and has the covariance :math:`S` at `new_sigma`, `z` is drawn from

    .. math:: q(z) \propto N(z; 0, I)\, N(r; A z, S), \qquad r = y - f(m(x)),

    as a draw of :math:`N(0, I)` moved by its own residual (Matheron's rule). Numbers that are not
    Normal are taken for such by what they say of their coordinate (see `other_data`). If all is
    linear and Gaussian, the weights of the particles then vary with their old positions alone. With
    more than 64 Normal numbers :math:`N(b, I)` stands in place of :math:`N(0, I)`, where `b` is `s`
    times the slope of the log density of all other data, or of the log twist if their covariance
    is not known, which is then all there is.

    :param slope: of the log twist at `x`, shape `(d,)`.
    :param seen: what the denoiser says of `x`, if it has been asked.
    """
    high, low = twist.levels(x, churned), twist.levels(x, sigma)
    s = jnp.sqrt((high - low) * (high + low))
    key_noise, key_data = random.split(key)
    noise = random.normal(key_noise, x.shape, x.dtype)
    if not steers_by_numbers(twist, x):
        b = s * slope
        z = b + noise
        return x + s * z, _log_ratio(z, b)
    levels = sigma, new_sigma
    if seen is not None and not twist.num_lines(x):
        b = jnp.zeros_like(x)
        return _of_many((key_data, noise), x, b, s, seen, twist, levels)
    mean, product = jax.linearize(partial(twist.mean, sigma=sigma), x)
    lines = twist.lines(mean, product, sigma)
    found = twist.directions(mean, product) if seen is None else seen.directions
    if found is None:
        z, log_ratio = _of_few((key_data, noise), mean, product, s, lines, twist, levels)
        return x + s * z, log_ratio
    b = jnp.zeros_like(x)
    if lines is not None:
        slope = jax.grad(lambda m: twist.rest(m, lines).log_mean)(mean)
        (slope,) = jax.linear_transpose(product, x)(jnp.where(jnp.isfinite(slope), slope, 0))
        b = s * slope
    return _of_many((key_data, noise), x, b, s, Seen(mean, found), twist, levels)


def steers_by_numbers(twist: DiffusionTwist, x: Array) -> bool:
    """Whether noise is drawn by what the numbers say, not by the slope of the twist alone."""
    has_normal = twist.data(x)[0].loc.size > 0
    return twist.has_covariance(x) or (not has_normal and twist.num_lines(x) > 0)


def _of_few(
    numbers: tuple[Array, Array],
    mean: Array,
    product: Product,
    s: Array,
    lines: Lines | None,
    twist: DiffusionTwist,
    levels: tuple[Array, Array],
) -> tuple[Array, Array]:
    r"""
    :math:`z` of few numbers, and :math:`\log N(z; 0, I) - \log q(z)`.

    :param numbers: a key, and a standard normal draw of the shape of `z`.
    :param product: with the Jacobian of the mean.
    :param levels: `sigma` and `new_sigma`.
    """
    key, noise = numbers
    data = twist.data(mean)[0]
    rows, images = twist.informed(mean, twist.products(mean, product))
    residual, scale = data.value - data.loc, data.scale
    added = jnp.broadcast_to(twist.added(levels[1]), len(rows))
    if lines is not None:
        rest = twist.rest(mean, lines)
        weighted = rest.roots[:, None] * lines.rows
        rows = jnp.concatenate([rows, weighted])
        images = jnp.concatenate([images, jax.vmap(product)(weighted)])
        residual = jnp.concatenate([residual, rest.values])
        scale = jnp.concatenate([scale, jnp.ones_like(rest.values)])
        added = jnp.concatenate([added, jnp.zeros_like(rest.values)])
    covariance = with_noise(twist.covariance(rows, images, levels[1], added), scale)
    images = images * s
    # Each of these waits for the one before: two batched calls of LAPACK at once can block for ever
    # on busy cores (jaxlib 0.10, with the threads of OpenBLAS).
    root, root_sum = jnp.linalg.cholesky(jnp.stack([covariance, images @ images.T + covariance]))
    drawn = images @ noise + root @ random.normal(key, residual.shape, noise.dtype)
    white, white_drawn = _solved(root_sum, jnp.stack([residual, drawn]))
    z = noise + images.T @ _solved(root_sum, white - white_drawn, transpose=True)
    left = _solved(root, residual - images @ z)
    log_det = jnp.sum(jnp.log(jnp.diagonal(root_sum) / jnp.diagonal(root)))
    return z, (jnp.vdot(left, left) - jnp.vdot(white, white)) / 2 - log_det


def _of_many(
    numbers: tuple[Array, Array],
    x: Array,
    b: Array,
    s: Array,
    seen: Seen,
    twist: DiffusionTwist,
    levels: tuple[Array, Array],
) -> tuple[Array, Array]:
    """
    The same of numbers with a basis.

    :param numbers: a key, and a standard normal draw of the shape of `x`.
    :param levels: `sigma` and `new_sigma`.
    """
    (key, noise), (mean, found), basis = numbers, seen, twist.basis
    assert basis is not None
    noisy = np.flatnonzero(twist.is_noisy(x))
    variance, low = (twist.variance(mean, level)[noisy[0]] for level in levels)
    spread = spread_of(basis, found.at(variance, low), low, twist.added(levels[1]))
    centred, log_ratio = _linear_noise(
        (key, noise[noisy]), twist.data(mean)[0], b[noisy], s[noisy[0]], basis, found, spread
    )
    z = (b + noise).at[noisy].set(b[noisy] + centred)
    return x + s * z, log_ratio + _log_ratio(z, b)


def reversing_level(
    x: Array, twist: DiffusionTwist, sigma: Array, new_sigma: Array, batch_size: int
) -> Array:
    r"""
    The level :math:`\hat\sigma` to which the noise rises where the twist of a level is the mean of
    that of the next, as along the reverse diffusion: for Normal values of variance `V`, seen with
    the variances :math:`\tau^2` and :math:`\tau'^2` of noise, the flow leaves
    :math:`x / (V + \tau^2)^{1/2}` as it is, and the correlations of a value with its noisy one,
    :math:`(V / (V + \tau^2))^{1/2}`, multiply along a path if

    .. math:: V + \hat\tau^2 = (V + \tau^2)^2 / (V + \tau'^2).

    `V` is what the mean slope of the expected value says, :math:`\nabla m = V / (V + \tau^2)`.

    :param x: particles, shape `(n, d)`, of one diffusion prior.
    """
    noisy = twist.is_noisy(x[0])
    sign = random.rademacher(random.key(0), noisy.shape, x.dtype) * noisy

    def share(x):
        return jnp.vdot(sign, jax.jvp(partial(twist.mean, sigma=sigma), (x,), (sign,))[1])

    first = np.flatnonzero(noisy)[0]
    own = twist.levels(x[0])[first] ** 2
    high, low = (twist.variance(x[0], level)[first] for level in (sigma, new_sigma))
    c = jnp.clip(jnp.mean(map_rows(share, x, batch_size)) / np.sum(noisy), 1e-6, 1 - 1e-6)
    value = high * c / (1 - c)
    risen = (value + high) ** 2 / (value + low) - value
    return jnp.clip(jnp.sqrt(risen + own), sigma, sigma**2 / new_sigma)


def _linear_noise(
    numbers: tuple[Array, Array],
    data: GaussianData,
    b: Array,
    s: Array,
    basis: DataBasis,
    found: Directions,
    spread: LinearSpread,
) -> tuple[Array, Array]:
    r"""
    The same of many numbers that are linear: :math:`z - b`, and :math:`\log N(z; b, I) - \log
    q(z)`. In the basis of the data the mean moves by :math:`\rho^{-1} s\, (c \Lambda V^\top + P\,
    \mathrm{diag}(k - c)\, Q^\top)\, z`.

    :param numbers: a key, and a standard normal draw of the shape of `b`.
    """
    key, noise = numbers
    key_value, key_own = random.split(key)
    ratio = basis.ratio(data.scale)
    c, k, q = found.rest, found.values, found.basis
    step = s / jnp.sqrt(ratio)

    def forward(z):
        return step * (c * (basis.images @ z) + spread.factor @ ((k - c) * (q.T @ z)))

    def back(u):
        return step * (c * (u @ basis.images) + q @ ((k - c) * (u @ spread.factor)))

    law = spread.with_noise(basis, data.scale)
    both = LowRankNormal(
        law.diagonal + step**2 * c**2 * basis.squares,
        spread.factor,
        law.weights + step**2 * (k**2 - c**2),
    )
    # A draw of the law of the data: their noise, and what a draw of the value moves them by.
    tau_k, tau_c = (
        jnp.sqrt(jnp.maximum(v, 0)) for v in (spread.excess + spread.shared, spread.shared)
    )
    value = random.normal(key_value, b.shape, b.dtype)
    moved = tau_c * (basis.images @ value) + spread.factor @ ((tau_k - tau_c) * (q.T @ value))
    own = jnp.sqrt(law.diagonal - spread.shared * basis.squares / ratio)
    drawn = own * random.normal(key_own, law.diagonal.shape, b.dtype) + moved / jnp.sqrt(ratio)
    residual = basis.rotated(data.value - data.loc, data.scale) - forward(b)
    z = noise + back(both.solve(residual - forward(noise) - drawn))
    return z, both.log_density(residual) - law.log_density(residual - forward(z))


def _log_ratio(z: Array, b: Array) -> Array:
    """`log N(z; 0, I) - log N(z; b, I)`."""
    return -jnp.vdot(b, z - b / 2)


def _solved(root: Array, rows: Array, transpose: bool = False) -> Array:
    """Each row after division by a lower triangular matrix, or by its transpose."""
    columns = jnp.atleast_2d(rows).T
    return solve_triangular(root, columns, trans=int(transpose), lower=True).T.reshape(rows.shape)
