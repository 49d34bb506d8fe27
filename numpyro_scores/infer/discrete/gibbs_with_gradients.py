# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Gibbs with gradients: the element to change is chosen by what the change would do."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree

from numpyro_scores._validation import check_positive
from numpyro_scores.infer.adaptation import check_target
from numpyro_scores.infer.discrete.informed import InformedKernel, InformedState
from numpyro_scores.infer.discrete.local_differences import Neighbourhood
from numpyro_scores.infer.discrete.model_trace import Values
from numpyro_scores.infer.discrete.step_sizes import StepSizeState, distances
from numpyro_scores.infer.discrete.updates import SiteUpdate

# Below, the state after the next has a weight of 5% beside the next; above, all are alike.
STEP_SIZES = 0.25, 1e4


class GibbsWithGradients(InformedKernel):
    r"""
    Gibbs with gradients (Grathwohl, Swersky, Hashemi, Duvenaud & Maddison 2021, "Oops I took a
    gradient: scalable sampling for discrete distributions") for the discrete sites of a model:
    propose to change one element `i` to another state `c`, chosen among all with probability

    .. math:: q(i, c \mid x) \propto e^{\Delta_i(c) / 2}, \quad
        \Delta_i(c) \approx \log p(x \text{ with } x_i = c) - \log p(x),

    and accept with the Metropolis probability. Exact for the target whatever the error of
    :math:`\Delta`; the square root of the ratio of densities is locally balanced (Zanella 2020).

    Found from the model, :math:`\Delta` is exact for sites with blocks (`Ising`, `Potts`,
    `PairwiseMRF`, `joint()` of a `BernoulliRBM`) and for log densities that are sums over the
    elements, as those of `numpyro.plate` are. A log density that *joins* elements, such as
    `dist.Normal(blur(x), noise)`, which `BlockGibbs` refuses, enters to first order, by its
    gradient in `x` as numbers, as does the free energy of a `BernoulliRBM`. So it must be
    differentiable: `low + (high - low) * x`, not `where(x == 1, high, low)` or `table[x]`, there
    or elsewhere in the model. A gradient that is zero or does not exist is refused; one that misses
    a part of the effect costs acceptance, not exactness.

    A first order holds near by. Of an element of many states, such as levels of a number, that a
    log density joins to others, it promises most of the states that are furthest away, and hardly
    one of them would be accepted. So of these :math:`q` has another factor

    .. math:: e^{-((c - x_i)^2 - 1) / (4 h)}

    with the distance in *numbers* of the states; 1 for the next state, so that elements of two are
    chosen as without. Warmup adapts the step size `h` to an acceptance.

    A step changes one element at most, where :class:`~numpyro_scores.DiscreteLangevin` changes
    many: better where few elements are free to change.

    :param model: a NumPyro model with discrete latent sites, of elements with finitely many states.
        Continuous sites need a kernel of their own: see `BlockGibbs`.
    :param num_steps: proposals between two draws; for a draw that is quite another, as many as
        there are elements, or more.
    :param step_size: `h`, where warmup starts.
    :param adapt_step_size: whether warmup adapts it.
    :param target_accept_prob: what the adaptation aims at.
    :raises ValueError: if an argument is out of its range; at `init`, if the model has sites that
        do not fit.
    """

    def __init__(
        self,
        model: Callable,
        *,
        num_steps: int = 100,
        step_size: float = 1.0,
        adapt_step_size: bool = True,
        target_accept_prob: float = 0.574,
    ):
        super().__init__(model, num_steps)
        check_positive("step_size", step_size)
        check_target(target_accept_prob)
        self._step_size = step_size
        self._adapt_step_size = adapt_step_size
        self._target_accept_prob = target_accept_prob

    def _first_adapt_state(self) -> Any:
        return StepSizeState.of(self._step_size) if any(map(_is_far, self._found.plan)) else ()

    def _adapt(self, state: InformedState, accept_prob: Array) -> Any:
        if not (self._adapt_step_size and isinstance(state.adapt_state, StepSizeState)):
            return state.adapt_state
        error = self._target_accept_prob - accept_prob
        is_last = state.i == self._num_warmup - 1
        return state.adapt_state.adapted(error, is_last, STEP_SIZES)

    def _log_probs(self, point: Neighbourhood, adapt_state: Any) -> Values:
        """Of each other state of each element; where an element is, -inf."""
        logits = {}
        for site in self._found.plan:
            value = point.z[site.name]
            of_site = point.differences[site.name] / 2
            if _is_far(site):
                of_site -= (distances(site, value) ** 2 - 1) / (4 * adapt_state.step_size)
            logits[site.name] = jnp.where(site.is_at(value), -jnp.inf, of_site)
        flat, unravel = ravel_pytree(logits)
        return unravel(jax.nn.log_softmax(flat))

    def _draw(self, key: Array, point: Neighbourhood, adapt_state: Any) -> Values:
        flat, unravel = ravel_pytree(self._log_probs(point, adapt_state))
        number = random.categorical(key, flat)
        chosen = unravel(jnp.zeros_like(flat).at[number].set(1.0))
        z = dict(point.z)
        for site in self._found.plan:
            change = chosen[site.name] > 0
            new = site.pick(change, z[site.name].dtype)
            z[site.name] = jnp.where(jnp.any(change, axis=0), new, z[site.name])
        return z

    def _log_proposal(self, z: Values, point: Neighbourhood, adapt_state: Any) -> Array:
        log_probs = self._log_probs(point, adapt_state)
        total = jnp.zeros(())
        for site in self._found.plan:
            new, old = z[site.name], point.z[site.name]
            changed = site.is_at(new) & (new != old)[None]
            total += jnp.sum(jnp.where(changed, log_probs[site.name], 0.0))
        return total

    def get_diagnostics_str(self, state):
        found = super().get_diagnostics_str(state)
        if not isinstance(state.adapt_state, StepSizeState):
            return found
        return f"step size {state.adapt_state.step_size:.2e}. {found}"


def _is_far(site: SiteUpdate) -> bool:
    """Whether a first order is asked for more than the next state."""
    return bool(site.joint) and len(site.states) > 2
