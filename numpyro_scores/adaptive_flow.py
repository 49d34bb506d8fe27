# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The log density along the probability flow, with steps that Diffrax chooses."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import Denoiser
from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.densities import default_trace, log_density_at_sigma_max
from numpyro_scores.flows import flow_and_volume
from numpyro_scores.stein import TraceEstimator


@dataclass(frozen=True)
class AdaptiveProbabilityFlow:
    """
    The value of :class:`~numpyro_scores.ProbabilityFlow` by the fifth-order method of Tsitouras
    (2011) with adaptive steps, from the package Diffrax, which must be installed.

    :param rtol: relative tolerance of a step.
    :param atol: absolute tolerance of a step, in the units of the data and in nats.
    :param max_steps: an error is raised if that many steps are not enough.
    :param trace: how the trace of the Jacobian is found; exact up to 256 dimensions by default,
        and with 32 fixed Rademacher probes above.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 4096
    trace: TraceEstimator | None = None

    def __post_init__(self):
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol)
        check_count("max_steps", self.max_steps)

    def __call__(self, denoiser: Denoiser, x: Array, sigma: Array, sigma_max: float) -> Array:
        """See :meth:`~numpyro_scores.NoisePathIntegral.__call__`: same arguments, same value."""
        try:
            import diffrax
        except ImportError as error:
            raise ImportError(
                "AdaptiveProbabilityFlow needs Diffrax (pip install diffrax); ProbabilityFlow does "
                "without."
            ) from error
        trace = self.trace or default_trace(x.size)
        velocity = flow_and_volume(denoiser, trace)
        start, end = jnp.log(sigma), jnp.log(jnp.asarray(sigma_max, x.dtype))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda log_sigma, state, _: velocity(log_sigma, state)),
            diffrax.Tsit5(),
            t0=start,
            t1=end,
            dt0=None,
            y0=(x, jnp.zeros((), x.dtype)),
            stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
            max_steps=self.max_steps,
        )
        x_max, log_volume = (path[-1] for path in solution.ys)
        return log_density_at_sigma_max(denoiser, trace, x_max, sigma_max) + log_volume
