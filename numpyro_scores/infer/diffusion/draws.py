# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a kernel that goes through noise levels carries from draw to draw."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

from jax import Array, lax

from numpyro_scores.infer.kernel import by_position


class AnnealedState(NamedTuple):
    """
    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values by site.
    - **diverging** - whether the steps of a noise level left the finite numbers, and so were not
      made.
    - **num_grad_evals** - number of gradients of this draw, a Hessian-vector product counted as 2.
    - **rng_key** - key of the next draw.
    - **correction** - by how many nats the last Metropolis steps have raised the log density; None
      without such steps, as is the next.
    - **accept_prob** - mean acceptance probability of these steps.
    """

    i: Array
    z: dict[str, Array]
    diverging: Array
    num_grad_evals: Array
    rng_key: Array
    correction: Any = None
    accept_prob: Any = None

    __getitem__ = by_position


class Draw(NamedTuple):
    """The fields of an :class:`AnnealedState` that one anneal gives, and the next key."""

    z: dict[str, Array]
    diverging: Array
    num_grad_evals: Array
    rng_key: Array
    correction: Any = None
    accept_prob: Any = None


def independent_draws(draw: Callable[..., Draw]) -> Callable[..., AnnealedState]:
    """
    The `_sample_chain` of a kernel whose `draw(self, state, model_args, model_kwargs)` takes from
    a state no more than its key and its shapes. What learns nothing from the draws of a warmup
    does not make them.
    """

    @wraps(draw)
    def sample_chain(self, state, model_args, model_kwargs):
        def drawn(state):
            return state._replace(**draw(self, state, model_args, model_kwargs)._asdict())

        if self._num_warmup:
            state = lax.cond(state.i < self._num_warmup, lambda state: state, drawn, state)
        else:
            state = drawn(state)
        return state._replace(i=state.i + 1)

    return sample_chain
