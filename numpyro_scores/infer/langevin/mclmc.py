# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Unadjusted microcanonical Langevin dynamics."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.infer.hmc_util import HMCAdaptState
from numpyro.infer.initialization import init_to_uniform

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.adaptation import Adaptation, counted
from numpyro_scores.infer.kernel import by_position
from numpyro_scores.infer.langevin.base import LangevinKernel, PotentialFn
from numpyro_scores.infer.langevin.energy_error import Calibration, Tuning
from numpyro_scores.infer.langevin.isokinetic import Flight, check_can_turn, flight
from numpyro_scores.infer.langevin.metric import Dense, Diagonal
from numpyro_scores.infer.langevin.microcanonical_warmup import Warmup
from numpyro_scores.infer.langevin.targets import check_rule, flat_root
from numpyro_scores.infer.low_rank import LowRank
from numpyro_scores.infer.trees import select
from numpyro_scores.integrators.isokinetic import (
    MINIMAL_NORM,
    Splitting,
    random_direction,
)


class MCLMCState(NamedTuple):
    """
    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values, a pytree.
    - **z_grad** - gradient of the potential energy at `z`, flat, shape `(d,)`.
    - **potential_energy** - at `z`, shape `()`; with sites of a `ScoreDistribution` that of the
      start, plus the differences along the path.
    - **direction** - in the coordinates of the metric, of length one, shape `(d,)`.
    - **step_size**, **decoherence_length** - see :class:`MCLMC`, shape `()`.
    - **energy_variance** - mean squared error of the energy a dimension, of the steps of this draw.
    - **mean_energy_variance** - its mean over the draws of this phase.
    - **variance_error** - the relative bias of the second moments that goes with this mean, were
      the target Gaussian.
    - **diverging** - whether the steps of this draw left the finite numbers, and so were not made.
    - **num_grad_evals** - number of gradients of this draw, and of scores along its segments.
    - **tuning** - what the step size follows in warmup; None if it was given.
    - **recent** - draws of warmup by which the autocorrelation is told, or None.
    - **adapt_state** - NumPyro's: `inverse_mass_matrix`, ...
    - **rng_key** - key of the next draw.
    """

    i: Array
    z: Any
    z_grad: Array
    potential_energy: Array
    direction: Array
    step_size: Array
    decoherence_length: Array
    energy_variance: Array
    mean_energy_variance: Array
    variance_error: Array
    diverging: Array
    num_grad_evals: Array
    tuning: Tuning | None
    recent: Array | None
    adapt_state: HMCAdaptState
    rng_key: Array

    __getitem__ = by_position


