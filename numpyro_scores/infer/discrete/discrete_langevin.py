# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A Langevin-like kernel of discrete sites: all elements are proposed at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._validation import check_positive
from numpyro_scores.distributions.boltzmann.states import from_logits
from numpyro_scores.infer.adaptation import check_target
from numpyro_scores.infer.discrete.informed import InformedKernel, InformedState
from numpyro_scores.infer.discrete.local_differences import Neighbourhood
from numpyro_scores.infer.discrete.model_trace import Values
from numpyro_scores.infer.discrete.step_sizes import StepSizeState, distances
from numpyro_scores.infer.discrete.updates import SiteUpdate

FIRST_STEP_SIZE = 0.25
UNADJUSTED_STEP_SIZE = 0.05
# Between them the probability of a change, of an element whose states are equally probable, goes
# from that of no change in any run to that of an independent draw.
STEP_SIZES = 0.005, 1e4


class DiscreteLangevin(InformedKernel):
    r"""
    A Langevin-like kernel of discrete sites (Zhang, Liu & Liu 2022, "A Langevin-like sampler for
    discrete distributions"): each element `i` proposes a state `c` by itself, all at once, with
    probability

    .. math:: q_i(c \mid x) \propto \exp\left(
        \tfrac{1}{2} \Delta_i(c) - \frac{(c - x_i)^2}{4 h} \right), \quad
        \Delta_i(c) \approx \log p(x \text{ with } x_i = c) - \log p(x).

    It is the Gaussian of a Langevin step of size `h`, restricted to the states. The adjusted form
    (DMALA) accepts the whole proposal with the Metropolis probability and is exact; the step size
    is adapted in warmup. The unadjusted one (DULA) always accepts: its bias vanishes as fast as its
    moves do, in proportion to :math:`e^{-1 / (4 h)}`, but it moves however many elements there are.
    Its `accept_prob`, what the Metropolis test would have said, falls away from 1 where it is
    biased.

    Where :math:`\Delta` comes from, and what a model must be like, is as in
    :class:`~numpyro_scores.GibbsWithGradients`. The distance :math:`c - x_i` is one of the
    *numbers* of the states, 0, 1, ..., so that a step means the same for states -1 and +1 as for 0
    and 1 (in the paper's symbols :math:`\alpha = 2 h` for the latter, :math:`8 h` for the former).
    It bounds the error of a first order; of a site without such a log density, whose states may be
    no more than labels, any change counts 1.

    :param model: a NumPyro model with discrete latent sites, of elements with finitely many states.
        Continuous sites need a kernel of their own: see `BlockGibbs`.
    :param step_size: `h`; an element whose states are equally probable proposes to change with odds
        :math:`e^{-1 / (4 h)}`. By default the adaptation starts at 0.25, and the unadjusted form
        takes 0.05 (odds of 0.007, and on 3 x 3 spins of `Ising` a total variation of 0.006 from the
        target; it falls in proportion to the odds).
    :param adjusted: whether a Metropolis test follows each proposal.
    :param num_steps: proposals between two draws.
    :param adapt_step_size: whether warmup adapts the step size of the adjusted form.
    :param target_accept_prob: 0.574 is optimal in many dimensions (Sun, Dai & Schuurmans 2022,
        "Optimal scaling for locally balanced proposals in discrete spaces").
    :raises ValueError: if an argument is out of its range; at `init`, if the model has sites that
        do not fit.
    """

    def __init__(
        self,
        model: Callable,
        *,
        step_size: float | None = None,
        adjusted: bool = True,
        num_steps: int = 10,
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.574,
    ):
        super().__init__(model, num_steps)
        if not isinstance(adjusted, bool):
            raise ValueError(f"adjusted must be True or False, got {adjusted!r}.")
        if step_size is None:
            step_size = FIRST_STEP_SIZE if adjusted else UNADJUSTED_STEP_SIZE
        check_positive("step_size", step_size)
        check_target(target_accept_prob)
        self._step_size = step_size
        self._adjusted = adjusted
        self._adapt_step_size = adapt_step_size and adjusted
        self._target_accept_prob = target_accept_prob

    def _log_probs(
        self, site: SiteUpdate, point: Neighbourhood, adapt_state: StepSizeState
    ) -> Array:
        """Of each state of each element, `(num_states, *shape)`."""
        value = point.z[site.name]
        is_at = site.is_at(value)
        distance = distances(site, value) if site.joint else ~is_at
        logits = point.differences[site.name] / 2 - distance**2 / (4 * adapt_state.step_size)
        return jax.nn.log_softmax(logits, axis=0)

    def _draw(self, key: Array, point: Neighbourhood, adapt_state: StepSizeState) -> Values:
        z = dict(point.z)
        sites = self._found.plan
        for site, key_site in zip(sites, random.split(key, len(sites)), strict=True):
            log_probs = jnp.moveaxis(self._log_probs(site, point, adapt_state), 0, -1)
            number = from_logits(log_probs).sample(key_site)
            z[site.name] = jnp.array(site.states, z[site.name].dtype)[number]
        return z

    def _log_proposal(self, z: Values, point: Neighbourhood, adapt_state: StepSizeState) -> Array:
        total = jnp.zeros(())
        for site in self._found.plan:
            log_probs = self._log_probs(site, point, adapt_state)
            total += jnp.sum(jnp.where(site.is_at(z[site.name]), log_probs, 0.0))
        return total

    def _first_adapt_state(self) -> StepSizeState:
        return StepSizeState.of(self._step_size)

    def _adapt(self, state: InformedState, accept_prob: Array) -> StepSizeState:
        if not self._adapt_step_size:
            return state.adapt_state
        error = self._target_accept_prob - accept_prob
        is_last = state.i == self._num_warmup - 1
        return state.adapt_state.adapted(error, is_last, STEP_SIZES)

    def get_diagnostics_str(self, state):
        step_size = state.adapt_state.step_size
        return f"step size {step_size:.2e}. {super().get_diagnostics_str(state)}"
