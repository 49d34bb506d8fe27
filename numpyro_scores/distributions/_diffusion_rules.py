# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The parts of a diffusion prior, checked, and its value and its score by them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._callables import as_pytree
from numpyro_scores.denoisers.score import score_by_denoiser
from numpyro_scores.densities.adaptive_flow import AdaptiveProbabilityFlow
from numpyro_scores.densities.flow import ProbabilityFlow
from numpyro_scores.densities.noise_path import NoisePathIntegral
from numpyro_scores.samplers import PriorSampler


def checked_sampler(sampler: Any) -> PriorSampler:
    if not isinstance(sampler, PriorSampler):
        raise TypeError(
            "sampler must be one of numpyro_scores.samplers, such as Heun(num_steps=18), got "
            f"{sampler!r}."
        )
    return sampler


def checked_rule(name: str, rule: Any) -> Any:
    if not isinstance(rule, NoisePathIntegral | ProbabilityFlow | AdaptiveProbabilityFlow):
        raise TypeError(
            f"{name} must be ProbabilityFlow(), AdaptiveProbabilityFlow() or NoisePathIntegral(), "
            f"got {rule!r}."
        )
    return rule


def log_density_by(rule: Any, sigma_max: float, params: Any, x: Array) -> Array:
    denoiser, sigma = params
    return rule(denoiser, x, jax.lax.convert_element_type(sigma, x.dtype), sigma_max)


def score_by(params: Any, x: Array) -> Array:
    denoiser, sigma = params
    return score_by_denoiser(denoiser, x, jax.lax.convert_element_type(sigma, x.dtype))


def checked_normalizer(log_normalizer: Any, has_energy: bool, sigma: Any) -> Any:
    """
    `log_normalizer` as a prior of an energy keeps it; raise unless it is a number or a function.
    """
    if log_normalizer is None:
        return None
    if not has_energy:
        raise ValueError(
            "log_normalizer is that of an energy, energy(x, sigma) -> (), but the density here "
            "comes from an integral, which is normalised: leave log_normalizer out."
        )
    if callable(log_normalizer):
        log_normalizer = as_pytree("log_normalizer", log_normalizer)
        shape = jax.eval_shape(log_normalizer, sigma).shape
    else:
        shape = jnp.shape(log_normalizer)
    if shape != ():
        raise ValueError(
            "log_normalizer must be a number, or a function of one noise level that returns one, "
            f"got shape {shape}."
        )
    return log_normalizer
