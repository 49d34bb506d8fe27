# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The reverse process of a diffusion prior with the likelihood in its denoiser."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree

from numpyro_scores._callables import Denoiser
from numpyro_scores._validation import check_count
from numpyro_scores.infer.diffusion.draws import Draw, independent_draws
from numpyro_scores.infer.diffusion.step_sizes import SiteGroups
from numpyro_scores.infer.diffusion.walk import GroupedLangevin, Walk
from numpyro_scores.infer.langevin.stiffness import FRICTION
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.trees import all_finite
from numpyro_scores.samplers import ReverseSampler


class Guidance(Protocol):
    r"""How the likelihood enters the denoiser of the posterior."""

    def start(self, key: Array, x: Array, groups: SiteGroups) -> Any:
        """What is remembered between the levels."""
        ...

    def denoiser(
        self,
        key: Array,
        memory: Any,
        posterior: FlatModel,
        groups: SiteGroups,
        x: Array,
        sigma: Array,
        sigma_next: Array,
    ) -> tuple[Denoiser, Any]:
        """
        The denoiser of the posterior in a step from the point `x` of level `sigma`, and the memory.

        It is a function of the vector of all sites; only the entries of the priors, those of group
        0, matter.
        """
        ...

    @property
    def num_grad_evals(self) -> tuple[int, int]:
        """Number of gradients of a level, and of an evaluation of the denoiser."""
        ...


@independent_draws
def guided_chain(kernel: Any, state: Any, model_args: tuple, model_kwargs: dict) -> Draw:
    r"""
    The `_sample_chain` of a kernel with a `_guidance`, a `_sampler` of its prior, and `_num_steps`
    Langevin steps of the other sites at each level: one run of the sampler with the denoiser of the
    posterior,

    .. math:: D(x, \sigma) + \sigma^2 \nabla_x \log p_\sigma(y \mid x).

    The other sites move with the denoised values in the place of the priors.
    """
    guidance, sampler, process = kernel._guidance, kernel._sampler, kernel._process
    posterior = kernel._posterior(state.z, model_args, model_kwargs)
    groups = kernel._groups(state.z)
    rng_key, key_start, key_memory, key_noise, key_directions, key_levels = random.split(
        state.rng_key, 6
    )
    x, _ = ravel_pytree(kernel._start(key_start, model_args, model_kwargs))
    is_prior = groups.index == 0
    others = OtherSites(posterior, groups, kernel._num_steps)
    levels = sampler.spacing(process, process.sigma_min, sampler.num_steps + 1).astype(x.dtype)

    def level(carry, inputs):
        x, memory, walk, diverging = carry
        sigma, sigma_next, key = inputs
        key_guidance, key_step, key_others = random.split(key, 3)
        denoiser, memory = guidance.denoiser(
            key_guidance, memory, posterior, groups, x, sigma, sigma_next
        )
        noise = random.normal(key_step, (sampler.num_noises, *x.shape), x.dtype)

        def denoise(v, sigma):
            return denoiser(jnp.where(is_prior, v, x), sigma)

        moved = sampler.step(denoise, x, sigma, sigma_next, noise)
        finite = all_finite(moved)
        x = jnp.where(finite, moved, x)  # the other sites get their own values below
        num_grad_evals = jnp.array(0)
        if others:
            x, walk, num_grad_evals = others.move(key_others, walk, x, sigma_next)
        return (x, memory, walk, diverging | ~finite), num_grad_evals

    memory = guidance.start(key_memory, x, groups)
    walk = others.start(x, key_noise, key_directions) if others else None
    carry = (x, memory, walk, jnp.array(False))
    inputs = (levels[:-1], levels[1:], random.split(key_levels, sampler.num_steps))
    (x, _, walk, diverging), num_grad_evals = lax.scan(level, carry, inputs)
    of_level, of_evaluation = guidance.num_grad_evals
    of_level += of_evaluation * sampler.num_evals
    return Draw(
        z=posterior.unravel(x),
        diverging=diverging if walk is None else diverging | walk.diverging,
        num_grad_evals=jnp.sum(num_grad_evals) + sampler.num_steps * of_level,
        rng_key=rng_key,
    )


def check_steps(sampler: Any, num_steps: int) -> None:
    """Raise unless the sampler goes step by step, and the other sites make some."""
    if not isinstance(sampler, ReverseSampler):
        raise TypeError(
            "sampler must be one of numpyro_scores.samplers that goes step by step, such as "
            f"Ancestral(num_steps=100), got {sampler!r}."
        )
    check_count("num_steps", num_steps)


class OtherSites:
    """The sites that are not noise-conditional priors: how they move while those stay."""

    def __init__(self, posterior: FlatModel, groups: SiteGroups, num_steps: int):
        self.posterior = posterior
        self.entries = np.flatnonzero(groups.index > 0)
        self.langevin = GroupedLangevin(
            SiteGroups(groups.index[self.entries] - 1, groups.transformed[1:]),
            num_steps,
            friction=FRICTION,
            max_bursts=1,
        )

    def __bool__(self) -> bool:
        return self.entries.size > 0

    def start(self, x: Array, key_noise: Array, key_directions: Array) -> Walk:
        """A walk of these sites, from their entries of the vector `x` of all sites."""
        return self.langevin.start(x[self.entries], key_noise, key_directions)

    def move(self, key: Array, walk: Walk, x: Array, sigma: Any) -> tuple[Array, Walk, Array]:
        """Steps with the values denoised from level `sigma` in the place of the priors."""
        denoised = self.posterior.denoise(x, sigma)
        gradient = jax.grad(lambda u: self.posterior.energy(denoised.at[self.entries].set(u)))
        walk, num_grad_evals = self.langevin.run(key, walk, gradient, 1.0)
        return x.at[self.entries].set(walk.x), walk, num_grad_evals
