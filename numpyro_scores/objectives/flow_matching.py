# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Flow matching: the velocity of straight paths between data and noise."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._callables import check_field
from numpyro_scores.objectives._levels import function_of_levels, stratified_times
from numpyro_scores.objectives._points import as_float_points
from numpyro_scores.processes import RectifiedFlow, VelocityPrediction


@dataclass(frozen=True)
class FlowMatching:
    r"""
    Conditional flow matching on straight paths :math:`x_t = (1 - t) x_0 + t z`, `z` standard normal
    and independent of :math:`x_0` (Lipman et al. 2023, equation 23; Liu, Gong & Liu 2023, equation
    1), averaged over the `d` entries of a point:

    .. math::
        \mathbb E \left[ \tfrac1d \lambda(t) \left| v(x_t, t) - (z - x_0) \right|^2 \right],

    whose minimum is :math:`\mathbb E[z - x_0 \mid x_t]`: of a denoiser it's
    `DenoisingScoreMatching(process, VelocityWeight())`, and
    :class:`~numpyro_scores.processes.VelocityPrediction` makes a denoiser of the velocity, so that
    `DiffusionPrior` takes it. The times of a batch are stratified, as in
    :class:`DenoisingScoreMatching`.

    Pairs of data and noise that depend on each other (minibatch optimal transport) are not offered:
    what they teach is no denoiser, and has no score.

    :param process: the first and the last time, `t_min` and `t_max`, between which times are
        uniform.
    :param weight: :math:`\lambda`, any hashable callable `weight(t)` of one time; 1 by default.
    """

    process: RectifiedFlow = RectifiedFlow()
    weight: Callable[[Array], Array] | None = None

    def __post_init__(self):
        if not isinstance(self.process, RectifiedFlow):
            raise TypeError(
                "FlowMatching is of straight paths, process=RectifiedFlow(t_min, t_max), got "
                f"{self.process!r}. Over the noise levels of another process a denoiser is trained "
                "on DenoisingScoreMatching(process)."
            )

    def __call__(self, module: Any, x: Array, *, key: Array) -> Array:
        """
        :param module: a velocity, `(x_t, t) -> x_t.shape` on one unbatched point, away from the
            data; or a :class:`~numpyro_scores.processes.VelocityPrediction`, or a
            `DiffusionPrior` of one.
        :param x: data, shape `(n, *event_shape)`.
        :param key: key of the noise and the times.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch, the output has another shape, or the prior is of
            another denoiser.
        """
        x = as_float_points(x)
        velocity = _velocity_of(module)
        key_times, key_noise = random.split(key)
        z = random.normal(key_noise, x.shape, x.dtype)
        t_min, t_max = self.process.t_min, self.process.t_max
        t = t_min + (t_max - t_min) * stratified_times(key_times, len(x)).astype(x.dtype)
        check_field("The velocity v(x_t, t)", velocity, x[0], t[0])

        def error(x, z, t):
            difference = velocity((1 - t) * x + t * z, t) - (z - x)
            return jnp.mean(difference**2) * (1 if self.weight is None else self.weight(t))

        return jnp.mean(jax.vmap(error)(x, z, t))


def _velocity_of(module: Any) -> Callable[[Array, Array], Array]:
    function = function_of_levels(module)
    if isinstance(function, VelocityPrediction):
        return function.velocity
    if function is module:
        return function
    raise ValueError(
        f"FlowMatching trains a velocity, but the denoiser of this {type(module).__name__} is "
        f"{type(function).__name__}: make the prior of VelocityPrediction(network), or train the "
        "denoiser on DenoisingScoreMatching(RectifiedFlow(), VelocityWeight())."
    )
