# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The probability flow by steps that Diffrax chooses."""

from dataclasses import dataclass

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.densities.adaptive_flow import adaptive_runge_kutta
from numpyro_scores.densities.flow import flow
from numpyro_scores.samplers._base import PriorSampler


@dataclass(frozen=True)
class AdaptiveFlow(PriorSampler):
    r"""
    The probability flow :math:`dx / d\log\sigma = x - D(x, \sigma)` by the fifth-order method of
    Tsitouras (2011) with adaptive steps, from the package Diffrax, which must be installed. It is
    for draws whose error is asked for rather than their number of steps; in a batch all points wait
    for the one that needs most.

    It draws from a prior alone, by `DiffusionPrior.sample`: kernels go step by step.

    :param rtol: relative tolerance of a step.
    :param atol: absolute tolerance of a step, in the units of the data.
    :param max_steps: an error is raised if that many steps are not enough.
    """

    rtol: float = 1e-4
    atol: float = 1e-4
    max_steps: int = 4096

    def __post_init__(self):
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol)
        check_count("max_steps", self.max_steps)

    def __call__(self, denoiser, process, x, sigma, *, key, sigma_from=None):
        """See :meth:`PriorSampler.__call__`."""
        del key
        sigma_from = process.sigma_max if sigma_from is None else sigma_from
        return adaptive_runge_kutta(flow(denoiser), x, sigma_from, sigma, self)
