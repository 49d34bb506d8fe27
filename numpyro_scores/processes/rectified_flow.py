# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The straight paths of flow matching, and the velocities that networks learn on them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_decreasing
from numpyro_scores.processes._base import TimedProcess, hold_floats


@dataclass(frozen=True)
class RectifiedFlow(TimedProcess):
    r"""
    :math:`x_t = (1 - t) x_0 + t z`, from the data at :math:`t = 0` to noise at :math:`t = 1` (Liu,
    Gong & Liu 2023, "Flow straight and fast", equation 1; Lipman et al. 2023, "Flow matching for
    generative modeling", section 4.1, optimal transport, whose time runs the other way). So the
    scale is :math:`1 - t` and the noise level :math:`\sigma = t / (1 - t)`.

    An Euler step of :math:`dx / dt = v(x_t, t)` is a step of
    :class:`~numpyro_scores.samplers.DDIM` between the same times: `DDIM(num_steps, TimeSpacing())`.

    :param t_min: the first time: at time 0 there is no noise, and no score.
    :param t_max: the last time: at time 1 there is no signal. Data of unit variance in standard
        units; the noise level of 0.999 is 999.
    :raises ValueError: unless `0 < t_min < t_max < 1`.
    """

    t_min: float = 0.01
    t_max: float = 0.999

    def __post_init__(self):
        check_decreasing("(t_max, t_min)", [self.t_max, self.t_min])
        hold_floats(self, "t_min", "t_max")
        if self.t_max >= 1:
            raise ValueError(
                f"t_max must be below 1, where there is no signal, got {self.t_max}: 0.999 say."
            )

    @property
    def sigma_min(self) -> float:
        """The noise level at `t_min`."""
        return self.t_min / (1 - self.t_min)

    @property
    def sigma_max(self) -> float:
        """The noise level at `t_max`."""
        return self.t_max / (1 - self.t_max)

    def within(self, t: Array) -> Array:
        """A time as one from `t_min` to `t_max`."""
        return jnp.clip(t, self.t_min, self.t_max)

    def scale(self, t: Array) -> Array:
        r""":math:`1 - t`."""
        return 1 - self.within(t)

    def noise_level(self, t: Array) -> Array:
        r""":math:`t / (1 - t)`; a time beyond `t_min` or `t_max` counts as that."""
        t = self.within(t)
        return t / (1 - t)

    def time(self, sigma: Array) -> Array:
        r""":math:`\sigma / (1 + \sigma)`."""
        return sigma / (1 + sigma)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class VelocityPrediction:
    r"""
    The denoiser of a network that predicts the velocity of straight paths, :math:`\hat v(x_t, t)
    \approx \mathbb E[z - x_0 \mid x_t]`:

    .. math:: D(x, \sigma) = x_t - t\, \hat v(x_t, t), \quad t = \frac \sigma {1 + \sigma}, \quad
              x_t = (1 - t)\, x,

    since :math:`x_0 = x_t - t (z - x_0)`. That holds for a network that was trained on independent
    pairs of data and noise. One that was trained on pairs of an optimal transport (minibatch OT) or
    on the pairs of another flow (reflow) has the velocity of another path, which draws but is no
    denoiser: its score is wrong.

    It is a pytree that holds its network, so that `fit` trains it and `DiffusionPrior` takes it.

    :param network: `network(x_t, t) -> x_t.shape` on one unbatched point.
    :param data_at_one: for a network whose time is 0 at the noise and 1 at the data, and whose
        velocity is :math:`x_0 - z` (Lipman et al. 2023).
    """

    network: Callable[[Array, Array], Array]
    data_at_one: bool = field(default=False, metadata={"static": True})

    def velocity(self, x_t: Array, t: Array) -> Array:
        """
        :math:`\\hat v(x_t, t)`, away from the data.

        :param x_t: one point of the path.
        :param t: its time, 0 at the data, shape `()`.
        """
        if self.data_at_one:
            return -self.network(x_t, 1 - t)
        return self.network(x_t, t)

    def __call__(self, x: Array, sigma: Array) -> Array:
        """
        :param x: one noisy point `x_0 + sigma z`, *not* scaled by `1 - t`.
        :param sigma: its noise level, shape `()`.
        :return: the denoised point, the shape of `x`.
        """
        t = sigma / (1 + sigma)
        x_t = x / (1 + sigma)
        return x_t - t * self.velocity(x_t, t)
