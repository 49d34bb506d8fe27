# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The probability flow with steps that Diffrax chooses, and the log density along it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import Denoiser
from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.densities.flow import log_density_by_flow
from numpyro_scores.densities.noise_path import check_trace
from numpyro_scores.densities.traces import TraceEstimator


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
        check_trace(self.trace)

    def __call__(self, denoiser: Denoiser, x: Array, sigma: Array, sigma_max: float) -> Array:
        """See :meth:`~numpyro_scores.NoisePathIntegral.__call__`: same arguments, same value."""
        carry = partial(adaptive_runge_kutta, options=self)
        return log_density_by_flow(carry, denoiser, self.trace, x, sigma, sigma_max)


class Tolerances(Protocol):
    """What the adaptive steps are told."""

    @property
    def rtol(self) -> float: ...

    @property
    def atol(self) -> float: ...

    @property
    def max_steps(self) -> int: ...


def adaptive_runge_kutta(
    velocity: Callable[..., Any], state: Any, sigma_from: Any, sigma_to: Any, options: Tolerances
) -> Any:
    r"""
    Carry a state from one noise level to another, up or down, by steps that Diffrax chooses.

    :param velocity: its slope in :math:`\log \sigma`, a function of :math:`\log \sigma` and it.
    :raises ImportError: if Diffrax is not installed.
    """
    try:
        import diffrax
    except ImportError as error:
        raise ImportError(
            f"{type(options).__name__} needs Diffrax (pip install diffrax); without it there are "
            "steps of a fixed number: ProbabilityFlow for log densities, Heun for draws."
        ) from error
    dtype = jax.tree.leaves(state)[0].dtype
    start, end = (jnp.log(jnp.asarray(sigma, dtype)) for sigma in (sigma_from, sigma_to))
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda log_sigma, state, _: velocity(log_sigma, state)),
        diffrax.Tsit5(),
        t0=start,
        t1=end,
        dt0=None,
        y0=state,
        stepsize_controller=diffrax.PIDController(rtol=options.rtol, atol=options.atol),
        max_steps=options.max_steps,
    )
    return jax.tree.map(lambda path: path[-1], solution.ys)
