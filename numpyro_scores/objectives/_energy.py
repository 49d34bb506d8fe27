# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
What the objectives of energies and scores share: the energy or score of a module, with its shape
seen to, and in coordinates without bounds where the module is a distribution that has bounds.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores._callables import Energy, Score
from numpyro_scores._coordinates import Coordinates, coordinates_of, on_border
from numpyro_scores._validation import is_concrete
from numpyro_scores.objectives._points import (
    check_event_shape,
    check_in_support,
    check_instance,
    is_discrete,
    is_distribution,
    takes,
    with_normalizers,
)


def energy_of(module: Any, x: Array) -> Energy:
    """
    Minus the log density of a distribution; an energy is its own.

    :param x: a point, only its shape and dtype matter.
    :raises ValueError: unless it maps the point to a scalar.
    """
    check_instance(module)
    check_takes_points(module)
    check_event_shape(module, x)
    energy = (lambda x: -module.log_prob(x)) if is_distribution(module) else module
    shape = getattr(jax.eval_shape(energy, x), "shape", None)
    if shape != ():
        raise ValueError(
            f"Expected an energy, x -> (), or a distribution over points of shape {x.shape}, but "
            f"the output has shape {shape}. The callable must take one unbatched point; batches "
            "are mapped with jax.vmap."
        )
    return energy


def check_takes_points(module: Any) -> None:
    """
    :raises ValueError: if a callable needs more than a point, as a denoiser does.
    """
    if not is_distribution(module) and not takes(module, None):
        kind = "a denoiser, (x, sigma) -> x.shape" if takes(module, None, None) else "something"
        raise ValueError(
            "Expected an energy, x -> (), or a score, x -> x.shape, of one point, but "
            f"{type(module).__name__} can't be called with one argument: it is {kind}. A denoiser "
            "is trained on DenoisingScoreMatching(process)."
        )


def check_unnormalised(module: Any) -> None:
    """
    :raises ValueError: if a distribution has a normaliser, which would not follow its parameters.
    """
    if any(part.log_normalizer is not None for part in with_normalizers(module)):
        raise ValueError(
            "A distribution that is trained must not have a log_normalizer here: it varies with "
            "the parameters, and this objective does without. Leave it out; "
            "NoiseContrastiveEstimation is the objective that learns it."
        )


def check_continuous(module: Any) -> None:
    """
    :raises ValueError: if a distribution is one of discrete points.
    """
    if is_discrete(module):
        raise ValueError(
            f"{type(module).__name__} is a distribution of discrete points, between which this "
            "objective would move. PseudoLikelihood, RatioMatching, ContrastiveDivergence without "
            "a sampler and NoiseContrastiveEstimation are for those."
        )


def unnormalised_energy_of(module: Any, x: Array) -> Energy:
    """As :func:`energy_of`, for an objective that the normaliser drops out of."""
    check_unnormalised(module)
    return energy_of(module, x)


def free_energy_of(module: Any, x: Array) -> tuple[Energy, Array, Callable[[Array], Array]]:
    r"""
    An energy in coordinates without bounds,
    :math:`\tilde E(z) = E(x(z)) - \log |\det \partial x / \partial z|`, which is that of the
    density of :math:`z` if :math:`E` is that of :math:`x`.

    :param x: points, shape `(n, *event_shape)`.
    :return: :math:`\tilde E`, the points :math:`z` and the function :math:`x(z)`; without a
        support, the energy and points themselves.
    """
    energy = energy_of(module, x[0])
    coordinates, z = _coordinates(module, x)
    if coordinates is None:
        return energy, x, _itself
    return _pulled_energy(energy, coordinates), z, coordinates.to_support


def free_field_of(module: Any, x: Array) -> tuple[Energy | Score, Array]:
    """
    An energy or a score in coordinates without bounds, and the points in these: a score if the
    module is one or has one, :math:`(\\partial x / \\partial z)^T s(x(z)) + \\nabla \\log |\\det
    \\partial x / \\partial z|`, else an energy as of :func:`free_energy_of`.

    :param x: points, shape `(n, *event_shape)`.
    """
    check_instance(module)
    check_takes_points(module)
    if not is_distribution(module):
        return module, x
    check_unnormalised(module)
    coordinates, z = _coordinates(module, x)
    score = getattr(module, "score", None)
    if not callable(score):
        energy = energy_of(module, x[0])
        return energy if coordinates is None else _pulled_energy(energy, coordinates), z
    return score if coordinates is None else _pulled_score(score, coordinates), z


def _coordinates(module: Any, x: Array) -> tuple[Coordinates | None, Array]:
    if not is_distribution(module):
        return None, x
    check_continuous(module)
    check_event_shape(module, x[0])
    check_in_support(module, x)
    coordinates = coordinates_of(module)
    if coordinates is None:
        return None, x
    z = jax.vmap(coordinates.from_support)(x)
    if is_concrete(z):
        strange = np.asarray(on_border(z)).reshape(len(z), -1).any(1)
        if strange.any():
            raise ValueError(
                f"{np.sum(strange)} of {len(x)} points lie on the border of the support "
                f"{module.support}, where its unconstrained coordinates are infinite: move them "
                "inside (pixels by noise of half of their spacing, say), or train an energy "
                "without a support."
            )
    return coordinates, z


def _itself(x: Array) -> Array:
    return x


def _pulled_energy(energy: Energy, coordinates: Coordinates) -> Energy:
    def free_energy(z: Array) -> Array:
        x = coordinates.to_support(z)
        return energy(x) - coordinates.log_volume(z, x)

    return free_energy


def _pulled_score(score: Score, coordinates: Coordinates) -> Score:
    def log_volume(z: Array) -> Array:
        return coordinates.log_volume(z, coordinates.to_support(z))

    def free_score(z: Array) -> Array:
        x, pull_back = jax.vjp(coordinates.to_support, z)
        return pull_back(jnp.asarray(score(x), x.dtype))[0] + jax.grad(log_volume)(z)

    return free_score