class MCLMC(LangevinKernel):
    r"""
    Microcanonical Langevin dynamics without a Metropolis test (Robnik, De Luca, Silverstein &
    Seljak 2023; Robnik & Seljak 2023): the direction turns to where the density rises, the speed
    is constant, and after each step the direction is partly refreshed. In many dimensions a draw
    costs far fewer gradients than one of NUTS; its price is a bias, of the size that is asked for.

    With a direction of length one and a length `L` on which it is forgotten a step is

    .. math::
        du = -(I - u u^\top) \frac{\nabla U}{d - 1} dt, \quad dx = u\, dt, \quad
        u \leftarrow \frac{e^{-t / L} u + \sqrt{(1 - e^{-2 t / L}) / d}\, z}{|\cdot|}.

    Warmup finds a metric as :class:`~numpyro_scores.MALA` does (in its first six tenths); the step
    size from the variance of the energy error of a step, a dimension, which on a Gaussian goes
    with the bias (Robnik, Cohn-Gordon & Seljak 2024, arXiv 2412.08876); and `L` from the
    autocorrelation of the draws (in its last four tenths).

    :param model: a NumPyro model with continuous latent sites, of two numbers at least.
    :param potential_fn: a potential energy, in place of a model.
    :param desired_bias: relative error of the second moments. It is measured by the mean over all
        directions, for a Gaussian: one direction of `d` that is narrower than all others in the
        metric may be off by up to the cube root of `d` times as much. The weights of modes that
        differ in width are off by more, by a factor that grows exponentially in `d`.
    :param num_steps: number of steps of a draw.
    :param step_size: the way of a step is :math:`\sqrt d` times as long, so that it compares with
        the step size of NumPyro's `HMC`; in the metric. Given, it is not adapted, and the state's
        `variance_error` says what comes of it.
    :param decoherence_length: `L`, likewise over :math:`\sqrt d`: given, it is not adapted. Without
        a warmup it is the standard deviation of a Gaussian for which the step size is right.
    :param adapt_mass_matrix: whether warmup adapts the metric.
    :param metric: in the place of `dense_mass`: see :class:`~numpyro_scores.MALA`.
    :param dense_mass: a full metric, or one by blocks of sites: see :class:`~numpyro_scores.MALA`.
    :param inverse_mass_matrix: where the adaptation of the metric starts: likewise.
    :param splitting: the integrator: `MINIMAL_NORM`, of two gradients a step, or `LEAPFROG`, of
        one, of `numpyro_scores.integrators`.
    :param segment_integral: how the sites of a :class:`~numpyro_scores.ScoreDistribution` enter the
        error of the energy: as in :class:`~numpyro_scores.MALA`.
    :param init_strategy: NumPyro's, where a model starts.
    :raises ValueError: if an argument is out of its range; at `init`, if the model has one number
        only, in which there is nowhere to turn.

    Steps that leave the finite numbers are not made: the chain stays at its last draw, with a new
    direction, and `diverging` says so.
    """

    _is_exact = False
    _shared_fields = ("i",)  # or the adaptation would be computed after warmup too

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        desired_bias: float = 0.01,
        num_steps: int = 10,
        step_size: float | None = None,
        decoherence_length: float | None = None,
        adapt_mass_matrix: bool = True,
        metric: Diagonal | Dense | LowRank | None = None,
        dense_mass: bool | list = False,
        inverse_mass_matrix: Any = None,
        splitting: Splitting = MINIMAL_NORM,
        segment_integral: SegmentIntegral | LineIntegral = SegmentIntegral(num_nodes=7),
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        if not 0 < desired_bias < 0.5:
            raise ValueError(
                "desired_bias is a relative error of the second moments, above 0 and below 0.5, "
                f"got {desired_bias!r}. For draws without a bias take MAMS."
            )
        if not isinstance(splitting, Splitting):
            raise ValueError(
                "splitting must be a Splitting, MINIMAL_NORM or LEAPFROG of "
                f"numpyro_scores.integrators, got {splitting!r}."
            )
        check_count("num_steps", num_steps)
        for name, value in (("step_size", step_size), ("decoherence_length", decoherence_length)):
            if value is not None:
                check_positive(name, value)
        check_rule(segment_integral)
        adaptation = Adaptation.of(
            False, adapt_mass_matrix, dense_mass, inverse_mass_matrix, metric
        )
        self._warmup = Warmup(
            Calibration(splitting, desired_bias),
            adaptation,
            step_size,
            decoherence_length,
            num_steps,
        )
        self._segment_integral = segment_integral

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        warmup = self._warmup = replace(self._warmup, num_draws=num_warmup)
        x, _, potential = self._flat(z, model_args, model_kwargs)
        check_can_turn("MCLMC", x)
        potential_energy, grad = jax.value_and_grad(potential)(x)
        key_adapt, key_curvature, key_direction, rng_key = random.split(rng_key, 4)
        adapt_state = warmup.adaptation.start(z, key_adapt, warmup.num_metric)()
        root = flat_root(adapt_state.mass_matrix_sqrt_inv, z)
        step_size = warmup.first_step_size(key_curvature, x, potential, root)
        zero = jnp.zeros((), x.dtype)
        state = MCLMCState(
            i=jnp.array(0),
            z=z,
            z_grad=grad,
            potential_energy=potential_energy,
            direction=random_direction(key_direction, x.shape, x.dtype),
            step_size=step_size,
            decoherence_length=warmup.first_length(step_size),
            energy_variance=zero,
            mean_energy_variance=zero,
            variance_error=zero,
            diverging=jnp.array(False),
            num_grad_evals=jnp.array(0),
            tuning=None if warmup.step_size is not None else Tuning.start(zero),
            recent=None if warmup.decoherence_length is not None else warmup.recorder.start(x),
            adapt_state=adapt_state,
            rng_key=rng_key,
        )
        return state, (potential_energy, grad)

    def _sample_chain(self, state, model_args, model_kwargs):
        x, unravel, potential = self._flat(state.z, model_args, model_kwargs)
        target = self._target(potential, x)
        splitting = self._warmup.calibration.splitting
        rng_key, key_flight = random.split(state.rng_key)
        start = target.resume(x, state.potential_energy, state.z_grad)
        end = flight(
            key_flight,
            start,
            state.direction,
            target,
            state.step_size,
            state.decoherence_length,
            flat_root(state.adapt_state.mass_matrix_sqrt_inv, state.z),
            splitting,
            self._warmup.num_steps,
        )
        # In it is every gradient and every energy on the way.
        finite = jnp.isfinite(end.energy_variance)
        end = select(finite, end, Flight(start, end.direction, state.mean_energy_variance))
        num_grads = self._warmup.num_steps * len(splitting.moves)
        num_evals = num_grads * (1 + target.num_score_evals) + (start.force is not None)
        state = state._replace(
            z=unravel(end.point.x),
            z_grad=end.point.grad,
            potential_energy=end.point.energy + end.point.integral,
            direction=end.direction,
            diverging=~finite,
            num_grad_evals=jnp.array(num_evals),
            rng_key=rng_key,
        )
        num_warmup, energy_variance = self._warmup.num_draws, end.energy_variance
        if num_warmup:
            state = lax.cond(
                state.i < num_warmup,
                lambda state: self._warmup.after(state, energy_variance, potential),
                lambda state: state,
                state,
            )
        state = counted(state, num_warmup, energy_variance=energy_variance)
        bias = self._warmup.calibration.bias(state.mean_energy_variance)
        return state._replace(variance_error=bias)

    def get_diagnostics_str(self, state):
        return f"step size {state.step_size:.2e}. variance {state.variance_error:+.1%}"
