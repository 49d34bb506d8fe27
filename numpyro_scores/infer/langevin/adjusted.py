# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What Metropolis-adjusted kernels share: adaptation in warmup, acceptance, bookkeeping."""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc_util import HMCAdaptState
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import transform_fn
from numpyro.util import is_prng_key

from numpyro_scores._validation import check_count, check_positive, is_concrete
from numpyro_scores.curvature import curvature_at
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.fields import by_position
from numpyro_scores.infer.kernel import mean_of_phase
from numpyro_scores.infer.langevin.asymmetry import proposals, warn_unless_gradient
from numpyro_scores.infer.langevin.base import LangevinKernel, PotentialFn
from numpyro_scores.infer.langevin.blocks import checked_blocks, flat_root
from numpyro_scores.infer.langevin.metric import (
    check_inverse_mass_matrix,
    coordinates,
    given_metric,
)
from numpyro_scores.infer.langevin.segments import Point, Target, score_sites, target_of
from numpyro_scores.infer.langevin.warmup import metric_adapter
from numpyro_scores.infer.trees import select

# Share of the proposals above which the progress bar tells it.
MANY_UNRESOLVED = 0.02


class AdjustedState(NamedTuple):
    """
    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values, a pytree.
    - **z_grad** - gradient of the potential energy at `z`, flat, shape `(d,)`.
    - **potential_energy** - at `z`, shape `()`; with sites of a `ScoreDistribution` that of the
      start, plus the differences along the path.
    - **accept_prob** - mean acceptance probability of the proposals of this draw.
    - **mean_accept_prob** - its mean over the draws of this phase.
    - **diverging** - whether a proposal of this draw was not finite, and so rejected.
    - **unresolved** - share of the proposals of this draw that were refused because the integral of
      a score between point and proposal is not known to the tolerance of `segment_integral`.
    - **mean_unresolved** - its mean over the draws of this phase.
    - **num_grad_evals** - number of gradients of this draw, and of scores along its segments.
    - **adapt_state** - NumPyro's: `step_size`, `inverse_mass_matrix`, ...
    - **rng_key** - key of the next draw.
    """

    i: Array
    z: Any
    z_grad: Array
    potential_energy: Array
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    unresolved: Array
    mean_unresolved: Array
    num_grad_evals: Array
    adapt_state: HMCAdaptState
    rng_key: Array

    __getitem__ = by_position

    @property
    def step_size(self) -> Array:
        """As of kernels without a Metropolis test, for `extra_fields`."""
        return self.adapt_state.step_size


class Transition(NamedTuple):
    """
    One draw.

    - **point** - where the chain is then.
    - **accept_prob** - mean acceptance probability of the proposals.
    - **diverging** - whether a proposal was not finite.
    - **unresolved** - share of the proposals that were refused because of the error of an integral.
    """

    point: Point
    accept_prob: Array
    diverging: Array
    unresolved: Array


