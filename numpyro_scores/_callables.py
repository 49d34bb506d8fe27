# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies, scores and denoisers are *any callable*: what they return, and a distribution's."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._callable_pytrees import CallablePytree, as_pytree, name_of, unwrapped

__all__ = ["CallablePytree", "as_pytree", "name_of", "unwrapped"]

Energy: TypeAlias = Callable[[Array], Array]
Score: TypeAlias = Callable[[Array], Array]
Denoiser: TypeAlias = Callable[[Array, Any], Array]
NoiseEnergy: TypeAlias = Callable[[Array, Any], Array]


def is_density(f: Any) -> bool:
    """Whether it is a distribution, of NumPyro or of another library with its methods."""
    return all(hasattr(f, name) for name in ("log_prob", "event_shape", "batch_shape"))


def as_score(f: Any, x: Array) -> Score:
    r"""
    The score of a distribution, of an energy, or of a score, the latter two told apart by the shape
    of `f(x)`: `()` is an energy :math:`E`, whose score is :math:`-\nabla E`; the shape of `x` is
    the score itself. That of a distribution is its own `score`, if it has one, and else
    :math:`\nabla \log p`.

    :param f: a distribution, or an energy or a score on one unbatched point.
    :param x: a point, only its shape and dtype matter.
    :raises ValueError: if `f(x)` has another shape, or if the distribution is of other points.
    """
    if is_density(f):
        return _score_of_distribution(f, x)
    shape = jax.eval_shape(f, x).shape
    if shape == jnp.shape(x):
        return f
    if shape == ():
        return lambda x: -jax.grad(f)(x)
    raise ValueError(
        f"Expected an energy, x -> (), or a score, x -> {jnp.shape(x)}, for points of shape "
        f"{jnp.shape(x)}, but the output has shape {shape}. The callable must take one unbatched "
        "point; batches are mapped with jax.vmap."
    )


def _score_of_distribution(distribution: Any, x: Array) -> Score:
    name = type(unwrapped(distribution)).__name__
    shapes = distribution.batch_shape, distribution.event_shape
    if shapes != ((), jnp.shape(x)):
        raise ValueError(
            f"The score of {name} is wanted at points of shape {jnp.shape(x)}, but its batch shape "
            f"is {shapes[0]} and its event shape {shapes[1]}: expand(...) and to_event(...) make "
            "one distribution of such points."
        )
    if getattr(distribution, "is_discrete", False):
        raise ValueError(f"{name} is discrete: it has no score.")
    score = getattr(distribution, "score", None)
    return score if callable(score) else jax.grad(distribution.log_prob)


def check_field(
    name: str, f: Callable[..., Array], x: Array, *args: Array, otherwise: str = ""
) -> None:
    """Raise unless the vector field `f(x, *args)` has the shape of `x` (nothing is computed)."""
    found = output_shape(name, f, x, *args)
    if not isinstance(found, jax.ShapeDtypeStruct):
        raise TypeError(
            f"{name} must return one array of the shape of its point, {jnp.shape(x)}, got "
            f"{type(found).__name__}."
        )
    if found.shape != jnp.shape(x):
        raise ValueError(
            f"{name} must map one point to the same shape: it got shape {jnp.shape(x)} and "
            f"returned shape {found.shape}.{otherwise}"
        )


def check_energy(name: str, f: Callable[..., Array], x: Any) -> None:
    """Raise unless `f(x)` is a scalar (nothing is computed)."""
    shape = getattr(output_shape(name, f, x), "shape", None)
    if shape != ():
        raise ValueError(
            f"An energy maps one point to a scalar: {name}(x) for x of shape {x.shape} must have "
            f"shape (), got {shape}."
        )


def output_shape(name: str, f: Callable[..., Any], x: Any, *args: Any) -> Any:
    """
    Shapes of what `f(x, *args)` returns; raise in words if `f` is a class, takes batches, or a
    noise level too many or too few.
    """
    if isinstance(unwrapped(f), type):
        raise TypeError(f"{name} must be an instance of {name_of(f)}, got the class.")
    try:
        return jax.eval_shape(f, x, *args)
    except Exception as error:
        for batched in {False, bool(args)}:
            if _takes_batches(f, x, args, batched):
                more = ["sigma"] * len(args)
                given = ", ".join(["x[None]", *(a + "[None]" * batched for a in more)])
                raise ValueError(
                    f"{name} must take one unbatched point, of shape {jnp.shape(x)}, but it takes "
                    f"batches: give lambda {', '.join(['x', *more])}: f({given})[0] in its place."
                ) from error
        if args and _takes(f, x):
            raise ValueError(
                f"{name} must take a point and its noise level, {name}(x, sigma), but it takes a "
                "point alone: what was trained without noise levels, or at one, is for "
                "EnergyDistribution or ScoreDistribution."
            ) from error
        if not args and _takes(f, x, jnp.ones(())):
            raise ValueError(
                f"{name} must take one point, {name}(x), but it takes a noise level too: give "
                "lambda x: f(x, sigma) in its place, or a DiffusionPrior of it."
            ) from error
        raise


def _takes(f: Callable[..., Any], *args: Any) -> bool:
    try:
        jax.eval_shape(f, *args)
    except Exception:  # it is wrong in another way
        return False
    return True


def _takes_batches(f: Callable[..., Any], x: Any, args: tuple, batched: bool) -> bool:
    def stacked(leaf: Any) -> Any:
        return jax.ShapeDtypeStruct((2, *jnp.shape(leaf)), jnp.result_type(leaf))

    try:
        found = jax.eval_shape(f, stacked(x), *(map(stacked, args) if batched else args))
    except Exception:  # it is wrong in another way
        return False
    return getattr(found, "shape", ())[:1] == (2,)


def mapped_over(f: Callable[..., Any], num_axes: int) -> Callable[..., Any]:
    """A function of one point as one of points along so many leading axes."""
    for _ in range(num_axes):
        f = jax.vmap(f)
    return f
