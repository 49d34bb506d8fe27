# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Gibbs with gradients: the element to change is chosen by what the change would do."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree

from numpyro_scores.infer.discrete.informed import InformedKernel
from numpyro_scores.infer.discrete.local_differences import Neighbourhood
from numpyro_scores.infer.discrete.model_trace import Values


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

    A step changes one element at most, where :class:`~numpyro_scores.DiscreteLangevin` changes
    many: better where few elements are free to change.

    :param model: a NumPyro model with discrete latent sites, of elements with finitely many states.
        Continuous sites need a kernel of their own: see `BlockGibbs`.
    :param num_steps: proposals between two draws; for a draw that is quite another, as many as
        there are elements, or more.
    :raises ValueError: at `init`, if the model has sites that do not fit.
    """

    def __init__(self, model: Callable, *, num_steps: int = 100):
        super().__init__(model, num_steps)

    def _log_probs(self, point: Neighbourhood) -> Values:
        """Of each other state of each element; where an element is, -inf."""
        logits = {
            site.name: jnp.where(
                site.is_at(point.z[site.name]), -jnp.inf, point.differences[site.name] / 2
            )
            for site in self._found.plan
        }
        flat, unravel = ravel_pytree(logits)
        return unravel(jax.nn.log_softmax(flat))

    def _draw(self, key: Array, point: Neighbourhood, adapt_state: Any) -> Values:
        flat, unravel = ravel_pytree(self._log_probs(point))
        number = random.categorical(key, flat)
        chosen = unravel(jnp.zeros_like(flat).at[number].set(1.0))
        z = dict(point.z)
        for site in self._found.plan:
            change = chosen[site.name] > 0
            new = site.pick(change, z[site.name].dtype)
            z[site.name] = jnp.where(jnp.any(change, axis=0), new, z[site.name])
        return z

    def _log_proposal(self, z: Values, point: Neighbourhood, adapt_state: Any) -> Array:
        log_probs = self._log_probs(point)
        total = jnp.zeros(())
        for site in self._found.plan:
            new, old = z[site.name], point.z[site.name]
            changed = site.is_at(new) & (new != old)[None]
            total += jnp.sum(jnp.where(changed, log_probs[site.name], 0.0))
        return total
