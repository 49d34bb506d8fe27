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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores.distributions._wrapped import base_of, power_of
from numpyro_scores.distributions.boltzmann.base import BlockDistribution
from numpyro_scores.distributions.boltzmann.states import finite_states, tilted
from numpyro_scores.infer.discrete.model_trace import Trace, Values, unsummed_log_prob
from numpyro_scores.infer.discrete.updates import SiteUpdate

# A gradient that is zero at one point need not be zero at another.
NUM_PROBES = 8


class Neighbourhood(NamedTuple):
    r"""
    - **z** - values of the sites.
    - **potential_energy** - there, shape `()`.
    - **differences** - :math:`\Delta`, for each site an array `(num_states, *shape)`.
    """

    z: Values
    potential_energy: Array
    differences: dict[str, Array]


def local_update(kernel: str, name: str, fn: Any, values: Values, trace_at: Trace) -> SiteUpdate:
    """
    How a site is drawn whose elements are changed one by one.

    :raises ValueError: if the elements do not have finitely many states, or the gradient of a
        density that joins them does not exist or is zero.
    """
    d = base_of(fn)
    has_blocks = isinstance(d, BlockDistribution)
    update = SiteUpdate.of(name, fn, d if has_blocks else None, values, trace_at)
    if not finite_states(fn.support):
        raise ValueError(
            f"{kernel} draws discrete elements, but site {name!r} of {type(d).__name__} has "
            "continuous ones too. Make them a site of their own, as of rbm: "
            "v = sample('v', rbm), h = sample('h', rbm.conditional(visible=v).to_event(1))."
        )
    _check_gradients(kernel, update, values, trace_at)
    return update


def site_differences(
    update: SiteUpdate, value: Array, site: Any, log_weights: Any, gradient: Any
) -> Array:
    """
    Of one site, see :class:`Neighbourhood`.

    :param site: of the trace.
    :param log_weights: of the update.
    :param gradient: of the densities that join the elements, or None.
    """
    log_density = jnp.zeros((len(update.states), *value.shape))
    if update.has_blocks:
        d = base_of(site["fn"])
        blocks = tuple(d.split(value))
        power = power_of(site)
        conditionals = [
            tilted(d._conditional(k, blocks), log_weights[k], power) for k in range(len(blocks))
        ]
        log_density += d.join(
            tuple(
                jax.vmap(conditional.log_prob)(jnp.array(update.states))
                for conditional in conditionals
            )
        )
    else:
        log_density += log_weights[0]
    if gradient is not None:
        log_density += gradient[None] * update.column(value.ndim)
    at_value = jnp.where(update.is_at(value), log_density, 0.0)
    return log_density - jnp.sum(at_value, axis=0, keepdims=True)


def _check_gradients(kernel: str, update: SiteUpdate, values: Values, trace_at: Trace) -> None:
    x = values[update.name]
    probes = random.choice(random.key(0), jnp.array(update.states), (NUM_PROBES, *x.shape))
    for name in update.joint:

        def log_prob(x: Array, name: str = name) -> Array:
            return jnp.sum(unsummed_log_prob(trace_at(values | {update.name: x})[name], 0))

        reason: Exception | None = None
        try:
            gradients = jax.jit(jax.vmap(jax.grad(log_prob)))(probes.astype(float))
        except TypeError as error:  # an index, or a bit operation
            reason = error
        if reason is not None or not np.any(gradients):
            what = "is zero" if reason is None else f"does not exist ({reason})"
            raise ValueError(
                f"{kernel} takes the effect of an element of site {update.name!r} on the log "
                f"density of {name!r}, which is not a sum over elements, from its gradient, "
                f"but that {what}. Write it as a differentiable function of {update.name!r} as "
                "numbers, without x == state or an index: for two states "
                "low + (high - low) * x in place of jnp.array([low, high])[x]."
            ) from reason


def local_points(
    sites: tuple[SiteUpdate, ...], values: Values, trace_at: Trace
) -> Callable[[Values], Neighbourhood]:
    """The function from values of the sites to their `Neighbourhood`."""
    once = [site.log_weights(values, trace_at) for site in sites] if len(sites) == 1 else None
    joint = sorted({name for site in sites for name in site.joint})

    def point(z: Values) -> Neighbourhood:
        trace = trace_at(z)
        log_density, gradients = jnp.zeros(()), {}
        for name, site in trace.items():
            if site["type"] == "sample" and name not in joint:
                log_density += jnp.sum(unsummed_log_prob(site, 0))
        for name in joint:

            def log_prob(x: Values, name: str = name) -> Array:
                return jnp.sum(unsummed_log_prob(trace_at(z | x)[name], 0))

            # Only of the sites that it joins: another may be an index.
            numbers = {s.name: z[s.name].astype(float) for s in sites if name in s.joint}
            value, gradient = jax.value_and_grad(log_prob)(numbers)
            log_density += value
            for site_name, of_site in gradient.items():
                gradients[site_name] = gradients.get(site_name, 0.0) + of_site
        log_weights = once or [site.log_weights(z, trace_at) for site in sites]
        differences = {
            s.name: site_differences(s, z[s.name], trace[s.name], weights, gradients.get(s.name))
            for s, weights in zip(sites, log_weights, strict=True)
        }
        return Neighbourhood(z, -log_density, differences)

    return point
