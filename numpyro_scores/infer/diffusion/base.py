# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How a kernel that goes through the noise levels of diffusion priors is wired to a model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.distributions.transforms import IdentityTransform, IndependentTransform
from numpyro.handlers import seed, trace
from numpyro.infer.gibbs import GIBBS_SITES_KWARG
from numpyro.infer.initialization import init_to_sample, init_to_value
from numpyro.infer.util import constrain_fn, potential_energy
from numpyro.util import is_prng_key

from numpyro_scores._validation import check_count, check_decreasing, is_concrete
from numpyro_scores.handlers import noise_level
from numpyro_scores.infer.diffusion.corrections import check_corrected, corrected
from numpyro_scores.infer.diffusion.draws import AnnealedState, Draw
from numpyro_scores.infer.diffusion.priors import mixed_priors, prior_coordinates
from numpyro_scores.infer.diffusion.step_sizes import SiteGroups
from numpyro_scores.infer.guards import (
    check_independent_priors,
    check_model,
    check_normalizers,
    check_supports,
)
from numpyro_scores.infer.kernel import ChainKernel
from numpyro_scores.infer.langevin.base import given_values
from numpyro_scores.infer.model import FlatModel, LatentSites
from numpyro_scores.infer.parts import without_priors

LARGEST_LEVEL = 1e30


