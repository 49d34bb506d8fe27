# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How denoising score matching weighs the noise levels of a process."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._validation import check_positive, is_concrete
from numpyro_scores.processes import NoiseProcess


def weights_of(weight: Any, process: NoiseProcess, t: Array, denoiser: Any) -> Array:
    r"""
    :math:`\lambda` at times of a process, shape `(n,)`: a weight's own `at_times`, of one that
    looks at the process or at the denoiser, or its values at the noise levels.
    """
    if hasattr(weight, "at_times"):
        return weight.at_times(process, t, denoiser)
    return jax.vmap(weight)(process.noise_level(t))


@dataclass(frozen=True)
class KarrasWeight:
    r"""
    :math:`\lambda(\sigma) = 1/\sigma^2 + 1/\sigma_{\text{data}}^2 = (\sigma^2 +
    \sigma_{\text{data}}^2) / (\sigma \sigma_{\text{data}})^2`: every noise level starts with the
    same loss for a network preconditioned with the same `sigma_data` (Karras et al. 2022, table 1).

    :param sigma_data: standard deviation of the data, in its own units; by default the `sigma_data`
        of the denoiser that is trained, or 1 if it has none.
    :raises ValueError: in training, if the denoiser's is another.
    """

    sigma_data: float | None = None

    def __post_init__(self):
        if self.sigma_data is not None:
            check_positive("sigma_data", self.sigma_data)

    def of(self, denoiser: Any) -> "KarrasWeight":
        """This weight, with the `sigma_data` of a denoiser that has one."""
        own = getattr(denoiser, "sigma_data", None)
        if own is None:
            return self
        given = own if self.sigma_data is None else self.sigma_data
        if is_concrete(own) and not np.isclose(given, own):
            raise ValueError(
                f"The denoiser is preconditioned with sigma_data={own}, but its KarrasWeight has "
                f"{given}: leave it out there. Another weight can be any callable."
            )
        return KarrasWeight(own)

    def __call__(self, sigma: Array) -> Array:
        sigma_data = 1.0 if self.sigma_data is None else self.sigma_data
        return 1 / sigma**2 + 1 / sigma_data**2

    def at_times(self, process: NoiseProcess, t: Array, denoiser: Any) -> Array:
        """With the `sigma_data` of the denoiser."""
        return self.of(denoiser)(process.noise_level(t))


@dataclass(frozen=True)
class ScoreWeight:
    r"""
    :math:`\lambda(\sigma) = 1/\sigma^2`: the same as the weight :math:`\sigma^2` on the squared
    error of the score (Song & Ermon 2019, section 4.2).
    """

    def __call__(self, sigma: Array) -> Array:
        return 1 / sigma**2


@dataclass(frozen=True)
class VelocityWeight:
    r"""
    :math:`\lambda(\sigma) = (1 + 1 / \sigma)^2 = 1 / t^2`: the loss of a denoiser is then that of
    the velocity :math:`(x_t - D) / t` of straight paths, as :class:`FlowMatching` has it.
    """

    def __call__(self, sigma: Array) -> Array:
        return (1 + 1 / sigma) ** 2


@dataclass(frozen=True)
class LikelihoodWeight:
    r"""
    :math:`\lambda = \sigma'(t) / \sigma(t)^3`, which is :math:`\tfrac12 g^2` on the squared error
    of the score, with :math:`g^2 = d\sigma^2 / dt` (Song, Durkan, Murray & Ermon 2021, "Maximum
    likelihood training of score-based diffusion models", theorem 1). The loss, times the `d`
    entries of a point, is then a bound in nats:

    .. math::
        KL(p_{\sigma_{\min}} \| q_{\sigma_{\min}}) - KL(p_{\sigma_{\max}} \| q_{\sigma_{\max}})
        \le d \left( J(D) - J(D^*) \right),

    for data `p`, what the reverse process draws, `q`, and the best denoiser :math:`D^*`; with
    equality if `D` is the denoiser of `q`. It does not depend on how the process runs through its
    noise levels; for `VarianceExploding` it is :math:`\ln (\sigma_{\max} / \sigma_{\min})` times
    `ScoreWeight`.
    """

    def __call__(self, sigma: Array, slope: Array) -> Array:
        return slope / sigma**3

    def at_times(self, process: NoiseProcess, t: Array, denoiser: Any) -> Array:
        """With the slope of the noise level in time."""
        return self(*jax.jvp(process.noise_level, (t,), (jnp.ones_like(t),)))
