# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What Metropolis-adjusted kernels share: the start, one draw, the refusal of what is no score."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.infer.hmc_util import HMCAdaptState
from numpyro.infer.initialization import init_to_uniform
from numpyro.infer.util import transform_fn
from numpyro.util import is_prng_key

from numpyro_scores._validation import check_count, check_positive, is_concrete
from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.adaptation import Adaptation
from numpyro_scores.infer.kernel import by_position
from numpyro_scores.infer.langevin.asymmetry import proposals, warn_unless_gradient
from numpyro_scores.infer.langevin.base import LangevinKernel, PotentialFn
from numpyro_scores.infer.langevin.metric import Dense, Diagonal
from numpyro_scores.infer.langevin.stiffness import first_curvature
from numpyro_scores.infer.langevin.targets import (
    Point,
    Root,
    Target,
    Transition,
    check_rule,
    flat_root,
)
from numpyro_scores.infer.low_rank import LowRank

# Share of the proposals above which the progress bar tells it.
MANY_UNRESOLVED = 0.02


class AdjustedState(NamedTuple):
    r"""
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
    - **trajectory_length** - of `MAMS`: mean length of the trajectories, over :math:`\sqrt d`,
      shape `()`; else None.
    - **looks** - what the draws of warmup have shown of this length, if it is found; else None.
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
    trajectory_length: Array | None = None
    looks: Any = None

    __getitem__ = by_position

    @property
    def step_size(self) -> Array:
        """As of kernels without a Metropolis test, for `extra_fields`."""
        return self.adapt_state.step_size


class AdjustedKernel(LangevinKernel):
    """
    A Metropolis-adjusted kernel. Step size and metric are adapted during warmup by NumPyro's own
    scheme; a subclass writes one draw, `_step`.
    """

    _is_exact = True
    _shared_fields = ("i",)  # or the adaptation would be computed after warmup too

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float | None = None,
        num_steps: int = 10,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        metric: Diagonal | Dense | LowRank | None = None,
        dense_mass: bool | list = False,
        inverse_mass_matrix: Any = None,
        target_accept_prob: float = 0.574,
        segment_integral: SegmentIntegral | LineIntegral = SegmentIntegral(num_nodes=7),
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        if step_size is not None:
            check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        check_rule(segment_integral)
        self._step_size = step_size
        self._num_steps = num_steps
        self._adaptation = Adaptation.of(
            adapt_step_size,
            adapt_mass_matrix,
            dense_mass,
            inverse_mass_matrix,
            metric,
            target_accept_prob,
        )
        self._segment_integral = segment_integral
        self._num_warmup = 0

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        """
        As every kernel; besides, warn if a score that the acceptance relies on is not a gradient.
        """
        state = super().init(rng_key, num_warmup, init_params, model_args, model_kwargs)
        # Under a transformation of JAX there is nothing to look at yet.
        sites = [name for name in self._sites.by_score if name in state.z]
        if sites and self._model and is_concrete(ravel_pytree(state.z)[0]):
            chain = state.z if is_prng_key(rng_key) else jax.tree.map(lambda z: z[0], state.z)
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

    def _noise_scale(self, step_size: Array) -> Array:
        """Standard deviation of a step from noise alone, in the metric; here of a time step."""
        return step_size

    def _first_step_size(self, curvature: Array, size: int) -> Array:
        """
        The step size that is right for a Gaussian of this curvature, in `size` dimensions; here the
        time step of a leapfrog.
        """
        # On a Gaussian the energy rises by delta^2 (|x_L|^2 - |x_0|^2) / 8, of variance d delta^4 /
        # 16 once the start is forgotten: the acceptance is 0.8 in high dimensions. Stable below 2.
        return min(1.42 * size ** (-1 / 4), 1.4) / jnp.sqrt(curvature)

    @abstractmethod
    def _step(self, key: Array, start: Point, target: Target, state: Any, root: Root) -> Transition:
        """
        One draw.

        :param state: the chain's, for its step size.
        :param root: of the inverse metric, see `metric`.
        """

    def _learned(self, key: Array, state: Any, end: Point, target: Target, root: Root, **figures):
        """
        The state after a draw, with what warmup learns from it.

        :param key: that of `_step`.
        :param state: with the draw in it, its number not counted on yet.
        :param figures: of the draw, see :func:`~numpyro_scores.infer.adaptation.after_draw`.
        """
        return self._adaptation.after_draw(state, self._num_warmup, state.z, **figures)

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        self._num_warmup = num_warmup
        x, _, potential = self._flat(z, model_args, model_kwargs)
        potential_energy, grad = jax.value_and_grad(potential)(x)
        key_adapt, key_curvature, rng_key = random.split(rng_key, 3)
        adapt = self._adaptation.start(z, key_adapt, num_warmup)
        step_size = self._step_size
        if step_size is None:
            root = flat_root(adapt().mass_matrix_sqrt_inv, z)
            curvature = first_curvature(key_curvature, potential, x, root)
            step_size = self._first_step_size(curvature, x.size)
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
        target = self._target(potential, x)
        rng_key, key_move = random.split(state.rng_key)
        start = target.resume(x, state.potential_energy, state.z_grad)
        root = flat_root(state.adapt_state.mass_matrix_sqrt_inv, state.z)
        end, accept_prob, diverging, unresolved, num_steps = self._step(
            key_move, start, target, state, root
        )
        num_evals = num_steps * (1 + target.num_score_evals) + (start.force is not None)
        state = state._replace(
            z=unravel(end.x),
            z_grad=end.grad,
            potential_energy=end.energy + end.integral,
            diverging=diverging,
            num_grad_evals=jnp.asarray(num_evals),
            rng_key=rng_key,
        )
        figures = {"accept_prob": accept_prob, "unresolved": unresolved}
        return self._learned(key_move, state, end, target, root, **figures)

    def get_diagnostics_str(self, state):
        step_size, accept_prob = state.adapt_state.step_size, state.mean_accept_prob
        text = f"step size {step_size:.2e}. acc. prob={accept_prob:.2f}"
        if state.mean_unresolved > MANY_UNRESOLVED:
            text += f". unresolved={state.mean_unresolved:.0%}"
        return text
