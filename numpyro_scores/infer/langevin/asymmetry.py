# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A warning where a Metropolis test is made with a score that is not a gradient."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree

from numpyro_scores._callables import Score, as_pytree
from numpyro_scores._validation import is_concrete
from numpyro_scores.densities.conservativeness import jacobian_asymmetry
from numpyro_scores.infer.guards import sites_at
from numpyro_scores.infer.langevin.score_sites import score_distribution
from numpyro_scores.infer.langevin.targets import flat_root, unwhiten

# What diagnostics of draws calls large: exact scores measure below 1e-5 in float32, learned ones
# some 0.05 to 0.1.
LARGEST_ASYMMETRY = 0.01

# Nats round a triangle of a point and two proposals. Beside Langevin dynamics with the same linear
# field, which is no gradient, MALA's variances were off by less than 0.3% at 0.2 nats, by 1% at
# 0.5, 4% at 0.9 and 16% at 1.1.
LARGEST_RESIDUAL = 0.3

# Enough for a mean to some percent, and no long wait with many chains.
MAX_POINTS = 64


def proposals(state: Any, noise_scale: Callable[[Array], Array]) -> list[Any]:
    """
    Two moves from each start, by the noise of a step alone.

    :param state: of a kernel whose metric and step size are in `adapt_state`.
    :param noise_scale: the standard deviation in the metric, from the step size.
    """

    def move(z, adapt_state, key):
        x, unravel = ravel_pytree(z)
        root = flat_root(adapt_state.mass_matrix_sqrt_inv, z)
        noise = noise_scale(adapt_state.step_size) * random.normal(key, x.shape, x.dtype)
        return unravel(x + unwhiten(root, noise))

    keys = random.split(random.key(0))
    if jnp.ndim(state.i) == 0:
        return [move(state.z, state.adapt_state, key) for key in keys]
    return [
        jax.vmap(move)(state.z, state.adapt_state, random.split(key, len(state.i))) for key in keys
    ]


def warn_unless_gradient(
    kernel: str,
    sites: Sequence[str],
    model: Callable,
    model_args: tuple,
    model_kwargs: dict,
    values: dict[str, Array],
    corners: Sequence[dict[str, Array]],
) -> None:
    """
    Warn of each site of a `ScoreDistribution` whose score is so far from a gradient that steps of
    the kernel feel it.

    :param kernel: name of the kernel.
    :param sites: names of the sites.
    :param values: constrained values of the latent sites of one chain.
    :param corners: the start of all chains, and two proposals from there, with any leading axes.
    """
    model_trace = sites_at(model, model_args, model_kwargs, values)
    for name in sites:
        fn = score_distribution(model_trace[name]["fn"])
        assert fn is not None
        points, *others = (
            corner[name].reshape(-1, *fn.event_shape)[:MAX_POINTS] for corner in corners
        )
        residual = loop_residual(as_pytree("score", fn.score), points, *others)
        if is_concrete(residual) and residual > LARGEST_RESIDUAL:
            asymmetry = jacobian_asymmetry(fn.score, points, key=random.key(0))
            warnings.warn(
                f"The score of site {name!r} is not a gradient: its integral round a triangle of a "
                f"point and two proposals is {residual:.2g} nats (root mean square, where the "
                f"chains start), where a log density has 0. {kernel} accepts by differences of a "
                "log density; no density has this score, its differences depend on the path, and "
                "what is drawn has no formula. The antisymmetric part of its Jacobian is "
                f"{asymmetry:.2g} of the whole. Train an energy (nn.MLPEnergy in an "
                "EnergyDistribution), or draw with ULA or OverdampedLangevin, which need the score "
                "alone. diagnostics.conservativeness measures it where the draws are.",
                UserWarning,
                stacklevel=3,
            )


@jax.jit
def loop_residual(score: Score, a: Array, b: Array, c: Array) -> Array:
    r"""
    The root mean square over triangles of :math:`\tfrac12 (c - a) \cdot (J - J^\top)(b - a)`, the
    integral of a score round each as far as its Jacobian :math:`J` at `a` knows. No error of a
    quadrature is part of it, and a gradient has 0.

    :param score: the score of one point.
    :param a: points, shape `(n, *event_shape)`.
    :param b: others, near these.
    :param c: others.
    """

    def integral(corners):
        a, b, c = corners
        _, forward = jax.linearize(score, a)
        (backward,) = jax.linear_transpose(forward, a)(b - a)
        return jnp.sum((c - a) * (forward(b - a) - backward)) / 2

    # One at a time: a network's memory is that of one point.
    return jnp.sqrt(jnp.mean(lax.map(integral, (a, b, c)) ** 2))
