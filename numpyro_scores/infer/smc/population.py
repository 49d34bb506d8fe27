# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a sampler of particles carries from round to round."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from numpyro_scores.infer.smc.weights import resampled
from numpyro_scores.infer.trees import take

MAX_ROUNDS = 1_000


class Rounds(NamedTuple):
    """
    What is known of the rounds, each of shape `(num_rounds,)`.

    - **rung** - the power of the likelihood, or the noise level, at the end of the round.
    - **ess** - effective sample size of the weights of the round.
    - **log_increment** - what the round added to the log evidence.
    - **accept_prob** - mean acceptance probability of its moves.
    - **step_size** - that of the next moves.
    - **num_diverging** - number of proposals that were not finite.
    - **unresolved** - share of the proposals that were refused because of the error of an integral
      of a score (`segment_integral`).
    - **num_stuck** - number of particles of which each proposal was all but sure to be refused.
    - **num_grad_evals** - gradients and scores of each particle.
    """

    rung: Array
    ess: Array
    log_increment: Array
    accept_prob: Array
    step_size: Array
    num_diverging: Array
    unresolved: Array
    num_stuck: Array
    num_grad_evals: Array


class Population(NamedTuple):
    """
    What a sampler of `n` particles carries from round to round.

    - **i** - number of rounds so far.
    - **points** - positions with energies and gradients, with the face of a `Point`.
    - **log_likelihood** - of each particle, shape `(n,)`.
    - **ancestor** - index of the draw that a particle descends from, shape `(n,)`.
    - **rung** - power of the likelihood, or index of the noise level.
    - **step_size** - of the next move.
    - **prior_precision** - of what moves with noise scales (see `block_moves`), of size 0 without.
    - **log_evidence** - so far.
    - **relative_variance** - of the evidence so far, estimated.
    - **num_dead** - number of draws whose likelihood was zero or not a number.
    - **is_done** - whether no round is left.
    - **rounds** - with zeros where the rounds to come will be.
    - **rng_key** - key of the next round.
    - **added_variances** - of twists, by noise level (see `twist_widths`), None without.
    - **moments** - of diffusion priors (see `gaussian_twist`), None without.
    - **seen** - of each particle by its denoiser (see `twist`), None where nothing is kept.
    """

    i: Array
    points: Any
    log_likelihood: Array
    ancestor: Array
    rung: Array
    step_size: Array
    prior_precision: Array
    log_evidence: Array
    relative_variance: Array
    num_dead: Array
    is_done: Array
    rounds: Rounds
    rng_key: Array
    added_variances: Array | None = None
    moments: Any = None
    seen: Any = None


def no_rounds(dtype: jnp.dtype) -> Rounds:
    """Room for all rounds to come."""
    return Rounds(*(jnp.zeros(MAX_ROUNDS, dtype) for _ in Rounds._fields))


def rounds_with(rounds: Rounds, i: Any, **values: Any) -> Rounds:
    """`rounds` with some figures of round `i` written in."""
    rows = {name: getattr(rounds, name).at[i].set(value) for name, value in values.items()}
    return rounds._replace(**rows)


def resampled_population(
    key: Array, state: Population, log_weights: Array, num_ancestors: int, at: Any, **figures: Any
) -> Population:
    """
    The particles after resampling by new weights, a round further on.

    :param at: the round of which ESS and evidence are those of the weights, and more `figures`.
    """
    n = len(state.points.x)
    selection = resampled(key, state.points.x, log_weights, state.ancestor, num_ancestors, n)
    return state._replace(
        i=state.i + 1,
        points=take(state.points, selection.rows),
        log_likelihood=state.log_likelihood[selection.rows],
        ancestor=state.ancestor[selection.rows],
        seen=take(state.seen, selection.rows),
        log_evidence=state.log_evidence + selection.log_increment,
        relative_variance=state.relative_variance + selection.variance,
        rounds=rounds_with(state.rounds, at, **selection.figures(), **figures),
    )
