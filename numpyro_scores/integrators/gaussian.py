# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The bias of an integrator on a Gaussian, without Monte Carlo."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_positive
from numpyro_scores.integrators._base import Integrator, IntegratorState, OverdampedIntegrator

# After so many doublings a factor of 1 - 1e-16 a step is nothing.
NUM_DOUBLINGS = 64


def stationary_variance(
    integrator: Integrator,
    step_size: Array | float,
    precision: Array | float,
    friction: Array | float | None = None,
) -> Array:
    r"""
    Stationary variance of the position on a Gaussian of one dimension; the exact answer would be
    the inverse of `precision`.

    There a step is linear, :math:`u' = A u + B \xi` of position and memory :math:`u`, so that the
    stationary covariance :math:`S = A S A^\top + B B^\top` is the sum of
    :math:`A^k B B^\top (A^\top)^k`, found by doubling its number of terms.

    :param integrator: any integrator whose steps are linear in the gradient.
    :param step_size: `h` of an overdamped integrator, the time step of an underdamped one.
    :param precision: of the Gaussian, positive.
    :param friction: of an underdamped integrator, per unit of time.
    :return: the variance, shape `()`; infinite where the steps are unstable. All numbers may be
        traced.
    :raises ValueError: if a number is not positive, or the friction is missing or without use.
    """
    check_positive("step_size", step_size)
    check_positive("precision", precision)
    if isinstance(integrator, OverdampedIntegrator):
        if friction is not None:
            raise ValueError(f"{integrator!r} has no friction, got friction={friction!r}.")
    elif friction is None:
        raise ValueError(f"{integrator!r} needs a friction, per unit of time, got None.")
    else:
        check_positive("friction", friction)
    return compiled(_stationary_variance, integrator, step_size, precision, friction)


def _stationary_variance(integrator: Any, step_size: Any, precision: Any, friction: Any) -> Array:
    dynamics = {} if friction is None else {"friction": friction}

    def gradient(x):
        return precision * x

    x = jnp.zeros(1)
    start, unravel = ravel_pytree((x, integrator.init(x, x, gradient).memory))

    def step(u, noise):
        x, memory = unravel(u)
        state = IntegratorState(x, gradient(x), memory)
        new = integrator.step(state, noise, gradient, step_size=step_size, **dynamics)
        return ravel_pytree((new.x, new.memory))[0]

    a, b = jax.jacfwd(step, argnums=(0, 1))(start, jnp.zeros((integrator.num_noises, 1)))
    b = b.reshape(len(start), -1)

    def double(_, carry):
        power, covariance = carry
        return power @ power, covariance + power @ covariance @ power.T

    with jax.default_matmul_precision("highest"):
        power, covariance = lax.fori_loop(0, NUM_DOUBLINGS, double, (a, b @ b.T))
    # What has not died out by now is unstable, NaN included.
    return jnp.where(jnp.linalg.norm(power) < 1, covariance[0, 0], jnp.inf)
