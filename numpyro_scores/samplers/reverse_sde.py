# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The reverse stochastic differential equation, and Langevin steps between its steps."""

from dataclasses import dataclass

import jax.numpy as jnp

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.denoisers.score import score_by_denoiser
from numpyro_scores.samplers._base import ReverseSampler
from numpyro_scores.samplers.langevin import langevin_steps


def _reverse_step(denoiser, x, sigma, sigma_next, noise):
    difference = sigma**2 - sigma_next**2
    score = score_by_denoiser(denoiser, x, sigma)
    return x + difference * score + jnp.sqrt(difference) * noise


@dataclass(frozen=True)
class ReverseSDE(ReverseSampler):
    r"""
    Euler-Maruyama for the reverse process :math:`dx = -\nabla \log p_\sigma\, d\sigma^2 +
    \sqrt{d\sigma^2}\, dw`, :math:`\sigma^2` falling (Song et al. 2021, equation 6, and 46 for its
    steps):

    .. math:: x' = x + (\sigma^2 - \sigma'^2)\, s_\sigma(x) + \sqrt{\sigma^2 - \sigma'^2}\, z,

    of first order, one evaluation a step. The mean of a step is that of :class:`Ancestral`, its
    noise is larger, so that the variance comes out too large with few steps.

    :param num_steps: number of steps.
    :param spacing: where the noise levels lie.
    """

    def step(self, denoiser, x, sigma, sigma_next, noise):
        """See :meth:`ReverseSampler.step`."""
        return _reverse_step(denoiser, x, sigma, sigma_next, noise[0])


@dataclass(frozen=True)
class PredictorCorrector(ReverseSampler):
    r"""
    A step of :class:`ReverseSDE`, then Langevin steps at the level reached (Song et al. 2021,
    algorithms 1 and 4), :math:`x \leftarrow x + h s_{\sigma'}(x) + \sqrt{2 h}\, z` with :math:`h =
    2 (r \sigma')^2`. In that paper the step is :math:`h = 2 (r |z| / |s|)^2`; here the norms are
    those of noise alone, :math:`|s| = |z| / \sigma'`, so that it does not depend on the draw. The
    Langevin steps have a bias of their own, by which the variance `V` of a Gaussian comes out about
    :math:`1 + h / (2 V)` too large however many steps there are.

    :param num_steps: number of steps.
    :param spacing: where the noise levels lie.
    :param num_corrector_steps: number of Langevin steps after each.
    :param signal_to_noise: `r`.
    """

    num_corrector_steps: int = 1
    signal_to_noise: float = 0.16

    def __post_init__(self):
        super().__post_init__()
        check_count("num_corrector_steps", self.num_corrector_steps)
        check_positive("signal_to_noise", self.signal_to_noise)

    @property
    def num_noises(self) -> int:
        """One for the predictor and one for each corrector step."""
        return 1 + self.num_corrector_steps

    @property
    def num_evals(self) -> int:
        """As many as noises."""
        return self.num_noises

    def step(self, denoiser, x, sigma, sigma_next, noise):
        """See :meth:`ReverseSampler.step`."""
        x = _reverse_step(denoiser, x, sigma, sigma_next, noise[0])
        step_size = 2 * (self.signal_to_noise * sigma_next) ** 2
        return langevin_steps(denoiser, x, sigma_next, step_size, noise[1:])
