# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Annealed Langevin dynamics through the noise levels of a diffusion prior."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro.distributions.transforms import IdentityTransform, IndependentTransform
from numpyro.infer.initialization import init_to_sample
from numpyro.infer.util import constrain_fn, potential_energy, transform_fn
from numpyro.util import is_prng_key

from numpyro_scores._validation import check_count, check_decreasing, check_positive
from numpyro_scores.curvature import (
    NUM_FIRST_ITERATIONS,
    NUM_ITERATIONS,
    block_directions,
    largest_curvature,
    renewed,
)
from numpyro_scores.handlers import noise_level
from numpyro_scores.infer._base import LangevinKernel
from numpyro_scores.infer._block_steps import Blocks, friction_at, num_rounds
from numpyro_scores.infer._sites import LatentSites
from numpyro_scores.infer._trees import all_finite, select
from numpyro_scores.infer.underdamped import FRICTION
from numpyro_scores.integrators import (
    BAOAB,
    Integrator,
    OverdampedIntegrator,
    UnderdampedIntegrator,
)

# A curvature may fall by this factor from one noise level to the next: one estimate that is far too
# low, among thousands of chains, would let its chain explode.
CURVATURE_MEMORY = 0.8

LARGEST_LEVEL = 1e30


class AnnealedLangevinState(NamedTuple):
    """
    - **z** - unconstrained values by site.
    - **diverging** - whether the steps of a noise level left the finite numbers, and so were not
      made.
    - **num_grad_evals** - number of gradients of this draw, a Hessian-vector product counted as 2.
    - **rng_key** - key of the next draw.
    """

    z: dict[str, Array]
    diverging: Array
    num_grad_evals: Array
    rng_key: Array


