# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A Gibbs sampler between the likelihood and the reverse process of a diffusion prior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, random
from jax.flatten_util import ravel_pytree

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.curvature import NUM_FIRST_ITERATIONS, NUM_ITERATIONS
from numpyro_scores.infer.diffusion.base import NoiseLevelKernel
from numpyro_scores.infer.diffusion.walk import GroupedLangevin, Walk
from numpyro_scores.infer.kernel import by_position
from numpyro_scores.infer.trees import all_finite
from numpyro_scores.samplers import Ancestral, PredictorCorrector, ReverseSampler, ReverseSDE


class SplitGibbsState(NamedTuple):
    r"""
    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values by site.
    - **walk** - the Langevin steps of the likelihood: the copies `v` of the priors' values, and
      all other sites.
    - **coupling** - the noise level :math:`\rho` of this draw.
    - **diverging** - whether steps of this draw left the finite numbers, and so were not made.
    - **num_grad_evals** - number of gradients of this draw, a Hessian-vector product counted as 2.
    - **rng_key** - key of the next draw.
    """

    i: Array
    z: dict[str, Array]
    walk: Walk
    coupling: Array
    diverging: Array
    num_grad_evals: Array
    rng_key: Array

    __getitem__ = by_position


class SplitGibbs(NoiseLevelKernel):
    r"""
    The split Gibbs sampler with a diffusion prior (PnP-DM; Wu et al. 2024, "Principled
    probabilistic imaging using diffusion models as plug-and-play priors", algorithm 1) for a model
    with noise-conditional priors (:class:`~numpyro_scores.DiffusionPrior`) and any likelihood. A
    **chain** whose target is

    .. math:: p(x)\; N(v; x, \rho^2 I)\; p(\text{others})\, p(y \mid v, \text{others}),

    by turns of a likelihood step, Langevin steps of the copy `v` and of all other sites, and a
    prior step: `x` given `v` is a clean value given a noisy one, which the reverse process draws
    from the noise level :math:`\rho`.

    Draws are of `x`, whose likelihood is that of a value with noise :math:`\rho` added: of a
    measurement with noise `s`, :math:`s^2 + \rho^2` in place of :math:`s^2`. It is **exact as**
    :math:`\rho \to 0`, as far as the prior step is (its reverse process has an error that falls
    with the sampler's `num_steps`) and the Langevin steps, which have no Metropolis test (on a
    Gaussian they are exact). But the smaller :math:`\rho`, the slower the chain: a
    direction of posterior variance :math:`c` is forgotten in about :math:`1 + c / \rho^2` draws.

    `Normal` data can spare it: if the model has what is left of their noise, variances :math:`s^2 -
    \rho^2 + \sigma_{\min}^2` where entries of the value itself are measured, :math:`S - (\rho^2 -
    \sigma_{\min}^2) A A^\top` for data :math:`A x`, the target is the posterior with all of the
    noise, at a coupling up to that noise; entries that are not measured ask for nothing.

    In the first half of the warmup :math:`\rho` falls geometrically from the largest noise level to
    `coupling`, so that the chain finds its way between distant modes; without a warmup it is
    `coupling` from the start.

    :param model: a NumPyro model, as :class:`~numpyro_scores.DAPS` takes it.
    :param coupling: :math:`\rho` of the draws, within the noise levels of the process.
    :param sampler: of the prior step, one with the noise of the reverse process: `Ancestral`,
        `ReverseSDE` or `PredictorCorrector`. The probability flow maps a noisy value to one clean
        value, and would not do.
    :param num_steps: number of Langevin steps of a burst. Their lengths follow the curvature, and
        there are up to 20 bursts where the data make them small, as for
        :class:`~numpyro_scores.AnnealedLangevin`.
    :raises TypeError: if `sampler` is none of these.
    :raises ValueError: at `init`, as :class:`~numpyro_scores.DAPS`, and if `coupling` is not a
        noise level of the process.

    Steps that leave the finite numbers are not made, and `diverging` says so.
    """

    _by_denoiser = True
    approximation = (
        "SplitGibbs draws from a likelihood with the noise `coupling` added: draws spread too much "
        "in directions that are measured more precisely than that, and an inferred noise scale is "
        "too small where the coupling is not small beside it; it is exact as coupling goes to "
        "zero, but a direction of variance c takes about 1 + c / coupling^2 draws to forget its "
        "start"
    )

    def __init__(
        self,
        model: Callable,
        *,
        coupling: float,
        sampler: ReverseSampler = Ancestral(num_steps=20),
        num_steps: int = 10,
    ):
        super().__init__(model)
        check_positive("coupling", coupling)
        check_count("num_steps", num_steps)
        if not isinstance(sampler, Ancestral | ReverseSDE | PredictorCorrector):
            raise TypeError(
                "sampler must follow the reverse process with its noise, such as "
                f"Ancestral(num_steps=20), got {sampler!r}."
            )
        self._coupling = coupling
        self._sampler = sampler
        self._num_steps = num_steps

    def _check_model(self, model_args, model_kwargs, values):
        super()._check_model(model_args, model_kwargs, values)
        process = self._process
        if not process.sigma_min <= self._coupling <= process.sigma_max:
            raise ValueError(
                f"coupling must be a noise level of the process, in [{process.sigma_min}, "
                f"{process.sigma_max}], got {self._coupling}."
            )

    def _coupling_at(self, i: Any) -> Array:
        """The noise level of draw `i = 0, 1, ...`."""
        largest = self._process.sigma_max
        share = jnp.minimum(1.0, 2 * i / self._num_warmup) if self._num_warmup else 1.0
        return largest * (self._coupling / largest) ** share

    def _langevin(self, z):
        return GroupedLangevin(self._groups(z), self._num_steps, is_bounded=True)

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        self._num_warmup = num_warmup
        key_noise, key_directions, rng_key = random.split(rng_key, 3)
        x, _ = ravel_pytree(z)
        state = SplitGibbsState(
            i=jnp.array(0),
            z=z,
            walk=self._langevin(z).start(x, key_noise, key_directions),
            coupling=jnp.asarray(self._coupling_at(0), x.dtype),
            diverging=jnp.array(False),
            num_grad_evals=jnp.zeros((), int),
            rng_key=rng_key,
        )
        return state, (self._energy_at_start(z, model_args, model_kwargs),)

    def _sample_chain(self, state, model_args, model_kwargs):
        rng_key, key_likelihood, key_prior = random.split(state.rng_key, 3)
        x, unravel = ravel_pytree(state.z)
        rho = jnp.asarray(self._coupling_at(state.i), x.dtype)
        langevin = self._langevin(state.z)
        is_prior = langevin.groups.index == 0
        posterior = self._posterior(state.z, model_args, model_kwargs)
        slope = jax.grad(posterior.energy)

        def gradient(v):
            return slope(v) + jnp.where(is_prior, (v - x) / rho**2, 0)

        num_iterations = jnp.where(state.i == 0, NUM_FIRST_ITERATIONS, NUM_ITERATIONS)
        walk, num_grad_evals = langevin.run(
            key_likelihood,
            state.walk._replace(diverging=jnp.array(False)),
            gradient,
            rho,
            num_iterations,
        )

        def denoise(v, sigma):
            return posterior.denoise(jnp.where(is_prior, v, walk.x), sigma)

        process, sampler = self._process, self._sampler
        moved = sampler(denoise, process, walk.x, process.sigma_min, key=key_prior, sigma_from=rho)
        finite = all_finite(moved)
        x = jnp.where(is_prior, jnp.where(finite, moved, x), walk.x)
        return SplitGibbsState(
            i=state.i + 1,
            z=unravel(x),
            walk=walk,
            coupling=rho,
            diverging=walk.diverging | ~finite,
            num_grad_evals=num_grad_evals + sampler.num_steps * sampler.num_evals,
            rng_key=rng_key,
        )

    def get_diagnostics_str(self, state):
        return f"coupling {state.coupling:.2e}"