def accept_or_stay(
    uniform: Array,
    log_ratio: Array,
    proposal: Any,
    current: Any,
    is_known: Array | bool = True,
) -> tuple[Any, Array, Array]:
    """
    The next point by a number that is uniform in [0, 1), the acceptance probability, and whether
    the proposal was not finite.

    :param is_known: whether the ratio can be relied on; the same of the way back.
    """
    # Not finite: the proposal left the support or the finite numbers, in its potential energy or
    # its gradient. Reject, an energy of -inf too: it would never be left.
    finite = jnp.isfinite(log_ratio)
    accept_prob = jnp.where(finite & is_known, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
    return select(uniform < accept_prob, proposal, current), accept_prob, ~finite


class AdjustedKernel(LangevinKernel):
    """
    A Metropolis-adjusted kernel. Step size and metric are adapted during warmup by NumPyro's own
    scheme; a subclass writes one draw, `_move`.
    """

    _shared_fields = ("i",)  # or the adaptation would be computed after warmup too

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float | None,
        num_steps: int,
        adapt_step_size: bool,
        adapt_mass_matrix: bool,
        dense_mass: bool | list,
        inverse_mass_matrix: Any,
        target_accept_prob: float,
        segment_integral: SegmentIntegral | LineIntegral,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        if step_size is not None:
            check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        if not 0 < target_accept_prob < 1:
            raise ValueError(f"target_accept_prob must be in (0, 1), got {target_accept_prob!r}.")
        if not isinstance(segment_integral, SegmentIntegral | LineIntegral):
            raise ValueError(
                "segment_integral must be a SegmentIntegral, such as SegmentIntegral(num_nodes=7), "
                "or a LineIntegral, of any number of nodes and without a measure of its error; got "
                f"{segment_integral!r}."
            )
        self._step_size = step_size
        self._num_steps = num_steps
        self._adapt_step_size = adapt_step_size
        self._adapt_mass_matrix = adapt_mass_matrix
        self._dense_mass = checked_blocks(dense_mass, inverse_mass_matrix)
        self._inverse_mass_matrix = check_inverse_mass_matrix(inverse_mass_matrix, self._dense_mass)
        self._target_accept_prob = target_accept_prob
        self._segment_integral = segment_integral
        self._num_warmup = 0

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        """
        As every kernel; besides, warn if a score that the acceptance relies on is not a gradient.
        """
        state = super().init(rng_key, num_warmup, init_params, model_args, model_kwargs)
        # Under a transformation of JAX there is nothing to look at yet.
        if self._model is not None and is_concrete(ravel_pytree(state.z)[0]):
            chain = state.z if is_prng_key(rng_key) else jax.tree.map(lambda z: z[0], state.z)
            x, _, potential = self._flat(chain, model_args, model_kwargs or {})
            if sites := [name for name in score_sites(potential, x) if name in state.z]:
                values, *corners = (
                    transform_fn(self._sites.transforms, z)
                    for z in (chain, state.z, *proposals(state, self._noise_scale))
                )
                warn_unless_gradient(
                    type(self).__name__,
                    sites,
                    self._model,
                    model_args,
                    model_kwargs or {},
                    values,
                    corners,
                )
        return state

    @abstractmethod
    def _noise_scale(self, step_size: Array) -> Array:
        """Standard deviation of a step from noise alone, in the metric."""

    @abstractmethod
    def _first_step_size(self, curvature: Array, size: int) -> Array:
        """The step size that is right for a Gaussian of this curvature, in `size` dimensions."""

    @abstractmethod
    def _move(
        self, key: Array, start: Point, target: Target, step_size: Array, root: Array
    ) -> Transition:
        """
        One draw.

        :param root: of the inverse metric, see `_metric`.
        """

    def _adapter(self, num_warmup: int) -> tuple[Callable, Callable]:
        return metric_adapter(
            num_warmup,
            self._dense_mass,
            adapt_step_size=self._adapt_step_size,
            adapt_mass_matrix=self._adapt_mass_matrix,
            target_accept_prob=self._target_accept_prob,
        )

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        self._num_warmup = num_warmup
        x, _, potential = self._flat(z, model_args, model_kwargs)
        potential_energy, grad = jax.value_and_grad(potential)(x)
        key_adapt, key_curvature, rng_key = random.split(rng_key, 3)
        inverse_mass_matrix = given_metric(self._inverse_mass_matrix, self._dense_mass, z)
        init_adapter, _ = self._adapter(num_warmup)
        adapt = partial(init_adapter, (z,), key_adapt, inverse_mass_matrix=inverse_mass_matrix)
        step_size = self._step_size
        if step_size is None:
            v, position = coordinates(flat_root(adapt().mass_matrix_sqrt_inv, z), x)
            gradient = jax.grad(lambda v: potential(position(v)))
            curvature = curvature_at(gradient, v, key_curvature)
            step_size = self._first_step_size(jnp.where(curvature > 0, curvature, 1.0), x.size)
        zero = jnp.zeros((), x.dtype)
        state = AdjustedState(
            i=jnp.array(0),
            z=z,
            z_grad=grad,
            potential_energy=potential_energy,
            accept_prob=zero,
            mean_accept_prob=zero,
            diverging=jnp.array(False),
            unresolved=zero,
            mean_unresolved=zero,
            num_grad_evals=jnp.array(0),
            adapt_state=adapt(jnp.asarray(step_size, x.dtype)),
            rng_key=rng_key,
        )
        return state, (potential_energy, grad)

    def _sample_chain(self, state, model_args, model_kwargs):
        x, unravel, potential = self._flat(state.z, model_args, model_kwargs)
        if self._model is None:
            target = Target(potential)
        else:
            target = target_of(potential, x, self._segment_integral)
        rng_key, key_move = random.split(state.rng_key)
        energy, force = state.potential_energy, None
        if target.force is not None:
            energy, force = target.energy(x), target.force(x)
        start = Point(x, energy, state.z_grad, state.potential_energy - energy, force)
        adapt_state = state.adapt_state
        end, accept_prob, diverging, unresolved = self._move(
            key_move,
            start,
            target,
            adapt_state.step_size,
            flat_root(adapt_state.mass_matrix_sqrt_inv, state.z),
        )
        num_evals = self._num_steps * (1 + target.num_score_evals) + (force is not None)
        z = unravel(end.x)
        _, update_adapter = self._adapter(self._num_warmup)
        adapt_state = lax.cond(
            state.i < self._num_warmup,
            lambda: update_adapter(state.i, accept_prob, (z,), state.adapt_state),
            lambda: state.adapt_state,
        )
        i = state.i + 1
        return state._replace(
            i=i,
            z=z,
            z_grad=end.grad,
            potential_energy=end.energy + end.integral,
            accept_prob=accept_prob,
            mean_accept_prob=mean_of_phase(
                state.mean_accept_prob, accept_prob, i, self._num_warmup
            ),
            diverging=diverging,
            unresolved=unresolved,
            mean_unresolved=mean_of_phase(state.mean_unresolved, unresolved, i, self._num_warmup),
            num_grad_evals=jnp.array(num_evals),
            adapt_state=adapt_state,
            rng_key=rng_key,
        )

    def refresh(self, state, model_args, model_kwargs):
        """Potential energy and gradient at the current point for other arguments of the model."""
        x, _, potential = self._flat(state.z, model_args, model_kwargs)
        potential_energy, grad = jax.value_and_grad(potential)(x)
        return state._replace(potential_energy=potential_energy, z_grad=grad)

    def get_diagnostics_str(self, state):
        step_size, accept_prob = state.adapt_state.step_size, state.mean_accept_prob
        text = f"step size {step_size:.2e}. acc. prob={accept_prob:.2f}"
        if state.mean_unresolved > MANY_UNRESOLVED:
            text += f". unresolved={state.mean_unresolved:.0%}"
        return text
