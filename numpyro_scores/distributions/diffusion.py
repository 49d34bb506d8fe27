# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A prior that is known at every noise level, by a denoiser or by an energy: a diffusion model."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.typing import ArrayLike

from numpyro_scores._callables import Denoiser, NoiseEnergy, as_pytree
from numpyro_scores._compile import compiled
from numpyro_scores._validation import as_sample_shape, check_key, check_positive, is_concrete
from numpyro_scores.denoisers.of_energy import as_denoiser, energy_of
from numpyro_scores.densities.adaptive_flow import AdaptiveProbabilityFlow
from numpyro_scores.densities.flow import ProbabilityFlow
from numpyro_scores.densities.noise_path import NoisePathIntegral, default_trace, mean_at_sigma_max
from numpyro_scores.densities.traces import HutchinsonTrace
from numpyro_scores.densities.with_score import density_with_score
from numpyro_scores.distributions._base import PointwiseDistribution
from numpyro_scores.distributions._diffusion_rules import (
    checked_normalizer,
    checked_rule,
    checked_sampler,
    log_density_by,
    score_by,
)
from numpyro_scores.distributions._mapped import check_batch_size, map_with_keys
from numpyro_scores.processes import TimedProcess
from numpyro_scores.processes._base import check_process
from numpyro_scores.samplers import Multistep, PriorSampler


class LogLikelihood(NamedTuple):
    """
    - **nats** - the log density of each point, shape `batch_shape`.
    - **bits_per_dim** - its negative in bits, divided by the number of entries of a point.
    """

    nats: Array
    bits_per_dim: Array