class AnnealedLangevin(LangevinKernel):
    r"""
    Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1) for a model with one or more
    noise-conditional priors (:class:`~numpyro_scores.DiffusionPrior`) and any likelihood.

    Each draw is one full anneal from fresh prior draws, so the draws are **independent**: the
    priors start at the largest noise level, all other sites (a noise scale, say) at a draw of
    their own prior, and then all sites move together by Langevin steps at each noise level. No
    warmup is needed. The draws of a diffusion site are of the smallest noise level.

    The result is **approximate**: the dynamics lags behind the noise levels, and with
    `denoised=True` the likelihood at noise level :math:`\sigma` is that of
    :math:`E[x_0 \mid x_\sigma]` (diffusion posterior sampling; Chung et al. 2023), which is exact
    only as :math:`\sigma \to 0`. More levels and more steps lessen both.

    :param model: a NumPyro model with a noise-conditional prior; its other latent sites must be
        continuous.
    :param step_size: by default the steps follow the curvature. In rounds of `num_steps` steps,
        Hessian-vector products measure the largest curvature of each block of sites
        (:func:`~numpyro_scores.curvature.largest_curvature`), and the block steps by half its
        inverse; the diffusion priors are one block, each other site is one. A number is the step
        `h` at the smallest noise level, times :math:`\sigma^2 / \sigma_{\min}^2` at the others and
        the same for all sites (half of the :math:`\epsilon` of Song & Ermon).
    :param num_steps: number of steps at each noise level. With a momentum and no `step_size` there
        are more where the data make the steps small: rounds of as many, up to 20, in proportion to
        :math:`\sigma \sqrt\Lambda` for a curvature :math:`\Lambda`. So a small noise scale costs
        time and asks for no tuning.
    :param num_levels: number of geometric noise levels, over the range of the priors' processes.
    :param noise_levels: the noise levels themselves, decreasing, in place of `num_levels`.
    :param denoised: whether the likelihood sees the denoised value or the noisy one.
    :param integrator: the one-step map. :class:`~numpyro_scores.BAOAB` carries a momentum, so that
        directions that the data say little about keep up when a small noise makes all steps small.
    :param friction: of an underdamped integrator, friction times time step (:math:`\sqrt{2h}`); by
        default 0.2, or :math:`2 / (\sigma \sqrt\Lambda)` if that is less.
    :raises ValueError: if an overdamped integrator is given a friction, or `integrator` is none.
    :raises ValueError: at `init`, if the model has no noise-conditional prior or a discrete site,
        or if the potential energy is not finite (data with NaN).

    Steps that leave the finite numbers are not made, a round at a time, and `diverging` says so.
    `init_params` are checked but do not matter: an anneal starts from the prior.
    """

    def __init__(
        self,
        model: Callable,
        *,
        step_size: float | None = None,
        num_steps: int = 5,
        num_levels: int = 100,
        noise_levels: Sequence[float] | Array | None = None,
        denoised: bool = True,
        integrator: Integrator = BAOAB(),
        friction: float | None = None,
    ):
        super().__init__(model, init_strategy=init_to_sample)
        if step_size is not None:
            check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        check_count("num_levels", num_levels)
        if noise_levels is not None:
            check_decreasing("noise_levels", noise_levels)
            noise_levels = tuple(float(sigma) for sigma in np.asarray(noise_levels))
        if not isinstance(integrator, Integrator):
            raise ValueError(f"integrator must be one such as BAOAB(), got {integrator!r}.")
        if friction is not None:
            if isinstance(integrator, OverdampedIntegrator):
                raise ValueError(f"{integrator!r} has no friction, got friction={friction!r}.")
            check_positive("friction", friction)
        self._step_size = step_size
        self._num_steps = num_steps
        self._num_levels = num_levels
        self._noise_levels = noise_levels
        self._denoised = denoised
        self._integrator = integrator
        self._friction = friction

    def get_potential_fn(self, model_args=(), model_kwargs=None, *, sigma=None):
        """The potential energy of unconstrained values at noise level `sigma` (None: no change)."""
        model = self._model if sigma is None else self._at(sigma)
        return partial(potential_energy, model, model_args, model_kwargs or {})

    def postprocess_fn(self, model_args, model_kwargs):
        if self._sites.has_deterministic or self._sites.dynamic_support:
            model_kwargs = model_kwargs or {}
            return partial(
                constrain_fn, self._model, model_args, model_kwargs, return_deterministic=True
            )
        return partial(transform_fn, self._sites.transforms)

    def _at(self, sigma: Any) -> Callable:
        return noise_level(self._model, sigma=sigma, denoised=self._denoised)

    def _look(self, key: Array, model_args: tuple, model_kwargs: dict):
        # The priors clip this level to the largest of their process, where a draw is mere noise.
        model = self._at(LARGEST_LEVEL)
        return LatentSites.of(model, key, self._init_strategy, model_args, model_kwargs)

    def _start(self, key: Array, model_args: tuple, model_kwargs: dict) -> dict[str, Array]:
        sites, values = self._look(key, model_args, model_kwargs)
        return transform_fn(sites.transforms, values, invert=True)

    def _init_from_model(self, rng_key, model_args, model_kwargs):
        single_chain = is_prng_key(rng_key)
        single_key = rng_key if single_chain else rng_key[0]
        assert self._model is not None
        sites, values = self._look(single_key, model_args, model_kwargs)
        sites.check_continuous(type(self).__name__, enumerates=False)
        self._check_normalizers(model_args, model_kwargs, values)
        if not sites.processes:
            raise ValueError(
                f"AnnealedLangevin anneals a noise-conditional prior, but the latent sites "
                f"{sorted(sites.transforms)} have none. Use a DiffusionPrior for one of them, or "
                "another kernel: MALA(model), ULA(model) or numpyro.infer.NUTS(model)."
            )
        self._sites = sites
        self._levels()
        start = partial(self._start, model_args=model_args, model_kwargs=model_kwargs)
        return jax.jit(start if single_chain else jax.vmap(start))(rng_key)

    def _levels(self) -> np.ndarray:
        """The noise levels, within those of the priors' processes."""
        sigma_max = max(process.sigma_max for process in self._sites.processes.values())
        sigma_min = min(process.sigma_min for process in self._sites.processes.values())
        if self._noise_levels is None:
            return np.geomspace(sigma_max, sigma_min, self._num_levels)
        levels = np.asarray(self._noise_levels)
        if levels[0] > sigma_max * (1 + 1e-6) or levels[-1] < sigma_min * (1 - 1e-6):
            raise ValueError(
                f"noise_levels go from {levels[0]} to {levels[-1]}, but the priors' processes only "
                f"from {sigma_max} to {sigma_min}: choose levels within, or train for more."
            )
        return levels

    def _blocks(self, z: dict[str, Array]) -> Blocks:
        """The blocks of the entries: the noise-conditional priors, and each other site."""
        numbers, transformed = {}, [False]
        for name in sorted(z):
            numbers[name] = 0
            if name not in self._sites.processes:
                numbers[name] = len(transformed)
                transform = self._sites.transforms[name]
                while isinstance(transform, IndependentTransform):
                    transform = transform.base_transform
                transformed.append(not isinstance(transform, IdentityTransform))
        index = np.concatenate([np.full(np.size(z[name]), numbers[name]) for name in sorted(z)])
        return Blocks(index, np.array(transformed))

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        potential_fn = self.get_potential_fn(model_args, model_kwargs, sigma=LARGEST_LEVEL)
        state = AnnealedLangevinState(z, jnp.array(False), jnp.array(0), rng_key)
        return state, (potential_fn(z),)

    def _sample_chain(self, state, model_args, model_kwargs):
        rng_key, key_start, key_noise, key_directions, key_levels = random.split(state.rng_key, 5)
        x, unravel = ravel_pytree(self._start(key_start, model_args, model_kwargs))
        levels = jnp.asarray(self._levels(), x.dtype)
        blocks = self._blocks(state.z)
        num_blocks = len(blocks.transformed)
        underdamped = isinstance(self._integrator, UnderdampedIntegrator)

        def level(carry, inputs):
            sigma, num_iterations, key = inputs
            potential_fn = self.get_potential_fn(model_args, model_kwargs, sigma=sigma)
            gradient = jax.grad(lambda x: potential_fn(unravel(x)))

            def one_round(carry):
                """Measure the curvatures and make `num_steps` steps."""
                i, x, memory, directions, curvatures, diverging = carry
                key_probe, key_steps = random.split(random.fold_in(key, i))
                current = self._integrator.init(x, jnp.zeros_like(x), gradient)
                if self._step_size is not None:
                    step_size = self._step_size * (sigma / levels[-1]) ** 2
                    friction = self._friction or FRICTION
                else:
                    if underdamped:
                        memory = blocks.limited(memory)
                    fresh = random.normal(key_probe, x.shape, x.dtype)
                    measured, directions = largest_curvature(
                        gradient,
                        x,
                        renewed(directions, block_directions(fresh, blocks.index)),
                        jnp.where(i == 0, num_iterations, NUM_ITERATIONS),
                    )
                    curvatures = jnp.maximum(measured, CURVATURE_MEMORY * curvatures)
                    step_size = blocks.step_size(curvatures, current.grad, sigma, self._num_steps)
                    friction = self._friction or friction_at(curvatures[0], sigma)

                def step(current, key):
                    return self._step(current, key, gradient, step_size, friction), None

                keys = random.split(key_steps, self._num_steps)
                current, _ = lax.scan(step, current._replace(memory=memory), keys)
                finite = all_finite(current)
                x, memory = select(finite, (current.x, current.memory), (x, memory))
                return i + 1, x, memory, directions, curvatures, diverging | ~finite

            def unfinished(carry):
                i, *_, curvatures, _ = carry
                return i < num_rounds(curvatures[0], sigma)

            carry = (0, *carry)
            if self._step_size is None and underdamped:
                carry = lax.while_loop(unfinished, one_round, carry)
            else:
                carry = one_round(carry)
            return carry[1:], carry[0]

        noise = random.normal(key_noise, x.shape, x.dtype)
        directions = block_directions(random.normal(key_directions, x.shape, x.dtype), blocks.index)
        memory = self._integrator.init(x, noise, jnp.zeros_like).memory
        carry = (x, memory, directions, jnp.zeros(num_blocks, x.dtype), jnp.array(False))
        num_iterations = np.full(len(levels), NUM_ITERATIONS)
        num_iterations[0] = NUM_FIRST_ITERATIONS
        inputs = (levels, num_iterations, random.split(key_levels, len(levels)))
        (x, *_, diverging), rounds = lax.scan(level, carry, inputs)
        num_grad_evals = jnp.sum(rounds) * (self._num_steps * self._integrator.num_grad_evals + 1)
        if self._step_size is None:
            num_products = jnp.sum(num_iterations + NUM_ITERATIONS * (rounds - 1))
            num_grad_evals = num_grad_evals + 2 * num_blocks * num_products
        return AnnealedLangevinState(
            z=unravel(x),
            diverging=diverging,
            num_grad_evals=num_grad_evals,
            rng_key=rng_key,
        )

    def _step(self, current, key, gradient, step_size, friction):
        integrator, x = self._integrator, current.x
        noise = random.normal(key, (integrator.num_noises, *x.shape), x.dtype)
        if isinstance(integrator, OverdampedIntegrator):
            return integrator.step(current, noise, gradient, step_size)
        # A block whose step is zero does not move, and its momentum is forgotten all the same.
        time_step = jnp.sqrt(2 * jnp.maximum(step_size, jnp.finfo(x.dtype).tiny))
        return integrator.step(current, noise, gradient, time_step, friction / time_step)

    def refresh(self, state, model_args, model_kwargs):
        """Nothing of the model is kept between draws."""
        return state
