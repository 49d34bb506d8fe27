# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
What a change of one element does to the log density of a model,
:math:`\Delta_i(c) = \log p(x \text{ with } x_i = c) - \log p(x)`, for all elements and states at
once, exactly where that is cheap:

- the density of a site with blocks: the conditional distribution of each block;
- a log density that is a sum over the elements: a table, of each state at each element;
- one that joins the elements: to first order, :math:`\partial_i \log p(x) (c - x_i)`, as
  Grathwohl, Swersky, Hashemi, Duvenaud & Maddison (2021, "Oops I took a gradient", equation 3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores.distributions._wrapped import base_of, power_of
from numpyro_scores.distributions.boltzmann.base import BlockDistribution
from numpyro_scores.distributions.boltzmann.states import finite_states, tilted
from numpyro_scores.infer.discrete.elementwise import unsummed_log_prob
from numpyro_scores.infer.discrete.model_trace import Trace, Values
from numpyro_scores.infer.discrete.updates import BlockUpdate, ElementwiseUpdate

# A gradient that is zero at one point need not be zero at another.
NUM_PROBES = 8


class Point(NamedTuple):
    r"""
    - **z** - values of the sites.
    - **potential_energy** - there, shape `()`.
    - **differences** - :math:`\Delta`, for each site an array `(num_states, *shape)`.
    """

    z: Values
    potential_energy: Array
    differences: dict[str, Array]


@dataclass(frozen=True)
class LocalSite:
    """
    A site whose elements are changed one by one.

    - **states** - of each element.
    - **update** - the log densities that are a sum over its elements, and the sites whose density
      is not, `joint`.
    """

    states: tuple[int, ...]
    update: BlockUpdate | ElementwiseUpdate

    @classmethod
    def of(cls, kernel: str, name: str, fn: Any, values: Values, trace_at: Trace) -> "LocalSite":
        """
        :raises ValueError: if the elements do not have finitely many states, or the gradient of a
            density that joins them does not exist or is zero.
        """
        has_blocks = isinstance(base_of(fn), BlockDistribution)
        update = (BlockUpdate if has_blocks else ElementwiseUpdate).of(name, fn, values, trace_at)
        states = finite_states(fn.support)
        if not states:
            raise ValueError(
                f"{kernel} draws discrete elements, but site {name!r} of "
                f"{type(base_of(fn)).__name__} has continuous ones too. Make them a site of their "
                "own, as of rbm: v = sample('v', rbm), "
                "h = sample('h', rbm.conditional(visible=v).to_event(1))."
            )
        site = cls(states, update)
        site._check_gradients(kernel, values, trace_at)
        return site

    @property
    def name(self) -> str:
        return self.update.name

    def column(self, ndim: int) -> Array:
        """The states, on the first axis of an array of one more axis than `ndim`."""
        return jnp.reshape(jnp.array(self.states), (-1, *[1] * ndim))

    def is_at(self, value: Array) -> Array:
        """Whether each element is in each state, `(num_states, *shape)`."""
        return value[None] == self.column(value.ndim)

    def pick(self, chosen: Array, dtype: Any) -> Array:
        """The state of each element at which `chosen`, of shape `(num_states, *shape)`, is true."""
        return jnp.sum(jnp.where(chosen, self.column(chosen.ndim - 1), 0), axis=0).astype(dtype)

    def log_weights(self, values: Values, trace_at: Trace) -> Any:
        """What depends on the values of other sites alone, for `differences`."""
        return self.update.log_weights(values, trace_at)

    def differences(self, value: Array, site: Any, log_weights: Any, gradient: Any) -> Array:
        """
        :param site: of the trace.
        :param gradient: of the densities that join the elements, or None.
        """
        log_density = jnp.zeros((len(self.states), *value.shape))
        if isinstance(self.update, BlockUpdate):
            d = base_of(site["fn"])
            blocks = tuple(d.split(value))
            power = power_of(site)
            conditionals = [
                tilted(d._conditional(k, blocks), log_weights[k], power) for k in range(len(blocks))
            ]
            log_density += d.join(
                tuple(
                    jax.vmap(conditional.log_prob)(jnp.array(self.states))
                    for conditional in conditionals
                )
            )
        else:
            log_density += log_weights[0]
        if gradient is not None:
            log_density += gradient[None] * self.column(value.ndim)
        at_value = jnp.where(self.is_at(value), log_density, 0.0)
        return log_density - jnp.sum(at_value, axis=0, keepdims=True)

    def _check_gradients(self, kernel: str, values: Values, trace_at: Trace) -> None:
        x = values[self.name]
        probes = random.choice(random.key(0), jnp.array(self.states), (NUM_PROBES, *x.shape))
        for name in self.update.joint:

            def log_prob(x: Array, name: str = name) -> Array:
                return jnp.sum(unsummed_log_prob(trace_at(values | {self.name: x})[name], 0))

            reason: Exception | None = None
            try:
                gradients = jax.jit(jax.vmap(jax.grad(log_prob)))(probes.astype(float))
            except TypeError as error:  # an index, or a bit operation
                reason = error
            if reason is not None or not np.any(gradients):
                what = "is zero" if reason is None else f"does not exist ({reason})"
                raise ValueError(
                    f"{kernel} takes the effect of an element of site {self.name!r} on the log "
                    f"density of {name!r}, which is not a sum over elements, from its gradient, "
                    f"but that {what}. Write it as a differentiable function of {self.name!r} as "
                    "numbers, without x == state or an index: for two states "
                    "low + (high - low) * x in place of jnp.array([low, high])[x]."
                ) from reason


def local_points(
    sites: tuple[LocalSite, ...], values: Values, trace_at: Trace
) -> Callable[[Values], Point]:
    """The function from values of the sites to their `Point`."""
    once = [site.log_weights(values, trace_at) for site in sites] if len(sites) == 1 else None
    joint = sorted({name for site in sites for name in site.update.joint})

    def point(z: Values) -> Point:
        trace = trace_at(z)
        log_density, gradients = jnp.zeros(()), {}
        for name, site in trace.items():
            if site["type"] == "sample" and name not in joint:
                log_density += jnp.sum(unsummed_log_prob(site, 0))
        for name in joint:

            def log_prob(x: Values, name: str = name) -> Array:
                return jnp.sum(unsummed_log_prob(trace_at(z | x)[name], 0))

            # Only of the sites that it joins: another may be an index.
            numbers = {s.name: z[s.name].astype(float) for s in sites if name in s.update.joint}
            value, gradient = jax.value_and_grad(log_prob)(numbers)
            log_density += value
            for site_name, of_site in gradient.items():
                gradients[site_name] = gradients.get(site_name, 0.0) + of_site
        log_weights = once or [site.log_weights(z, trace_at) for site in sites]
        differences = {
            s.name: s.differences(z[s.name], trace[s.name], weights, gradients.get(s.name))
            for s, weights in zip(sites, log_weights, strict=True)
        }
        return Point(z, -log_density, differences)

    return point
