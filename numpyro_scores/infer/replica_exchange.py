# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Replica exchange: copies of a kernel on a ladder of densities swap their positions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.handlers import seed, substitute, trace
from numpyro.infer.mcmc import MCMCKernel
from numpyro.infer.util import potential_energy

from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.discrete.base import DiscreteKernel
from numpyro_scores.infer.discrete.model_trace import init_to_states
from numpyro_scores.infer.kernel import ChainKernel
from numpyro_scores.infer.ladders import RUNG, Ladder, NoiseLevels, window_ends
from numpyro_scores.infer.langevin.base import LangevinKernel
from numpyro_scores.infer.noise_paths import NoisePaths, check_priors, level_on_path, wrapper_of
from numpyro_scores.infer.observations import check_observations
from numpyro_scores.infer.replica_state import ReplicaExchangeState
from numpyro_scores.infer.swaps import (
    UP,
    even_odd_partners,
    running_mean,
    share_of_log_ratio,
    swap,
    turn_round,
)
from numpyro_scores.infer.trees import select, take
from numpyro_scores.infer.wrapping import model_to_wrap

# Of a score between two replicas, which are further apart than a point and its proposal.
SWAP_INTEGRAL = SegmentIntegral(num_nodes=13)


class ReplicaExchange(ChainKernel):
    r"""
    Replica exchange, or parallel tempering (Swendsen & Wang 1986; Geyer 1991): a replica of the
    kernel moves on each rung of a ladder of densities :math:`\pi_r \propto e^{-U_r}`, from the
    target to one where modes meet, and neighbours swap positions with probability

    .. math:: \min(1, e^{U_i(z_i) + U_j(z_j) - U_i(z_j) - U_j(z_i)}),

    which leaves the product of the densities invariant. Only the draws of the target's replica are
    collected. Even pairs are tried in even draws and odd pairs in odd draws (Okabe et al. 2001):
    the walk of a replica over the ladder is then not reversible, and the number of round trips a
    draw tends to :math:`1 / (2 + 2 \Lambda)` for long ladders, not to 0 (Syed, Bouchard-Côté,
    Deligiannidis & Doucet 2021).

    One draw is one transition of the kernel on each rung, and one set of swaps. Positions are
    swapped, so that what the kernel adapts (step size, metric) is that of the rung.

    :param kernel: a kernel of this package or NumPyro's `HMC`, `NUTS` or `DiscreteGibbs`, built
        from a model. In general one with NumPyro's `wrap_model` and `refresh` and with
        `get_potential_fn`, whose state is a `NamedTuple` that keeps the position in `z`, and what
        it remembers of the path, if anything, in `memory`; `refresh` renews what else depends on
        the position.
    :param ladder: :class:`~numpyro_scores.InverseTemperatures`,
        :class:`~numpyro_scores.LikelihoodPowers` or :class:`~numpyro_scores.NoiseLevels`.
    :param adapt_ladder: whether warmup moves the rungs between first and last to equal rejection,
        in windows of doubling length (Syed et al. 2021, algorithm 4).
    :raises ValueError: if the kernel cannot be wrapped; at `init`, if the ladder does not fit the
        model, or if the state of a replica is not finite at the start; and what the kernel raises.

    `init_params` are where all replicas of a chain start; without them, those that swap along paths
    start at draws of the prior that the data pick. A swap rate below 0.2 or so asks for more
    rungs. The swaps are exact; an unadjusted kernel brings its bias along. Where a site is known by
    its score, a :class:`~numpyro_scores.ScoreDistribution`, a Langevin kernel's replicas swap by
    the integral of the score between their positions (13 nodes), whose error is measured: where it
    is above one nat a swap is refused, in both directions alike, and counted.

    There is no `refresh`: the other blocks of a Gibbs sampler see the target's replica alone, and
    would move the densities of all others under their feet.
    """

    _is_exact = True
    _shared_fields = ("i",)
    wrap_model, refresh = MCMCKernel.wrap_model, MCMCKernel.refresh  # there are none

    def __init__(self, kernel: MCMCKernel, ladder: Ladder, *, adapt_ladder: bool = False):
        self._model = model_to_wrap(kernel)
        if not isinstance(ladder, Ladder):
            raise ValueError(
                "ladder must be InverseTemperatures([...]), LikelihoodPowers([...]) or "
                f"NoiseLevels([...]), got {ladder!r}."
            )
        self._num_path_steps = ladder.num_path_steps if isinstance(ladder, NoiseLevels) else None
        self._kernel: Any = kernel.wrap_model(
            ladder.wrap if self._num_path_steps is None else wrapper_of(kernel, ladder.wrap)
        )
        # NumPyro's own kernels move by the value of a score's density, from its reference point.
        self._rule = SWAP_INTEGRAL if isinstance(kernel, LangevinKernel) else None
        self._ladder = ladder
        self._adapt_ladder = adapt_ladder
        self._num_warmup = 0

    def _paths(self, z: Any, args: tuple, kwargs: dict) -> NoisePaths | None:
        if self._num_path_steps is None:
            return None
        return NoisePaths(self._model, self._num_path_steps, args, kwargs, z)

    def postprocess_fn(self, model_args: tuple, model_kwargs: dict | None) -> Callable:
        return self._kernel.postprocess_fn(model_args, self._on_target(model_kwargs))

    def get_constrain_fn(self, model_args: tuple = (), model_kwargs: dict | None = None):
        return self._kernel.get_constrain_fn(model_args, self._on_target(model_kwargs))

    def get_potential_fn(self, model_args: tuple = (), model_kwargs: dict | None = None):
        """The potential energy of the target."""
        if self._num_path_steps is not None:
            model = seed(self._model, random.key(0))
            return partial(potential_energy, model, model_args, model_kwargs or {})
        return self._kernel.get_potential_fn(model_args, self._on_target(model_kwargs))

    def _on_target(self, model_kwargs: dict | None) -> dict:
        return {**(model_kwargs or {}), RUNG: self._ladder.rungs[0]}

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        """The first state, of one chain or, given a batch of keys, of as many."""
        model_kwargs = {} if model_kwargs is None else dict(model_kwargs)
        seeded = seed(self._model, random.key(0))
        started = trace(substitute(seeded, substitute_fn=init_to_states))
        model_trace = started.get_trace(*model_args, **model_kwargs)
        check_observations(model_trace)  # of the kernel, which may be NumPyro's, nobody else asks
        self._ladder.check_model(model_trace)
        if self._num_path_steps is not None:
            check_priors(self._model, model_args, model_kwargs)
        self._num_warmup = num_warmup
        if isinstance(self._kernel, DiscreteKernel):  # whose init looks at values, here traced
            rung = jnp.asarray(self._ladder.rungs)[0]
            self._kernel.look(model_args, {**model_kwargs, RUNG: rung})
        return self._init_chains(rng_key, init_params, num_warmup, model_args, model_kwargs)

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        rungs = jnp.asarray(self._ladder.rungs)
        rng_key, key_replicas = random.split(rng_key)
        start_at = widths = None
        if self._num_path_steps is not None:
            key_start, key_paths = random.split(random.fold_in(key_replicas, 0))
            is_given = z is not None
            if not is_given:
                kwargs = self._on_target(model_kwargs)
                z = self._kernel.init(key_start, num_warmup, None, model_args, kwargs)
                z = getattr(z, self._kernel.sample_field)
            paths = NoisePaths(self._model, self._num_path_steps, model_args, model_kwargs, z)
            widths, start_at = paths.prepared(key_paths, z, self._ladder.rungs, is_given)

        def init_replica(key, rung):
            start, level = z, level_on_path(rung, widths)
            if start_at is not None:
                key, key_start = random.split(key)
                start = start_at(key_start, level)
            kwargs = {**model_kwargs, RUNG: level}
            kernel_state = self._kernel.init(key, num_warmup, start, model_args, kwargs)
            potential_fn = self._kernel.get_potential_fn(model_args, kwargs)
            return kernel_state, potential_fn(getattr(kernel_state, self._kernel.sample_field))

        keys = random.split(key_replicas, len(rungs))
        kernel_states, potential_energy = jax.vmap(init_replica)(keys, rungs)
        if "i" in kernel_states._fields:
            kernel_states = kernel_states._replace(i=kernel_states.i[0])
        state = ReplicaExchangeState(
            i=jnp.array(0),
            z=self._cold(kernel_states),
            kernel_states=kernel_states,
            rungs=rungs,
            walkers=jnp.arange(len(rungs)),
            directions=jnp.zeros(len(rungs), int).at[0].set(UP),
            swap_accept_prob=jnp.zeros(len(rungs) - 1),
            num_swaps=jnp.zeros(len(rungs) - 1, int),
            mean_unresolved=jnp.zeros(()),
            num_round_trips=jnp.zeros((), int),
            round_trip_rate=jnp.zeros(()),
            diverging=jnp.array(False),
            num_grad_evals=jnp.zeros((), int),
            rng_key=rng_key,
            widths=widths,
        )
        gradients = getattr(kernel_states, "z_grad", ())
        return state, tuple(jax.tree.leaves([potential_energy, gradients]))

    def _chain_axes(self, state):
        kernel_states = _replica_axes(state.kernel_states)
        return super()._chain_axes(state)._replace(kernel_states=kernel_states)

    def _sample_chain(self, state, model_args, model_kwargs):
        """The next state of one chain."""
        rng_key, key_swap, key_replicas = random.split(state.rng_key, 3)
        started = state.kernel_states
        if "rng_key" in started._fields:
            # A run from an earlier state with a key of its own must not repeat that run's numbers.
            started = started._replace(rng_key=random.split(key_replicas, len(state.rungs)))

        def on_rungs(method, kernel_states, rungs):
            axes = _replica_axes(kernel_states)

            def on_rung(kernel_state, rung):
                kwargs = {**model_kwargs, RUNG: level_on_path(rung, state.widths)}
                return method(kernel_state, model_args, kwargs)

            return jax.vmap(on_rung, (axes, 0), axes)(kernel_states, rungs)

        paths = self._paths(state.z, model_args, model_kwargs)

        def share_of_swap(z, z_partner, *rungs):
            if paths is not None:
                levels = [level_on_path(rung, state.widths) for rung in rungs]
                return *paths.swapped(z, z_partner, *levels), jnp.array(True)
            potentials = [
                self._kernel.get_potential_fn(model_args, {**model_kwargs, RUNG: rung})
                for rung in rungs
            ]
            return z_partner, *share_of_log_ratio(z, z_partner, *potentials, self._rule)

        kernel_states = on_rungs(self._kernel.sample, started, state.rungs)
        diverging = getattr(kernel_states, "diverging", jnp.zeros(len(state.rungs), bool))[0]
        num_leapfrogs = getattr(kernel_states, "num_steps", jnp.array(0))  # NumPyro's HMC and NUTS
        num_grad_evals = getattr(kernel_states, "num_grad_evals", num_leapfrogs)
        z = getattr(kernel_states, self._kernel.sample_field)
        partner = even_odd_partners(state.i, len(state.rungs))
        proposals, shares, known = jax.vmap(share_of_swap)(
            z, take(z, partner), state.rungs, state.rungs[partner]
        )
        source, accept_prob = swap(key_swap, shares + shares[partner], partner)

        directions, num_trips = turn_round(state.directions[source])
        num_draws, swap_accept_prob, num_swaps, unresolved, round_trips = self._statistics(state)
        num_round_trips = round_trips + num_trips
        tried = partner[:-1] > jnp.arange(len(partner) - 1)
        swap_accept_prob, num_swaps = running_mean(
            swap_accept_prob, num_swaps, accept_prob[:-1], tried
        )
        share = jnp.sum(tried & ~known[:-1]) / jnp.maximum(jnp.sum(tried), 1)

        rungs = state.rungs
        if self._adapt_ladder:
            tuned = self._ladder.tuned(rungs, 1 - swap_accept_prob)
            rungs = jnp.where(jnp.any(state.i + 1 == window_ends(self._num_warmup)), tuned, rungs)
        kernel_states = self._permuted(kernel_states, source)
        if paths is not None:
            moved = jax.vmap(select)(source != jnp.arange(len(source)), proposals, z)
            kernel_states = kernel_states._replace(**{self._kernel.sample_field: moved})
        kernel_states = on_rungs(self._kernel.refresh, kernel_states, rungs)
        return ReplicaExchangeState(
            i=state.i + 1,
            z=self._cold(kernel_states),
            kernel_states=kernel_states,
            rungs=rungs,
            walkers=state.walkers[source],
            directions=directions,
            swap_accept_prob=swap_accept_prob,
            num_swaps=num_swaps,
            mean_unresolved=unresolved + (share - unresolved) / (num_draws + 1),
            num_round_trips=num_round_trips,
            round_trip_rate=num_round_trips / (num_draws + 1),
            diverging=diverging,
            num_grad_evals=jnp.sum(num_grad_evals) + (paths.num_evals * len(rungs) if paths else 0),
            rng_key=rng_key,
            widths=state.widths,
        )

    def _cold(self, kernel_states: Any) -> Any:
        return take(getattr(kernel_states, self._kernel.sample_field), 0)

    def _permuted(self, kernel_states: Any, source: Array) -> Any:
        # What an integrator remembers of the path, a momentum or a noise, goes with the position.
        moving = {self._kernel.sample_field, "memory"} & set(kernel_states._fields)
        moved = {name: take(getattr(kernel_states, name), source) for name in moving}
        return kernel_states._replace(**moved)

    def _statistics(self, state: ReplicaExchangeState) -> tuple[Array, ...]:
        """Number of draws, and what is known of the swaps, before this draw of its phase."""
        starts = np.array([0, self._num_warmup])
        if self._adapt_ladder:
            starts = np.concatenate([starts, window_ends(self._num_warmup)])
        num_draws = state.i - jnp.max(jnp.where(starts <= state.i, starts, 0))
        known = (
            state.swap_accept_prob,
            state.num_swaps,
            state.mean_unresolved,
            state.num_round_trips,
        )
        return num_draws, *(jnp.where(num_draws == 0, 0, x) for x in known)

    def get_diagnostics_str(self, state):
        return f"smallest swap prob={jnp.min(state.swap_accept_prob):.2f}"


def _replica_axes(kernel_states: Any) -> Any:
    # All replicas share a draw counter: a condition on it is then not vmapped into both branches.
    return type(kernel_states)(*(None if name == "i" else 0 for name in kernel_states._fields))
