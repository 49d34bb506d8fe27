# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Networks of other coordinates as denoisers.

A variance-preserving process has :math:`x_t = \alpha x_0 + \sqrt{1 - \alpha^2}\, z`. Then
:math:`x_t / \alpha = x_0 + \sigma z` with :math:`\alpha = 1 / \sqrt{1 + \sigma^2}`, whatever its
course in time.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:  # a process lies above its denoisers, whose names it lists
    from numpyro_scores.processes._base import TimedProcess


def log_noise_level(sigma: Array) -> Array:
    r""":math:`\tfrac14 \ln \sigma`, as :class:`~numpyro_scores.nn.Preconditioned` has it."""
    return jnp.log(sigma) / 4


@dataclass(frozen=True, eq=False)
class _Prediction:
    """A network in variance-preserving coordinates, of `alpha * x`."""

    network: Callable[[Array, Array], Array]
    condition: Callable[[Array], Array] = field(default=log_noise_level, metadata={"static": True})

    def _alpha_and_output(self, x: Array, sigma: Array) -> tuple[Array, Array]:
        alpha = 1 / jnp.sqrt(1 + sigma**2)
        return alpha, self.network(alpha * x, self.condition(sigma))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class EpsilonPrediction(_Prediction):
    r"""
    The denoiser :math:`D(x, \sigma) = x - \sigma\, \epsilon(\alpha x)` of a network that predicts
    the noise `z` (Ho, Jain & Abbeel 2020, "Denoising diffusion probabilistic models"). With
    `ScoreWeight()`, `DenoisingScoreMatching` of it is the simple loss of that paper,
    :math:`|\epsilon - z|^2`.

    It is a pytree that holds its network, so that `fit` trains it and `DiffusionPrior` takes it.

    :param network: `network(x_t, c) -> x_t.shape` on one unbatched point, as of unit variance.
    :param condition: `c` as a function of the noise level :math:`\sigma`; by default
        :math:`\tfrac14 \ln \sigma`. A network of the time of a process takes `process.time`, one of
        DDPM's steps `DDPM().step`.
    """

    def __call__(self, x: Array, sigma: Array) -> Array:
        """
        :param x: one noisy point `x_0 + sigma z`, *not* scaled by alpha.
        :param sigma: its noise level, shape `()`.
        :return: the denoised point, the shape of `x`.
        """
        return x - sigma * self._alpha_and_output(x, sigma)[1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class VPrediction(_Prediction):
    r"""
    The denoiser :math:`D(x, \sigma) = \alpha^2 x - \alpha \sigma\, \hat v(\alpha x)` of a network
    that predicts :math:`v = \alpha z - \sqrt{1 - \alpha^2}\, x_0` (Salimans & Ho 2022, "Progressive
    distillation for fast sampling of diffusion models", appendix D). With `KarrasWeight()`,
    `DenoisingScoreMatching` of it is :math:`|\hat v - v|^2`.

    :param network: as of :class:`EpsilonPrediction`.
    :param condition: as of :class:`EpsilonPrediction`.
    """

    def __call__(self, x: Array, sigma: Array) -> Array:
        """See :meth:`EpsilonPrediction.__call__`."""
        alpha, v = self._alpha_and_output(x, sigma)
        return alpha**2 * x - sigma * alpha * v


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class X0Prediction(_Prediction):
    r"""
    The denoiser :math:`D(x, \sigma) = \hat x_0(\alpha x)` of a network that predicts the clean
    point.

    :param network: as of :class:`EpsilonPrediction`.
    :param condition: as of :class:`EpsilonPrediction`.
    """

    def __call__(self, x: Array, sigma: Array) -> Array:
        """See :meth:`EpsilonPrediction.__call__`."""
        return self._alpha_and_output(x, sigma)[1]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ScorePrediction:
    r"""
    The denoiser of a network that predicts the score of :math:`x_t = s(t) (x_0 + \sigma(t) z)` at
    the time of a process, in its own coordinates:

    .. math:: D(x, \sigma) = x + \sigma^2 s(t)\, \hat\nabla \log p_t (s(t)\, x), \quad
              t = t(\sigma).

    :param network: `network(x_t, t) -> x_t.shape` on one unbatched point.
    :param process: a process with `scale` and `time`.
    """

    network: Callable[[Array, Array], Array]
    process: "TimedProcess" = field(metadata={"static": True})

    def __call__(self, x: Array, sigma: Array) -> Array:
        """See :meth:`EpsilonPrediction.__call__`."""
        t = self.process.time(sigma)
        scale = self.process.scale(t)
        return x + sigma**2 * scale * self.network(scale * x, t)


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
