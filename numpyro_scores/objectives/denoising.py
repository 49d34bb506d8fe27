# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Denoising score matching, at one noise level or at all levels of a process."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._callables import Denoiser, Energy, Score, as_score
from numpyro_scores._validation import check_positive
from numpyro_scores.denoisers.of_energy import as_denoiser
from numpyro_scores.objectives._energy import free_field_of
from numpyro_scores.objectives._levels import check_levels, function_of_levels, stratified_times
from numpyro_scores.objectives._points import as_float_points
from numpyro_scores.objectives.noise_weights import KarrasWeight, weights_of
from numpyro_scores.processes import NoiseProcess


@dataclass(frozen=True)
class DenoisingScoreMatching:
    r"""
    Denoising score matching, with :math:`x = x_0 + \sigma z` and `z` standard normal.

    At one noise level (Vincent 2011, equation 9, times :math:`\sigma^2` so that the loss keeps its
    size as :math:`\sigma \to 0`), for an energy or a score, summed over the entries of a point:

    .. math::
        \mathbb E \left[ \tfrac{\sigma^2}2 \left| s(x) + z / \sigma \right|^2 \right],

    whose minimum is the score of the data smoothed by :math:`\mathcal N(0, \sigma^2)`.

    Over all noise levels of a process (Karras et al. 2022, equation 108), for a denoiser, averaged
    over the `d` entries of a point:

    .. math::
        \mathbb E \left[ \tfrac1d \lambda(\sigma) \left| D(x, \sigma) - x_0 \right|^2 \right],

    whose minimum is :math:`\mathbb E[x_0 | x] = x + \sigma^2 \nabla \log p_\sigma(x)`. Of an energy
    `U(x, sigma) -> ()` the denoiser is :math:`x - \sigma^2 \nabla U`; its values are learned by
    :class:`DualScoreMatching` only.
    The times of a batch of `n` points are stratified, :math:`t_i = (u + i / n) \bmod 1` with one
    uniform `u`: each is uniform, and together they cover all noise levels, which lowers the
    variance of the loss (Kingma et al. 2021, "Variational diffusion models").

    With `control_variate`, the loss at one noise level is, in expectation the same,

    .. math::
        \mathbb E \left[ \tfrac{\sigma^2}2 |s(x)|^2 + \sigma z \cdot (s(x) - s(x_0)) \right]
        + \tfrac d2

    (Wang, Cheng, Li, Zhu & Zhang 2020, "A Wasserstein minimum velocity approach to learning
    unnormalized models"). Both terms that vary are of the size :math:`\sigma^2` of what is to be
    learned, where without it :math:`|z|^2` and :math:`\sigma z \cdot s(x_0)` outgrow that as
    :math:`\sigma \to 0`. It costs a second evaluation; at noise levels of the size of the data it
    adds to the variance.

    At one noise level a distribution with a bounded support is matched in its unconstrained
    coordinates, as by :class:`ImplicitScoreMatching`, with the noise on these.

    :param noise: a noise level in the units of the data (or of the unconstrained coordinates), or a
        process, of finite positive noise levels.
    :param weight: :math:`\lambda`, any hashable callable `weight(sigma)` of one noise level; for a
        process only, by default `KarrasWeight()`. One with a method `at_times(process, t,
        denoiser)` is asked for the weights, shape `(n,)`, at the times `t`.
    :param control_variate: for one small noise level only.
    """

    noise: float | NoiseProcess
    weight: Callable[..., Array] | None = None
    control_variate: bool = False

    def __post_init__(self):
        if isinstance(self.noise, NoiseProcess):
            if self.control_variate:
                raise ValueError(
                    "control_variate is for one small noise level, but noise is the process "
                    f"{self.noise!r}: leave control_variate out."
                )
            check_levels(self.noise)
            return
        if isinstance(self.noise, Real):
            check_positive("noise", self.noise)
            if self.weight is not None:
                raise ValueError(
                    "weight balances the noise levels of a process, but noise is the one level "
                    f"{self.noise!r}: leave weight out."
                )
        else:
            raise TypeError(
                "noise must be a noise level (a positive number) or a process such as "
                f"VarianceExploding(sigma_min, sigma_max), got {self.noise!r}."
            )

    def __call__(self, module: Energy | Score | Denoiser, x: Array, *, key: Array) -> Array:
        """
        :param module: on one unbatched point: an energy, `x -> ()`, or a score, `x -> x.shape`, at
            one noise level, or an unnormalised distribution; for a process a denoiser,
            `(x, sigma) -> x.shape`, an energy of every noise level, `(x, sigma) -> ()`, or a
            distribution that has one of these, such as a `DiffusionPrior`.
        :param x: clean points, shape `(n, *event_shape)`.
        :param key: key of the noise and its levels.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch or the output has another shape.
        """
        x = as_float_points(x)
        key_level, key_noise = random.split(key)
        if not isinstance(self.noise, NoiseProcess):
            field, x = free_field_of(module, x)
            z = random.normal(key_noise, x.shape, x.dtype)
            return self._one_level(field, x, z, self.noise)
        module = function_of_levels(module)
        z = random.normal(key_noise, x.shape, x.dtype)
        t = stratified_times(key_level, len(x))
        return self._all_levels(module, x, z, self.noise, t)

    def _one_level(self, module, x, z, sigma):
        score = jax.vmap(as_score(module, x[0]))
        s = score(x + sigma * z)
        if not self.control_variate:
            return jnp.sum((sigma * s + z) ** 2) / (2 * len(x))
        varying = sigma**2 * jnp.sum(s**2) / 2 + sigma * jnp.sum(z * (s - score(x)))
        return varying / len(x) + x[0].size / 2

    def _all_levels(self, denoiser, x, z, process, t):
        sigma = process.noise_level(t).astype(x.dtype)
        weight = KarrasWeight() if self.weight is None else self.weight
        weights = weights_of(weight, process, t, denoiser).astype(x.dtype)
        denoiser = as_denoiser("The denoiser D(x, sigma)", denoiser, x[0], sigma[0])

        def error(x, z, sigma):
            return jnp.mean((denoiser(x + sigma * z, sigma) - x) ** 2)

        # A sigma_data that is trained is not to make the weight small.
        return jnp.mean(lax.stop_gradient(weights) * jax.vmap(error)(x, z, sigma))
