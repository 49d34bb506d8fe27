# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Dual score matching: the energy of every noise level, by its slopes in space and in noise."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._callables import NoiseEnergy
from numpyro_scores._validation import check_positive
from numpyro_scores.objectives._levels import check_levels, energy_of_levels, stratified_times
from numpyro_scores.objectives._pairs import antithetic_noise
from numpyro_scores.objectives._points import as_float_points
from numpyro_scores.objectives.noise_weights import KarrasWeight, weights_of
from numpyro_scores.processes import NoiseProcess


@dataclass(frozen=True)
class DualScoreMatching:
    r"""
    Dual score matching (Guth, Kadkhodaie & Simoncelli 2025, "Learning normalized image densities
    via dual score matching") of an energy :math:`U(x, \sigma) = -\log p_\sigma(x)` over the noise
    levels of a process. With :math:`y = x + \sigma z`, `z` standard normal in `d` entries, two
    regressions at once, both without bias:

    .. math::
        \sigma \nabla_y U(y, \sigma) = E[z \mid y], \qquad
        \sigma\, \partial_\sigma U(y, \sigma) = E[d - |z|^2 \mid y].

    The first is :class:`DenoisingScoreMatching` of the denoiser :math:`y - \sigma^2 \nabla U`; the
    second ties the levels to each other, so that `U` is right up to one constant for all of them.
    Where `U` at the largest level is a density by construction, as of
    :class:`~numpyro_scores.nn.MLPNoiseEnergy`, that is right, too. The loss, averaged over the `d`
    entries of a point, is

    .. math::
        \mathbb E \left[ \lambda(\sigma) \sigma^2 \left(
        \tfrac1d \left| \sigma \nabla U - z \right|^2
        + \tfrac{\alpha}{2 d} \left( \sigma \partial_\sigma U - d + |z|^2 \right)^2
        \right) \right].

    The targets have variance 1 in each of `d` entries, and :math:`2 d`: with the default
    :math:`\alpha = 1 / d` the two are weighted as least squares want them. Before training, where
    `U` is that of a Gaussian of the data's size, the first term is 1 and the second between
    :math:`\alpha` and :math:`2 \alpha` at each level. The times of a batch are stratified, as by
    :class:`DenoisingScoreMatching`. A step takes a gradient of a gradient: about twice the time of
    a denoiser's, for each noise.

    Each point gets **two noises** of opposite direction and opposite size, whose errors cancel
    where the energy is smooth: the target :math:`d - |z|^2` is nearly all error at small levels,
    and its sum over all of them is what tells the weights of modes. A step then takes twice as
    long: with half of the batch the errors of mode weights were 0.6 of those of single noises.

    :param noise: a process, of finite positive noise levels. Its largest should be 5 to 10 times
        the standard deviation of the data along their widest direction; `fit` warns if not.
    :param weight: :math:`\lambda`, as of :class:`DenoisingScoreMatching`; `KarrasWeight()` by
        default.
    :param time_weight: :math:`\alpha`, positive; by default :math:`1 / d`.
    :param antithetic: whether each point gets such a pair of noises, or one.
    :param fokker_planck_weight: :math:`\gamma`, not negative, of a third term that is 0 where all
        levels are of one density (Lai et al. 2023, "FP-diffusion"; Plainer et al. 2025, "Consistent
        sampling and simulation"),

        .. math:: \frac{\gamma}{2 d} \left( \sigma \partial_\sigma U
                  - \sigma^2 (v^\top \nabla^2 U\, v - |\nabla U|^2) \right)^2,

        with random signs `v`, for models whose draws and values disagree (see
        :func:`~numpyro_scores.diagnostics.level_consistency`). By default 0: a step with it takes
        about twice the time. The sign estimate of the trace makes curvature across the axes a part
        of the loss, so that too large a weight flattens it.
    """

    noise: NoiseProcess
    weight: Callable[..., Array] | None = None
    time_weight: float | None = None
    fokker_planck_weight: float = 0.0
    antithetic: bool = True

    def __post_init__(self):
        if not isinstance(self.noise, NoiseProcess):
            raise TypeError(
                "noise must be a process such as VarianceExploding(sigma_min, sigma_max), got "
                f"{self.noise!r}: an energy of one noise level is trained on "
                "DenoisingScoreMatching(sigma)."
            )
        check_levels(self.noise)
        if self.time_weight is not None:
            check_positive("time_weight", self.time_weight)
        if self.fokker_planck_weight != 0:
            check_positive("fokker_planck_weight", self.fokker_planck_weight)

    def __call__(self, module: NoiseEnergy, x: Array, *, key: Array) -> Array:
        """
        :param module: an energy of every noise level, `(x, sigma) -> ()` on one unbatched point,
            or a `DiffusionPrior` of one.
        :param x: clean points, shape `(n, *event_shape)`.
        :param key: key of the noise and its levels.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch or the output has another shape.
        """
        x = as_float_points(x)
        key_level, key_noise = random.split(key)
        if self.antithetic:
            z = antithetic_noise(key_noise, x)
        else:
            z = random.normal(key_noise, x.shape, x.dtype)[None]
        t = stratified_times(key_level, len(x))
        sigma = self.noise.noise_level(t).astype(x.dtype)
        energy = energy_of_levels(module, x[0], sigma[0])
        size = x[0].size
        time_weight = 1 / size if self.time_weight is None else self.time_weight

        slopes = jax.grad(energy, argnums=(0, 1))
        residual_weight = self.fokker_planck_weight
        signs = random.rademacher(random.fold_in(key, 2), x.shape, x.dtype)

        def error(x, z, sigma, v):
            of_levels = 0.0
            if residual_weight:
                at = (x + sigma * z,)
                (in_space, in_noise), (image, _) = jax.jvp(lambda y: slopes(y, sigma), at, (v,))
                drift = sigma**2 * (jnp.vdot(v, image) - jnp.sum(in_space**2))
                of_levels = residual_weight * (sigma * in_noise - drift) ** 2 / 2
            else:
                in_space, in_noise = slopes(x + sigma * z, sigma)
            of_space = jnp.sum((sigma * in_space - z) ** 2)
            of_noise = (sigma * in_noise - size + jnp.sum(z**2)) ** 2 / 2
            return (of_space + time_weight * of_noise + of_levels) / size

        weight = KarrasWeight() if self.weight is None else self.weight
        weights = weights_of(weight, self.noise, t, energy).astype(x.dtype) * sigma**2
        # A sigma_data that is trained is not to make the weight small.
        errors = jax.vmap(lambda z: jax.vmap(error)(x, z, sigma, signs))(z)
        return jnp.mean(lax.stop_gradient(weights) * errors)
