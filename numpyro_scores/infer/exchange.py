# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Posteriors of the parameters of an energy, whose normaliser is not known."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, lax, random
from numpyro.distributions import biject_to
from numpyro.handlers import block
from numpyro.infer.hmc_util import HMCAdaptState
from numpyro.infer.initialization import init_to_uniform
from numpyro.util import identity

from numpyro_scores._validation import as_number, check_count, check_positive, is_concrete
from numpyro_scores.distributions._short_runs import as_sampler, checked_kernel, one_draw
from numpyro_scores.infer.adaptation import Adaptation, accept_or_stay
from numpyro_scores.infer.discrete.block_gibbs import BlockGibbs
from numpyro_scores.infer.guards import latent_normalizers, sites_at
from numpyro_scores.infer.kernel import ChainKernel, by_position
from numpyro_scores.infer.langevin.base import LangevinKernel
from numpyro_scores.infer.langevin.targets import flat_root, unwhiten


class ExchangeState(NamedTuple):
    """
    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values, a pytree.
    - **accept_prob** - mean acceptance probability of the proposals of this draw.
    - **mean_accept_prob** - its mean over the draws of this phase.
    - **diverging** - whether a proposal of this draw was not finite, and so rejected.
    - **adapt_state** - NumPyro's: `step_size`, `inverse_mass_matrix`, ...
    - **rng_key** - key of the next draw.
    """

    i: Array
    z: Any
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    adapt_state: HMCAdaptState
    rng_key: Array

    __getitem__ = by_position

    @property
    def step_size(self) -> Array:
        """As of kernels without a Metropolis test, for `extra_fields`."""
        return self.adapt_state.step_size


