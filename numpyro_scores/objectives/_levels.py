# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Training over all noise levels of a process: which levels, and what is trained there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random

from numpyro_scores._callables import NoiseEnergy
from numpyro_scores._validation import is_concrete
from numpyro_scores.denoisers.of_energy import as_denoiser, energy_of
from numpyro_scores.objectives._energy import check_unnormalised
from numpyro_scores.objectives._points import check_instance, is_distribution, takes

# A noise level that rises by more than this over the last eighth of the times has a pole there.
MAX_RISE = 1e6


def check_levels(process: Any) -> None:
    """
    :raises ValueError: if a noise level of a process is zero, infinite or not a number.
    """
    with jax.ensure_compile_time_eval():
        levels = jnp.asarray(process.noise_level(jnp.linspace(0.0, 1.0, 9)))
    if not is_concrete(levels):
        return
    levels = np.asarray(levels)
    fine = np.all(np.isfinite(levels)) and np.all(levels > 0)
    if not fine or levels[-1] > MAX_RISE * levels[-2]:
        raise ValueError(
            "The noise levels of a process must be finite and positive, but those of "
            f"{process!r} at the times 0, 1/8, ..., 1 are {levels}: cut the times where there is "
            "no noise, or no signal, as VariancePreserving does with t_min."
        )


def stratified_times(key: Array, num: int) -> Array:
    r"""
    :math:`(u + i / n) \bmod 1` with one uniform `u`: each is uniform, and together they cover all
    of [0, 1) evenly, shape `(num,)`.
    """
    return (random.uniform(key) + jnp.arange(num) / num) % 1


def function_of_levels(module: Any) -> Any:
    """
    The denoiser `D(x, sigma)`, or the energy `U(x, sigma)`, that a module is or has.

    :raises ValueError: if it is none and has none.
    """
    check_instance(module)
    name = type(module).__name__
    if is_distribution(module):
        if not callable(getattr(module, "denoiser", None)):
            raise ValueError(
                f"{name} has no denoiser: over the noise levels of a process D(x, sigma) is "
                "trained. For a density take DenoisingScoreMatching(sigma), at one noise level, or "
                "another objective."
            )
        return module.denoiser
    if not takes(module, None, None):
        raise ValueError(
            f"Over the noise levels of a process a denoiser, D(x, sigma) -> x.shape, is trained, "
            f"such as numpyro_scores.nn.MLPDenoiser, but {name} can't be called with two "
            "arguments. An energy, or a score, is trained on DenoisingScoreMatching(sigma), at one "
            "noise level."
        )
    return module


def energy_of_levels(module: Any, x: Array, sigma: Array) -> NoiseEnergy:
    """
    The energy `U(x, sigma) -> ()` that a module is, or that a prior is made of.

    :param x: a point, only its shape and dtype matter.
    :raises ValueError: if there is none.
    """
    function = function_of_levels(module)
    check_unnormalised(module)
    energy = energy_of(as_denoiser("The energy U(x, sigma)", function, x, sigma))
    if energy is None:
        raise ValueError(
            f"{type(module).__name__} returns the shape of its point, {x.shape}: it is a denoiser, "
            "which is trained on DenoisingScoreMatching(process). Dual score matching is of an "
            "energy, U(x, sigma) -> (), such as numpyro_scores.nn.MLPNoiseEnergy."
        )
    return energy
