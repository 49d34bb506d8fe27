# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What kernels share whose proposals are informed by local differences of the log density."""

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores.infer.adaptation import accept_or_stay, after_draw
from numpyro_scores.infer.discrete.base import DiscreteKernel
from numpyro_scores.infer.discrete.local_differences import (
    Neighbourhood,
    local_points,
    local_update,
)
from numpyro_scores.infer.discrete.model_trace import Trace, Values
from numpyro_scores.infer.discrete.updates import SiteUpdate
from numpyro_scores.infer.kernel import by_position
from numpyro_scores.infer.trees import select


class InformedState(NamedTuple):
    """
    - **i** - number of draws so far, warmup included.
    - **z** - dict of the values of the kernel's sites.
    - **potential_energy** - at `z`, shape `()`.
    - **accept_prob** - mean acceptance probability of the proposals of this draw; where there is no
      Metropolis test, what it would have been.
    - **mean_accept_prob** - its mean over the draws of this phase.
    - **adapt_state** - a `StepSizeState`, or `()` of `GibbsWithGradients` without a step size.
    - **rng_key** - random key for the next draw.
    """

    i: Array
    z: Values
    potential_energy: Array
    accept_prob: Array
    mean_accept_prob: Array
    adapt_state: Any
    rng_key: Array

    __getitem__ = by_position


class InformedKernel(DiscreteKernel):
    """
    A kernel that proposes new values from local differences (Zanella 2020, "Informed proposals for
    local MCMC in discrete spaces"). A subclass writes the proposal, `_draw` and `_log_proposal`.
    """

    _shared_fields = ("i",)  # or the adaptation would be computed after warmup too
    _adjusted = True
    _num_warmup = 0

    @abstractmethod
    def _draw(self, key: Array, point: Neighbourhood, adapt_state: Any) -> Values:
        """Values proposed at a point."""

    @abstractmethod
    def _log_proposal(self, z: Values, point: Neighbourhood, adapt_state: Any) -> Array:
        """The log probability of proposing `z` at a point."""

    def _first_adapt_state(self) -> Any:
        return ()

    def _adapt(self, state: InformedState, accept_prob: Array) -> Any:
        """The `adapt_state` after a draw of warmup."""
        return state.adapt_state

    def _plan(self, fns, values, trace_at) -> tuple[SiteUpdate, ...]:
        kernel = type(self).__name__
        return tuple(local_update(kernel, name, fn, values, trace_at) for name, fn in fns.items())

    def _points(self, z: Values, trace_at: Trace) -> Callable[[Values], Neighbourhood]:
        return local_points(self._found.plan, z, trace_at)

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        self._num_warmup = num_warmup
        energy = self._points(z, self._trace_at(model_args, model_kwargs))(z).potential_energy
        zero = jnp.zeros((), energy.dtype)
        state = InformedState(
            i=jnp.array(0),
            z=z,
            potential_energy=energy,
            accept_prob=zero,
            mean_accept_prob=zero,
            adapt_state=self._first_adapt_state(),
            rng_key=rng_key,
        )
        return state, (energy,)

    def _log_ratio(
        self, current: Neighbourhood, proposal: Neighbourhood, adapt_state: Any
    ) -> Array:
        r"""The log of :math:`p(y) q(x | y) / (p(x) q(y | x))`."""
        return (
            current.potential_energy
            - proposal.potential_energy
            + self._log_proposal(current.z, proposal, adapt_state)
            - self._log_proposal(proposal.z, current, adapt_state)
        )

    def _sample_chain(self, state, model_args, model_kwargs):
        # Local differences are not kept from one draw to the next, in which the other blocks of
        # Gibbs may move.
        points = self._points(state.z, self._trace_at(model_args, model_kwargs))

        def step(current: Neighbourhood, key: Array) -> tuple[Neighbourhood, Array]:
            key_proposal, key_accept = random.split(key)
            proposal = points(self._draw(key_proposal, current, state.adapt_state))
            log_ratio = self._log_ratio(current, proposal, state.adapt_state)
            uniform = random.uniform(key_accept, dtype=log_ratio.dtype)
            after, accept_prob, is_impossible = accept_or_stay(
                uniform, log_ratio, proposal, current
            )
            if not self._adjusted:  # a state of probability zero is left out all the same
                after = select(is_impossible, current, proposal)
            return after, accept_prob

        rng_key, key_steps = random.split(state.rng_key)
        keys = random.split(key_steps, self._num_steps)
        end, accept_probs = lax.scan(step, points(state.z), keys)
        accept_prob = jnp.mean(accept_probs)
        adapt = partial(self._adapt, state, accept_prob)
        state = state._replace(z=end.z, potential_energy=end.potential_energy, rng_key=rng_key)
        return after_draw(state, self._num_warmup, adapt, accept_prob=accept_prob)

    def get_diagnostics_str(self, state):
        return f"acc. prob={state.mean_accept_prob:.2f}"