class ExchangeKernel(LangevinKernel):
    r"""
    The posterior of continuous parameters :math:`\theta` of unnormalised densities
    :math:`f_\theta(x) / Z(\theta)`, without :math:`Z(\theta)`: the exchange algorithm (Murray,
    Ghahramani & MacKay 2006, "MCMC for doubly-intractable distributions"). A proposal
    :math:`\theta'` of a random walk comes with an auxiliary draw :math:`w \sim f_{\theta'} /
    Z(\theta')`, and is accepted with probability

    .. math:: \min\Big(1, \frac{p(\theta') f_{\theta'}(x)}{p(\theta) f_\theta(x)}
        \frac{f_\theta(w)}{f_{\theta'}(w)}\Big),

    in which the normalisers cancel. Where `numpyro.handlers.scale` makes a site count :math:`n`
    times, it takes `n` auxiliary draws. `x` is observed, or a block of its own in
    `numpyro.infer.Gibbs`; then mark its site, `sample("x", fn, infer={"exchange": True})`, so that
    the kernel of `x` knows that its normaliser is taken care of.

    The posterior is exact if `w` is an exact draw. Here `w` is where a chain of `sampler` ends that
    starts at `x` (Liang 2010, "A double Metropolis-Hastings sampler"): raise its number of steps
    until the posterior does not move. Near a critical point a single-site chain needs very many.

    :param model: a NumPyro model.
    :param sampler: makes the kernel of the auxiliary draws from a model, with hashable arguments.
        The default is `functools.partial(BlockGibbs, num_steps=100)`.
    :param step_size: of the random walk in unconstrained space, at the start of warmup.
    :param num_steps: proposals, each with an auxiliary draw, in one draw.
    :param adapt_step_size: adapt the step size in warmup to `target_accept_prob`.
    :param adapt_mass_matrix: adapt the covariance of the random walk in warmup.
    :param dense_mass: a full covariance, or else a diagonal one; or a list of blocks of sites, as
        of :class:`~numpyro_scores.MALA`.
    :param target_accept_prob: acceptance probability that the step size is adapted to.
    :raises ValueError: by `init`, if an unnormalised density is of a site that this kernel updates.
    """

    _why_not_swapped = (
        "a swap compares densities, and their normalisers are not known. Give the distribution its "
        "log_normalizer, and wrap MALA."
    )
    _shared_fields = ("i",)

    def __init__(
        self,
        model: Callable,
        *,
        sampler: Callable[..., Any] | None = None,
        step_size: float = 1.0,
        num_steps: int = 1,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool | list = False,
        target_accept_prob: float = 0.4,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, init_strategy=init_strategy)
        check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        default = partial(BlockGibbs, num_steps=100)
        self._make_kernel = as_sampler(default if sampler is None else sampler, "BlockGibbs")
        self._step_size = step_size
        self._num_steps = num_steps
        self._adaptation = Adaptation.of(
            adapt_step_size, adapt_mass_matrix, dense_mass, target_accept_prob=target_accept_prob
        )
        self._num_warmup = 0
        self._unnormalized: tuple[str, ...] = ()

    def _check_normalizers(self, model_args, model_kwargs, values):
        assert self._model is not None
        latent = latent_normalizers(self._model, model_args, model_kwargs, values)
        self._unnormalized = tuple(name for name in latent if not latent[name].isdisjoint(values))
        own = [name for name in self._unnormalized if name in values]
        if own:
            raise ValueError(
                f"ExchangeKernel needs the values of {own}, whose normalisers are not known, to "
                "stay while it moves their parameters: give them a block of their own, "
                f"numpyro.infer.Gibbs([(kernel, {own}), (ExchangeKernel(model), None)])."
            )

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        self._num_warmup = num_warmup
        for site in self._densities(z, model_args, model_kwargs).values():
            _num_counts(site)  # raises for what the kernel cannot do
        x, _, potential = self._flat(z, model_args, model_kwargs)
        key_adapt, rng_key = random.split(rng_key)
        adapt = self._adaptation.start(z, key_adapt, num_warmup)
        zero = jnp.zeros((), x.dtype)
        state = ExchangeState(
            i=jnp.array(0),
            z=z,
            accept_prob=zero,
            mean_accept_prob=zero,
            diverging=jnp.array(False),
            adapt_state=adapt(jnp.asarray(self._step_size, x.dtype)),
            rng_key=rng_key,
        )
        return state, (potential(x),)

    def _densities(self, z: Any, model_args: tuple, model_kwargs: dict) -> dict[str, Any]:
        """The sites of unnormalised densities, with their parameters at `z`."""
        assert self._model is not None
        values = self.get_constrain_fn(model_args, model_kwargs)(z)
        sites = sites_at(self._model, model_args, model_kwargs, values)
        return {name: sites[name] for name in self._unnormalized}

    def _auxiliary(self, key: Array, site: Any) -> Array:
        """
        Ends of chains of the site's density that start at the site's value, one for each time that
        its normaliser counts.
        """
        return jax.vmap(partial(self._end_of_chain, site=site))(
            random.split(key, _num_counts(site))
        )

    def _end_of_chain(self, key: Array, site: Any) -> Array:
        fn = site["fn"]
        support = identity if fn.support.is_discrete else biject_to(fn.support)
        start = site["value"] if support is identity else support.inv(site["value"])
        with block():
            kernel = checked_kernel(self._make_kernel(lambda: numpyro.sample("x", fn)))
            return support(one_draw(kernel, key, {"x": start})["x"])

    def _log_ratio(self, at_x: dict, at_y: dict, auxiliary: dict[str, Array]) -> Array:
        """What auxiliary draws of the densities at a proposal `y` add to the logarithm."""
        log_ratio = jnp.zeros(())
        for name, draws in auxiliary.items():
            log_f_x, log_f_y = (jax.vmap(at[name]["fn"].log_prob) for at in (at_x, at_y))
            log_ratio += jnp.sum(log_f_x(draws) - log_f_y(draws))
        return log_ratio

    def _sample_chain(self, state, model_args, model_kwargs):
        x, unravel, potential = self._flat(state.z, model_args, model_kwargs)
        adapt_state = state.adapt_state
        rng_key, key_steps = random.split(state.rng_key)
        root = flat_root(adapt_state.mass_matrix_sqrt_inv, state.z)

        def step(x, key):
            key_proposal, key_auxiliary, key_accept = random.split(key, 3)
            move = random.normal(key_proposal, x.shape, x.dtype)
            y = x + adapt_state.step_size * unwhiten(root, move)
            at_x, at_y = (self._densities(unravel(v), model_args, model_kwargs) for v in (x, y))
            keys = random.split(key_auxiliary, max(1, len(at_y)))
            auxiliary = {
                name: self._auxiliary(key_site, site)
                for key_site, (name, site) in zip(keys, at_y.items(), strict=False)
            }
            log_ratio = potential(x) - potential(y) + self._log_ratio(at_x, at_y, auxiliary)
            uniform = random.uniform(key_accept, dtype=log_ratio.dtype)
            x, accept_prob, diverging = accept_or_stay(uniform, log_ratio, y, x)
            return x, (accept_prob, diverging)

        x, (accept_probs, diverging) = lax.scan(step, x, random.split(key_steps, self._num_steps))
        state = state._replace(z=unravel(x), diverging=jnp.any(diverging), rng_key=rng_key)
        return self._adaptation.after_draw(
            state, self._num_warmup, state.z, accept_prob=jnp.mean(accept_probs)
        )

    refresh = ChainKernel.refresh  # nothing is kept that depends on other sites

    def get_diagnostics_str(self, state):
        return (
            f"step size {state.adapt_state.step_size:.2e}. acc. prob={state.mean_accept_prob:.2f}"
        )


def _num_counts(site: Any) -> int:
    """How often a site's density counts, and its normaliser with it: its `scale`."""
    scale = 1 if site["scale"] is None else site["scale"]
    number = as_number(scale) if is_concrete(scale) else math.nan
    if not (number >= 1 and number == round(number)):
        raise ValueError(
            f"ExchangeKernel draws anew for each time that site {site['name']!r} counts, so that "
            f"its scale must be a positive integer that is known, got {scale!r}. Other powers of a "
            "normaliser need its value: give the distribution its log_normalizer."
        )
    return int(number)
