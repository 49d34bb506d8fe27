# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Maximum likelihood of an energy by a bound of its normaliser that is learned with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from numpyro_scores._callables import as_pytree
from numpyro_scores._validation import check_count
from numpyro_scores.objectives._energy import (
    check_continuous,
    check_unnormalised,
    energy_of,
    unnormalised_energy_of,
)
from numpyro_scores.objectives._points import as_float_points, as_points


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class VariationalPair:
    """
    An energy and a density that stands for its own as one module, so that `fit` trains both. Any
    module with these two attributes will do as well.

    :param energy: an energy, `x -> ()`, or an unnormalised continuous distribution.
    :param sampler: a density with reparametrised draws, `sample(key, (n,))` and `log_prob(x)`, such
        as `numpyro_scores.distributions.FlowPrior` of a flow.
    """

    energy: Callable[[Array], Array]
    sampler: Any

    def __call__(self, x: Array) -> Array:
        """The energy of one point."""
        return energy_of(self.energy, x)(x)


@dataclass(frozen=True)
class VariationalEnergy:
    r"""
    Maximum likelihood of an energy with a variational approximation `q` of its density in the
    negative phase. By Gibbs' inequality

    .. math:: \mathbb E_x E(x) - \mathbb E_q E - \mathbb E_q \log q
        \le \mathbb E_x E(x) + \log \int e^{-E},

    the negative log likelihood in nats, with equality where `q` is the density of the energy. The
    value is minimised in the energy, whose gradient is that of contrastive divergence with draws of
    `q` for the ends of chains, and at the same step maximised in `q`, its entropy included, by
    reparametrised draws. As of :class:`AdversarialLikelihood` the value is no measure of progress
    while `q` lags behind: give `q` several times the rate of the energy, let both fall to zero, and
    let Adam have a short memory. On two moons 1e-3 and 3e-3 with `b1=0.5` come within 0.03 nats of
    the best objectives; with 1e-3 for both and `b1=0.9` the energy runs away.

    A lattice, a random field or a Boltzmann machine needs no pair: with a `normalizer`, such as
    `numpyro_scores.MeanFieldBound()` or `numpyro_scores.TreeReweightedBound()`, the module is the
    distribution, and the loss is its mean energy plus the bound of :math:`\log Z`. That from above
    is an upper bound of the negative log likelihood, and safe to minimise; that from below may be
    lowered by an energy which it fits badly.

    :param num_draws: draws of `q` in a step; as many as there are points unless given.
    :param normalizer: of the module, `normalizer(module)` with an entry `estimate`; differentiable.
    """

    num_draws: int | None = None
    normalizer: Callable[[Any], Any] | None = None

    def __post_init__(self):
        if self.num_draws is not None:
            check_count("num_draws", self.num_draws)

    def __call__(self, module: Any, x: Array, *, key: Array) -> Array:
        """
        :param module: a :class:`VariationalPair`; with a `normalizer`, a distribution.
        :param x: points, shape `(n, *event_shape)`.
        :param key: key of the draws.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch, the module has no energy and sampler, or the draws
            of the sampler are not differentiable.
        """
        if self.normalizer is not None:
            x = as_points(x)
            energy = unnormalised_energy_of(module, x[0])
            return jnp.mean(jax.vmap(energy)(x)) + self.normalizer(module).estimate
        x = as_float_points(x)
        energy, sampler = _parts(module, x)
        num_draws = len(x) if self.num_draws is None else self.num_draws
        drawn = sampler.sample(key, (num_draws,))
        if drawn.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"The sampler must draw points of shape {x.shape[1:]}, got {drawn.shape[1:]}."
            )
        fixed = energy_of(lax.stop_gradient(as_pytree("energy", module.energy)), x[0])
        contrast = jnp.mean(jax.vmap(energy)(x)) - jnp.mean(
            jax.vmap(energy)(lax.stop_gradient(drawn))
        )
        log_q = jnp.mean(sampler.log_prob(drawn))
        # Down in q, where the value goes up, with the energy held as it is.
        free = jnp.mean(jax.vmap(fixed)(drawn)) + log_q
        return contrast - lax.stop_gradient(log_q) + free - lax.stop_gradient(free)


def _parts(module: Any, x: Array) -> tuple[Callable[[Array], Array], Any]:
    sampler = getattr(module, "sampler", None)
    if not hasattr(module, "energy") or not hasattr(sampler, "log_prob"):
        raise ValueError(
            f"{type(module).__name__} has no energy and no sampler with a log_prob: give a "
            "VariationalPair(energy, sampler), or a normalizer of the module, such as "
            "VariationalEnergy(normalizer=numpyro_scores.MeanFieldBound())."
        )
    if not getattr(sampler, "has_rsample", True):
        raise ValueError(
            f"The sampler {type(sampler).__name__} has draws that are not differentiable "
            "(has_rsample is False), without which the gradient of its entropy is wrong. Take a "
            "flow, FlowPrior(flow), or an AutoregressivePrior of Normal entries."
        )
    check_continuous(module.energy)
    check_unnormalised(module.energy)
    return energy_of(module.energy, x[0]), sampler
