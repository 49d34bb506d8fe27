# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What the chain of a replica exchange carries."""

from typing import Any, NamedTuple

from jax import Array

from numpyro_scores.infer.kernel import by_position
from numpyro_scores.infer.path_widths import Widths


class ReplicaExchangeState(NamedTuple):
    """
    With `R` rungs, the target's first:

    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values of the cold replica, the one on the target's rung.
    - **kernel_states** - states of the wrapped kernel, each with a leading axis `R`, except for a
      draw counter `i`, which they share.
    - **rungs** - the ladder, shape `(R,)`.
    - **walkers** - which of the replicas of the start is on each rung, shape `(R,)`.
    - **directions** - of the walker on each rung: 1 if it was last on the first rung, -1 if it went
      from there to the last rung and is on its way back, 0 if it has not been on the first.
    - **swap_accept_prob** - mean probability that a swap of rungs `k` and `k + 1` is accepted,
      shape `(R - 1,)`.
    - **num_swaps** - how often each of these swaps was tried, shape `(R - 1,)`.
    - **mean_unresolved** - share of the swaps that were refused because the integral of a score
      between the two positions is not known to one nat.
    - **num_round_trips** - number of times that a walker came back to the first rung from the last.
    - **round_trip_rate** - the same a draw.
    - **diverging** - whether the transition of the cold replica was divergent.
    - **num_grad_evals** - number of gradients of this draw's transitions, of all replicas (0 if the
      kernel doesn't count them), and of evaluations on the paths of its swaps.
    - **rng_key** - key of the next draw.
    - **widths** - of the Normal data at the noise levels, where replicas swap along paths; or None.

    The statistics are of the current phase, warmup or sampling, or of the current ladder.
    """

    i: Array
    z: Any
    kernel_states: Any
    rungs: Array
    walkers: Array
    directions: Array
    swap_accept_prob: Array
    num_swaps: Array
    mean_unresolved: Array
    num_round_trips: Array
    round_trip_rate: Array
    diverging: Array
    num_grad_evals: Array
    rng_key: Array
    widths: Widths | None = None

    __getitem__ = by_position
