# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Annealed importance sampling, up from independent sites and back down from the target."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.typing import ArrayLike

from numpyro_scores._validation import check_count, is_concrete
from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.normalizers._base import LogNormalizer
from numpyro_scores.normalizers._bounds import log_mean, log_mean_bound
from numpyro_scores.normalizers._path import (
    Blocks,
    Path,
    check_chains,
    checked_key,
    path_to,
    points_with_hidden_units,
)

FAILURE = 0.025  # of each end of the bracket


@dataclass(frozen=True, eq=False)
class AnnealedImportanceSampling:
    r"""
    :math:`\log Z` by annealed importance sampling (Neal 2001; for restricted Boltzmann machines
    Salakhutdinov & Murray 2008, "On the quantitative analysis of deep belief networks"): chains
    start from independent sites, of known :math:`Z_0`, and move by one sweep of block Gibbs at each
    :math:`\beta_k = k / n` on the way to the target. Their weights

    .. math:: w = \prod_{k = 1}^{n} \frac{\tilde p_{\beta_k}(y_{k - 1})}
        {\tilde p_{\beta_{k - 1}}(y_{k - 1})}, \qquad E[w] = Z / Z_0,

    are those of the marginal distribution with the largest block summed out (of a machine, its
    larger side), which vary less. The estimate is :math:`\log Z_0 + \log \bar w`, its standard
    error that of the delta method.

    The **bracket** is bidirectional (Grosse, Ghahramani & Adams 2015, "Sandwiching the marginal
    likelihood using bidirectional Monte Carlo"; Burda, Grosse & Salakhutdinov 2015, "Accurate and
    conservative estimates of MRF log-likelihood using reverse annealing").

    - `lower` exceeds :math:`\log Z` with a probability of at most 2.5%, whatever the distribution
      and the number of chains and levels.
    - `upper` is the same bound for :math:`1 / Z`, from chains that go back from the target to
      independent sites. It falls short with a probability of at most 2.5% *if* `samples` are
      independent draws of the target, as simulated data are. By default they are not: the chains on
      the way up are resampled by weight and make `num_levels` sweeps more. Such draws miss what the
      chains never found, and then `upper` is a bound of the :math:`Z` of what they did find.

    That few levels or slow mixing make the bracket wide is how it tells. An end is a distance of
    about three standard errors from its estimate, and at least some :math:`6 / n` from that of
    `n` chains.

    The time is that of three times `num_levels` sweeps of all chains and twice as many evaluations
    of the log weight, the memory a few times `num_chains` points. The variance of a log weight is
    roughly the number of sites over the number of levels, and more near a phase transition.

    :param num_chains: number of chains, at least 2.
    :param num_levels: :math:`n`.
    :param base: a distribution of the same kind and shapes, whose fields (biases) are those of the
        independent sites at the start; its couplings (weights) are not used. By default the
        fields of the target. For a machine trained on `data` of zeros and ones, the base rates
        :math:`\log(m / (1 - m))`, with the mean `m` of the data kept away from 0 and 1.
    :param samples: draws of the distribution, shape `(m, *event_shape)`, each the start of one
        chain on the way back, in place of `num_chains` of them.
    :raises ValueError: for fewer than two chains or no level.
    """

    num_chains: int = 128
    num_levels: int = 1000
    base: BoltzmannDistribution | None = None
    samples: ArrayLike | None = None

    _upward: ClassVar[bool] = True  # whether the estimate is from the way up

    def __post_init__(self):
        check_chains(self.num_chains)
        check_count("num_levels", self.num_levels)

    def __call__(
        self, distribution: BoltzmannDistribution, key: Array | None = None
    ) -> LogNormalizer:
        """
        :param key: a random key.
        :raises ValueError: without a key, for a distribution without blocks, a base of another
            kind, or samples of another shape or outside of the support.
        :raises TypeError: if the result is differentiated.
        """
        name = type(self).__name__
        key, key_hidden = random.split(checked_key(key, name))
        path = path_to(distribution, self.base, name)
        samples = self.samples
        if samples is not None:
            samples = _checked_samples(distribution, samples)
            samples = points_with_hidden_units(distribution, samples, key_hidden)
        return _bracket(path, samples, key, self.num_chains, self.num_levels, self._upward)


@dataclass(frozen=True, eq=False)
class ReverseAnnealedImportanceSampling(AnnealedImportanceSampling):
    r"""
    The same as `AnnealedImportanceSampling`, bracket included, with the estimate from the way back:
    chains start from `samples` of the target and end at independent sites, and the mean of their
    weights is :math:`Z_0 / Z` (Burda, Grosse & Salakhutdinov 2015). From independent draws of the
    target, such as simulated data, the estimate is on average too high, by as much as the number of
    chains is too low, and it knows of every mode that the draws know of. From draws that miss a
    part of the target it is too low, which nothing tells.

    Arguments and errors are those of `AnnealedImportanceSampling`.
    """

    _upward: ClassVar[bool] = False


@partial(jax.jit, static_argnums=(3, 4, 5))
def _bracket(
    path: Path, samples: Array | None, key: Array, num_chains: int, num_levels: int, upward: bool
) -> LogNormalizer:
    key_base, key_up, key_samples, key_down = random.split(key, 4)
    betas = jnp.arange(num_levels + 1) / num_levels
    blocks = path.base_blocks(key_base, num_chains)
    log_z_base = path.base_log_normalizer(blocks)
    blocks, up = path.anneal(betas, key_up, blocks)
    if samples is None:
        blocks = _approximate_samples(path, key_samples, blocks, up, num_levels)
    else:
        blocks = tuple(
            x.astype(b.dtype) for x, b in zip(path.end.split(samples), blocks, strict=True)
        )
    _, down = path.anneal(betas[::-1], key_down, blocks)

    estimate, standard_error = log_mean(up if upward else down)
    return LogNormalizer(
        estimate=log_z_base + (estimate if upward else -estimate),
        standard_error=standard_error,
        lower=log_z_base + log_mean_bound(up, FAILURE),
        upper=log_z_base - log_mean_bound(down, FAILURE),
    )


def _approximate_samples(
    path: Path, key: Array, blocks: Blocks, log_weights: Array, num_sweeps: int
) -> Blocks:
    """Systematic resampling by weight, and then sweeps at the target."""
    key_resample, key_sweeps = random.split(key)
    n = len(log_weights)
    points = (jnp.arange(n) + random.uniform(key_resample)) / n
    chosen = jnp.searchsorted(jnp.cumsum(jax.nn.softmax(log_weights)), points)
    blocks = tuple(block[jnp.minimum(chosen, n - 1)] for block in blocks)
    keys = random.split(key_sweeps, num_sweeps)
    return lax.scan(lambda blocks, key: (path.sweep(1.0, key, blocks), None), blocks, keys)[0]


def _checked_samples(distribution: BoltzmannDistribution, samples: ArrayLike) -> Array:
    samples = jnp.asarray(samples)
    if samples.shape[1:] != distribution.event_shape or samples.ndim == 0 or len(samples) < 2:
        raise ValueError(
            "samples must be two or more points of the distribution, shape "
            f"(m, {', '.join(map(str, distribution.event_shape))}), got shape {samples.shape}."
        )
    if is_concrete(samples) and not jnp.all(distribution.support(samples)):
        raise ValueError(
            f"samples must be points of the distribution's support, {distribution.support}."
        )
    return samples