class NoiseLevelKernel(ChainKernel):
    """
    A kernel for a model with noise-conditional priors. Chains start at a draw of the priors at the
    largest noise level and, for all other sites, of their own priors. A subclass writes
    `_sample_chain`, most of them one that is :func:`independent_draws`.

    :param num_levels: number of geometric noise levels.
    :param noise_levels: the noise levels themselves.
    :param num_corrections: number of Metropolis steps after a draw, of kernels that make them.
    """

    # What is approximate, whatever the number of draws, and in which direction, with the figures of
    # the documentation; and whether sites beside the priors feel it too. `diagnose` says it.
    approximation: str | None = None
    biases_other_sites = True
    _why_not_swapped = (
        "it goes through the noise levels of the priors by itself, and its draws are not of the "
        "density that a swap would compare. Use ReplicaExchange(MALA(model), NoiseLevels([...])) "
        "for the same ladder."
    )
    # Whether the kernel asks the priors for denoised values alone: they must then have one noise
    # process, none may depend on another latent site, and none may be raised to a power.
    _by_denoiser = False
    _is_exact = False
    _shared_fields = ("i",)
    _num_warmup = 0

    def __init__(
        self,
        model: Callable,
        *,
        num_levels: int = 100,
        noise_levels: Sequence[float] | Array | None = None,
        denoised: bool = True,
        num_corrections: int = 0,
    ):
        check_model(type(self).__name__, model)
        self._model = model
        self._forget()
        check_count("num_levels", num_levels)
        if num_levels < 2:
            raise ValueError(
                "num_levels must be at least 2, or the only level is the largest, got "
                f"{num_levels}. For one level of your choice: noise_levels=[sigma]."
            )
        if noise_levels is not None:
            check_decreasing("noise_levels", noise_levels)
            noise_levels = tuple(float(sigma) for sigma in np.asarray(noise_levels))
        self._num_levels = num_levels
        self._noise_levels = noise_levels
        self._denoised = denoised
        if num_corrections != 0:
            check_count("num_corrections", num_corrections)
            self._default_fields = ("z", "diverging", "correction", "accept_prob")
        self._num_corrections = num_corrections

    def get_potential_fn(self, model_args=(), model_kwargs=None, *, sigma=None):
        """The potential energy of unconstrained values at noise level `sigma` (None: no change)."""
        model = self._coordinates() if sigma is None else self._at(sigma)
        return partial(potential_energy, model, model_args, model_kwargs or {})

    def postprocess_fn(self, model_args, model_kwargs):
        # Through the model itself: supports and transforms may depend on other sites.
        return partial(self._site_values, model_args, model_kwargs or {}, True)

    def get_constrain_fn(self, model_args=(), model_kwargs=None):
        return partial(self._site_values, model_args, model_kwargs or {}, False)

    def _site_values(self, model_args, model_kwargs, return_deterministic, z):
        model = self._coordinates()
        # Gibbs asks without the values of other blocks, on which no support depends: any will do.
        seeded = seed(model, random.key(0))
        values = constrain_fn(
            seeded, model_args, model_kwargs, z, return_deterministic=return_deterministic
        )
        return values | model.values

    def _coordinates(self) -> prior_coordinates:
        """The model with its priors in coordinates of their own."""
        return prior_coordinates(self._model, type(self).__name__, self._by_denoiser)

    def _at(self, sigma: Any) -> Callable:
        return noise_level(self._coordinates(), sigma=sigma, denoised=self._denoised)

    def _posterior(self, z: dict[str, Array], model_args: tuple, model_kwargs: dict) -> FlatModel:
        """The model with its priors in coordinates of their own, as functions of one vector."""
        return FlatModel(self._coordinates(), model_args, model_kwargs, like=z)

    def _look(self, key: Array, model_args: tuple, model_kwargs: dict):
        # The priors clip this level to the largest of their process, where a draw is mere noise.
        model = self._at(LARGEST_LEVEL)
        return LatentSites.of(model, key, init_to_sample, model_args, model_kwargs)

    def _start(self, key: Array, model_args: tuple, model_kwargs: dict) -> dict[str, Array]:
        sites, values = self._look(key, model_args, model_kwargs)
        return sites.unconstrained(values)

    def _forget(self) -> None:
        super()._forget()
        self._sites = LatentSites()

    def _first_values(self, rng_key, init_params, model_args, model_kwargs):
        single_chain = is_prng_key(rng_key)
        single_key = rng_key if single_chain else rng_key[0]
        sites, values = self._look(single_key, model_args, model_kwargs)
        name = type(self).__name__
        sites.check_continuous(name, enumerates=False)
        check_normalizers(self._coordinates(), model_args, model_kwargs, values)
        check_supports(name, self._coordinates(), model_args, model_kwargs, values)
        if not sites.processes:
            raise ValueError(
                f"{name} needs a noise-conditional prior, but the latent sites "
                f"{sorted(sites.transforms)} have none. Use a DiffusionPrior for one of them, or "
                "another kernel: MALA(model), ULA(model) or numpyro.infer.NUTS(model)."
                + self._about_mixtures(single_key, model_args, model_kwargs)
            )
        self._sites = sites
        self._check_model(model_args, model_kwargs, values)
        start = partial(self._start, model_args=model_args, model_kwargs=model_kwargs)
        z = jax.jit(start if single_chain else jax.vmap(start))(rng_key)
        if init_params is not None:
            z = given_values(init_params, z, self._sites, model_kwargs)
        return z

    def _about_mixtures(self, key: Array, model_args: tuple, model_kwargs: dict) -> str:
        """What to add where a model has mixtures of noise-conditional priors alone."""
        sites = trace(seed(self._coordinates(), key)).get_trace(*model_args, **model_kwargs)
        names = [
            name
            for name, site in sites.items()
            if site["type"] == "sample" and mixed_priors(site["fn"])
        ]
        if not names:
            return ""
        return (
            f" The mixtures {names} of noise-conditional priors have no denoiser of their own; "
            "those kernels, and TemperedSMC(model), take them by their density."
        )

    def _check_model(self, model_args: tuple, model_kwargs: dict, values: dict) -> None:
        """Raise if the kernel and the priors of the model do not fit."""
        name, last = type(self).__name__, self._levels()[-1]
        model, at_values = self._coordinates(), init_to_value(values=values)
        if self._num_corrections:
            check_corrected(name, model, model_args, model_kwargs, values)
        sites, _ = LatentSites.of(model, random.key(0), at_values, model_args, model_kwargs)
        of_sites = {**self._sites.transforms, **model.transforms}
        self._sites = self._sites._replace(transforms=of_sites)
        for site, level in sites.levels.items():
            end = max(last, sites.processes[site].sigma_min)
            if is_concrete(level) and level > end * (1 + 1e-6):
                raise ValueError(
                    f"{name} would draw {site!r} at noise level {end:.4g}, but its prior in the "
                    f"model is at {level:.4g}. Write the prior without .at(sigma), or use "
                    "TemperedSMC(model), which draws it as it is."
                )
        if not self._by_denoiser:
            return
        first, *others = self._sites.processes.values()
        if any(process != first for process in others):
            raise ValueError(
                f"{name} needs one process for all noise-conditional priors, got "
                f"{dict(self._sites.processes)}. AnnealedLangevin(model) takes them as they are."
            )
        model, priors = noise_level(model, sigma=LARGEST_LEVEL), self._sites.processes
        check_independent_priors(name, model, model_args, model_kwargs, values, priors)

    @property
    def _process(self) -> Any:
        """The noise process of all priors, where they have one."""
        return next(iter(self._sites.processes.values()))

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

    def _groups(self, z: dict[str, Array]) -> SiteGroups:
        """The groups of the entries: the noise-conditional priors, and each other site."""
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
        return SiteGroups(index, np.array(transformed))

    def _energy_at_start(self, z: dict[str, Array], model_args: tuple, model_kwargs: dict) -> Array:
        """
        The potential energy, which must be finite, without the priors: of these the kernel wants
        scores alone, where the log density of a picture is a thousand evaluations of its network.
        """
        model = without_priors(self._at(LARGEST_LEVEL))
        return potential_energy(model, model_args, model_kwargs, z)

    def _corrected(
        self, draw: Draw, groups: SiteGroups, model_args: tuple, model_kwargs: dict
    ) -> Draw:
        """After steps that leave the posterior of the model as it is, if there are to be any."""
        if not self._num_corrections:
            return draw
        rng_key, key = random.split(draw.rng_key)
        x, unravel = ravel_pytree(draw.z)
        potential_fn = self.get_potential_fn(model_args, model_kwargs)
        found = corrected(
            key, x, lambda x: potential_fn(unravel(x)), groups.index, self._num_corrections
        )
        return draw._replace(
            z=unravel(found.x),
            num_grad_evals=draw.num_grad_evals + found.num_grad_evals,
            rng_key=rng_key,
            correction=found.rise,
            accept_prob=found.accept_prob,
        )

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        # Within Gibbs the other blocks learn from the draws of a warmup.
        self._num_warmup = 0 if GIBBS_SITES_KWARG in model_kwargs else num_warmup
        state = AnnealedState(jnp.array(0), z, jnp.array(False), jnp.zeros((), int), rng_key)
        if self._num_corrections:
            dtype = ravel_pytree(z)[0].dtype
            state = state._replace(correction=jnp.zeros((), dtype), accept_prob=jnp.ones((), dtype))
        return state, (self._energy_at_start(z, model_args, model_kwargs),)
