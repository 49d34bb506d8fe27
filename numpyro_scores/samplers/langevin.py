# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Langevin steps at each noise level, and nothing between the levels."""

from dataclasses import dataclass

from jax import Array, lax

from numpyro_scores._callables import Denoiser
from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.denoisers.score import score_by_denoiser
from numpyro_scores.integrators import euler_maruyama
from numpyro_scores.samplers._base import ReverseSampler


def langevin_steps(
    denoiser: Denoiser, x: Array, sigma: Array, step_size: Array, noise: Array
) -> Array:
    r"""
    As many steps :math:`x \leftarrow x + h s_\sigma(x) + \sqrt{2 h}\, z` as there are noises.

    :param noise: standard normals, shape `(num_steps, *x.shape)`.
    """

    def step(x, z):
        return euler_maruyama(x, -score_by_denoiser(denoiser, x, sigma), step_size, z), None

    return lax.scan(step, x, noise)[0]


@dataclass(frozen=True)
class Langevin(ReverseSampler):
    r"""
    Annealed Langevin dynamics of the prior (Song & Ermon 2019, algorithm 1): at each noise level in
    turn `num_langevin_steps` steps

    .. math:: x \leftarrow x + h s_\sigma(x) + \sqrt{2 h}\, z, \quad h = \text{step\_size}\;
              \sigma^2.

    In that paper :math:`h = \tfrac{\epsilon}{2} \sigma^2 / \sigma_{\min}^2`, with its settings 0.1
    :math:`\sigma^2` and 100 steps at each of 10 levels. Draws lag behind the levels, and each level
    has the bias of :class:`~numpyro_scores.samplers.PredictorCorrector`: with the defaults, 1,000
    evaluations a draw, a Gaussian of standard deviation 0.5 comes out 1.05 times as wide from
    :math:`\sigma = 10` down to 0.01, and 1.1 times from 500 to 0.02.

    :param num_steps: number of noise levels after the largest.
    :param spacing: where the noise levels lie.
    :param num_langevin_steps: number of Langevin steps at each.
    :param step_size: `h` in units of :math:`\sigma^2`, below 2, where the steps become unstable.
    """

    num_steps: int = 100
    num_langevin_steps: int = 10
    step_size: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        check_count("num_langevin_steps", self.num_langevin_steps)
        check_positive("step_size", self.step_size)
        if self.step_size >= 2:
            raise ValueError(
                f"step_size must be below 2, where the steps become unstable, got {self.step_size}."
            )

    @property
    def num_noises(self) -> int:
        """One for each Langevin step."""
        return self.num_langevin_steps

    @property
    def num_evals(self) -> int:
        """As many as noises."""
        return self.num_noises

    def step(self, denoiser, x, sigma, sigma_next, noise):
        """See :meth:`ReverseSampler.step`."""
        del sigma
        return langevin_steps(denoiser, x, sigma_next, self.step_size * sigma_next**2, noise)