class DiffusionPrior(PointwiseDistribution):
    r"""
    The density :math:`p_\sigma = p * N(0, \sigma^2 I)` of data with noise, for every noise level
    :math:`\sigma` of a process, from one function of a point and its noise level:

    * a denoiser :math:`D(x, \sigma) = E[x_0 \mid x_0 + \sigma z = x]`, told by its output of the
      shape of `x`. The score is :math:`(D(x, \sigma) - x) / \sigma^2` (Tweedie's formula; Robbins
      1956); `log_prob` is **normalised**, its value comes from an integral, `log_density`, of many
      evaluations, and its gradient is the score;
    * an energy :math:`U(x, \sigma) = -\log p_\sigma(x)`, told by its output of shape `()`.
      `log_prob` is :math:`-U`, **one evaluation**, and its exact gradient the score; the denoiser
      is :math:`x - \sigma^2 \nabla U`. It is normalised as far as the energy is, which nobody
      knows of a learned one: it counts as known up to a constant, unless `log_normalizer` is given.

    As a distribution it is the density at `sigma`, by default the smallest level of the process,
    where the noise does not matter; `prior.at(sigma)` is that of another level.

    :param denoiser: `denoiser(x, sigma) -> x.shape`, or `energy(x, sigma) -> ()`, for one unbatched
        point: a plain function or any callable pytree, such as a Flax module.
    :param process: the noise process that it was trained for.
    :param event_shape: shape of one point.
    :param log_density: how `log_prob` finds its value: :class:`~numpyro_scores.NoisePathIntegral`,
        the default of a denoiser (a batch of noise levels, right everywhere if the denoiser is), or
        :class:`~numpyro_scores.ProbabilityFlow` (step by step, through points that the network was
        trained on). None for an energy, unless its density is to be that of an integral, too.
    :param sigma: the noise level of this density, clipped to the levels of the process.
    :param sampler: how :meth:`sample` draws; by default along the probability flow, with 40
        evaluations of the denoiser.
    :param log_normalizer: :math:`\log Z` of an energy, subtracted from :math:`-U`: a number, that
        of all levels, or a callable pytree `log_normalizer(sigma) -> ()`, such as what
        :func:`~numpyro_scores.diagnostics.level_normalizers` returns.
    :raises ValueError: if the function maps a point neither to its own shape nor to a number, or
        `log_normalizer` is given and the density is that of an integral.
    :raises TypeError: if `process`, `log_density` or `sampler` is none.
    """

    pytree_data_fields = ("denoiser", "sigma", "_log_normalizer")
    pytree_aux_fields = ("process", "log_density", "sampler")
    untrained_fields = ("sigma", "_log_normalizer")

    def __init__(
        self,
        denoiser: Denoiser | NoiseEnergy,
        process: TimedProcess,
        event_shape: Sequence[int] | int,
        *,
        log_density: NoisePathIntegral | ProbabilityFlow | AdaptiveProbabilityFlow | None = None,
        sigma: Any = None,
        sampler: PriorSampler = Multistep(),
        log_normalizer: Any = None,
        validate_args: bool | None = None,
    ):
        function = as_pytree("denoiser", denoiser)
        check_process(process)
        self.process = process
        self.sampler = checked_sampler(sampler)
        super().__init__(event_shape, validate_args=validate_args)
        self.sigma = self._within_process(process.sigma_min if sigma is None else sigma)
        point = jnp.zeros(self.event_shape)
        self.denoiser = as_denoiser("denoiser", function, point, self.sigma)
        if log_density is not None:
            log_density = checked_rule("log_density", log_density)
        elif self.energy is None:
            log_density = NoisePathIntegral()
        self.log_density = log_density
        self._log_normalizer = checked_normalizer(log_normalizer, self.has_energy, self.sigma)

    @property
    def energy(self) -> NoiseEnergy | None:
        """The energy that this prior was made of, or None."""
        return energy_of(self.denoiser)

    @property
    def has_energy(self) -> bool:
        """Whether `log_prob` is an energy: one evaluation, of which the score is the gradient."""
        return self.energy is not None and self.log_density is None

    @property
    def log_normalizer(self) -> Any:
        """
        :math:`\\log Z` of the energy at this noise level, or None where nobody knows it. A density
        that an integral makes, which is normalised, has no such attribute.
        """
        if not self.has_energy:
            raise AttributeError(f"{type(self).__name__} of a denoiser is normalised.")
        if callable(self._log_normalizer):
            return self._log_normalizer(self.sigma)
        return self._log_normalizer

    def at(self, sigma: Any) -> "DiffusionPrior":
        """The density at another noise level, clipped to those of the process."""
        prior = copy.copy(self)
        prior.sigma = self._within_process(sigma)
        return prior

    def denoise(self, x: Array, sigma: Any = None) -> Array:
        """
        :math:`E[x_0 \\mid x_\\sigma = x]`.

        :param x: points, shape `(*batch_shape, *event_shape)`.
        :param sigma: noise level; that of this density by default.
        :return: the shape of `x`.
        """
        x = self._checked("denoise", x)
        return self._of_points(DiffusionPrior._denoised, x, self._level(sigma))

    def _denoised(self, x: Array, sigma: Any) -> Array:
        return self.denoiser(x, sigma)

    def score(self, x: Array, sigma: Any = None) -> Array:
        """
        :math:`\\nabla \\log p_\\sigma(x) = (D(x, \\sigma) - x) / \\sigma^2`, of an energy
        :math:`-\\nabla U`; arguments as of :meth:`denoise`.
        """
        x = self._checked("score", x)
        return self._of_points(DiffusionPrior._score_at, x, self._level(sigma))

    def _score_at(self, x: Array, sigma: Any) -> Array:
        return score_by((self.denoiser, sigma), x)

    def sample(
        self,
        key: Array | None,
        sample_shape: tuple[int, ...] = (),
        sampler: PriorSampler | None = None,
        *,
        batch_size: int | None = None,
    ) -> Array:
        r"""
        Draws of the density at `sigma` by the `sampler` (by default the own one) from
        :math:`N(m, \sigma_{\max}^2 I)`. The start leaves out the covariance `C` of the data: a
        direction of variance `c` comes out with :math:`c \sigma_{\max}^2 / (c +
        \sigma_{\max}^2)`, so choose `sigma_max` well above the data's largest standard deviation.

        :param key: a random key.
        :param sample_shape: of the draws.
        :param sampler: how to draw this time.
        :param batch_size: how many draws are made at a time; all unless given, in memory for them.
        """
        key = check_key("DiffusionPrior.sample", key)
        check_batch_size(batch_size)
        sampler = self.sampler if sampler is None else checked_sampler(sampler)
        at_sigma_max = is_concrete(self.sigma) and bool(self.sigma >= self.process.sigma_max)
        return compiled(
            DiffusionPrior._draws,
            self,
            key,
            sample_shape=as_sample_shape(sample_shape),
            sampler=None if at_sigma_max else sampler,
            batch_size=batch_size,
        )

    def _draws(
        self, key: Array, sample_shape: Any, sampler: PriorSampler | None, batch_size: int | None
    ) -> Array:
        """Draws by the reverse process, or with `sampler=None` its starts."""
        key_start, key_steps = random.split(key)
        sigma_max = jnp.asarray(self.process.sigma_max, float)
        mean = mean_at_sigma_max(self.denoiser, jnp.zeros(self.event_shape), sigma_max)
        shape = (*sample_shape, *self.event_shape)
        start = jnp.broadcast_to(mean, shape) + sigma_max * random.normal(key_start, shape)
        if sampler is None:
            return start

        def reverse(x, key):
            return sampler(self.denoiser, self.process, x, self.sigma, key=key)

        return map_with_keys(reverse, start, key_steps, sample_shape, batch_size)

    def log_likelihood(
        self,
        x: ArrayLike,
        *,
        key: Array | None = None,
        flow: ProbabilityFlow | AdaptiveProbabilityFlow = ProbabilityFlow(),
        batch_size: int | None = None,
    ) -> LogLikelihood:
        r"""
        The log density along the probability flow, the number that papers report; of an energy, too
        (its own value is `log_prob`, and that of a learned one another number). The bits are of
        the data as the prior has them: where pixels were divided by `a`, those of the pixels
        themselves are :math:`\log_2 a` more.

        :param x: points, shape `(*batch_shape, *event_shape)`.
        :param key: where the trace is estimated (above 256 dimensions, or by a `HutchinsonTrace`),
            each point gets probes of its own from this key, and the mean over many points is
            nearly unbiased; without a key all have the same.
        :param flow: how the flow is followed.
        :param batch_size: how many points are followed at a time; all unless given.
        :return: nats and bits per dimension, each of shape `batch_shape`.
        """
        x = self._checked("log_likelihood", x)
        flow = checked_rule("flow", flow)
        if key is not None:
            key = check_key("DiffusionPrior.log_likelihood", key)
        check_batch_size(batch_size)
        found = compiled(DiffusionPrior._nats, self, x, key, flow=flow, batch_size=batch_size)
        return LogLikelihood(found, -found / (math.prod(self.event_shape) * math.log(2)))

    def _nats(self, x: Array, key: Array | None, flow: Any, batch_size: int | None) -> Array:
        trace = flow.trace or default_trace(math.prod(self.event_shape))

        def nats(x, key):
            rule = flow
            if key is not None and isinstance(trace, HutchinsonTrace):
                seed: Any = random.bits(key)
                rule = replace(flow, trace=replace(trace, seed=seed))
            return log_density_by(rule, self.process.sigma_max, (self.denoiser, self.sigma), x)

        batch_shape = x.shape[: x.ndim - len(self.event_shape)]
        return map_with_keys(nats, x, key, batch_shape, batch_size)

    def _level(self, sigma: Any) -> Any:
        if sigma is None:
            return self.sigma
        check_positive("sigma", sigma)
        return sigma

    def _within_process(self, sigma: Any) -> Array:
        check_positive("sigma", sigma)
        # A known level stays known under jit (NumPy), so that `sample` can tell the largest one.
        xp = np if is_concrete(sigma) else jnp
        sigma = xp.asarray(sigma, jnp.result_type(float))
        level: Any = xp.clip(sigma, self.process.sigma_min, self.process.sigma_max)
        return level

    def _log_density(self, x: Array) -> Array:
        energy = self.energy
        if energy is not None and self.has_energy:
            value = -energy(x, jax.lax.convert_element_type(self.sigma, x.dtype))
            return value if self.log_normalizer is None else value - self.log_normalizer
        value = partial(log_density_by, self.log_density, self.process.sigma_max)
        return density_with_score(value, score_by, (self.denoiser, self.sigma), x)
