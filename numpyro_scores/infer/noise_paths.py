# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Paths between the noise levels of diffusion priors, for replicas that swap without a density.

Two replicas at the noise levels :math:`\sigma_i` and :math:`\sigma_j` have the densities

.. math:: \pi_k(x, \theta) \propto p_{\sigma_k}(x)\, e^{-E_k(x, \theta)},

where `E` is all but the priors: the likelihood, other sites :math:`\theta`. The probability flow
:math:`\Phi_{ij}` carries :math:`p_{\sigma_i}` to :math:`p_{\sigma_j}`, so that

.. math:: p_{\sigma_j}(\Phi_{ij}(x))\, |\det \nabla \Phi_{ij}(x)| = p_{\sigma_i}(x):

where each replica goes to the level of the other along it, and takes :math:`\theta` with it, the
densities of the priors and of the two paths cancel, and the swap is accepted by

.. math:: \log \frac{\pi_i(x')\, \pi_j(y')}{\pi_i(x)\, \pi_j(y)}
          \Big|\frac{\partial(x', y')}{\partial(x, y)}\Big|
          = E_i(x) + E_j(y) - E_i(x') - E_j(y'), \qquad x' = \Phi_{ji}(y),\; y' = \Phi_{ij}(x).

This is replica exchange by the weights of a forward and a backward path (accelerated parallel
tempering, Zhang et al. 2025, arXiv 2502.10328; CREPE, He et al. 2025, arXiv 2509.23265), with the
flow of no noise in place of their stochastic paths: its weights are those of the data alone.

A mode in which all replicas start may hold the first for long, however little it weighs: where it
weighs no more at the levels above, no swap carries a replica out of it. So replicas start at draws
of the priors, with the noise of their level, of which the likelihoods pick one.

The likelihood of a level is that of the mean :math:`m(x) = E[v | x]` of the value `v` that the
model sees, and the variances of Normal data are as much larger as the data of `v` differ from those
of `m(x)`, on average over draws of the prior (see :mod:`~numpyro_scores.infer.path_widths`).
Neither is to be right: any `E` will do, and at the level of the priors themselves,
:math:`m(x) = x`, it is the likelihood as it is.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro.handlers import seed
from numpyro.primitives import Messenger

from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.distributions._wrapped import base_of, with_base
from numpyro_scores.handlers import at_noise_level, denoised, latent_prior
from numpyro_scores.infer.diffusion.priors import prior_coordinates
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.parts import diffusion_by_score, wrapped
from numpyro_scores.infer.path_widths import AT_ONCE, Widths, measured_widths
from numpyro_scores.infer.smc.exponential_steps import in_steps
from numpyro_scores.infer.smc.twist import DiffusionTwist
from numpyro_scores.infer.trees import map_rows

NUM_PILOTS = 128  # draws of the priors, for the widths and where replicas start


class LevelOnPath(NamedTuple):
    """
    A rung of a ladder whose replicas swap along paths.

    - **sigma** - its noise level.
    - **widths** - of the Normal data.
    """

    sigma: Array
    widths: Widths


def level_on_path(sigma: Any, widths: Widths | None) -> Any:
    """What a model hears of its rung: a number, unless its replicas swap along paths."""
    return sigma if widths is None else LevelOnPath(sigma, widths)


def wrapper_of(kernel: Any, wrap: Callable) -> Callable:
    """What a kernel's model is wrapped in, by `wrap` and so that no log density is asked for."""
    if not hasattr(kernel, "_segment_integral"):
        return wrap
    # What integrates scores along segments asks for a value only as a constant to count from.
    rule = LineIntegral(num_nodes=1)
    return lambda model: wrapped(diffusion_by_score, wrap(model), quadrature=rule)


def check_priors(model: Any, args: tuple, kwargs: dict) -> None:
    """
    Raise if a noise-conditional prior of a model has another flow than that of its denoiser, or
    is where no handler reaches it: beneath a transform, to a power, inside of `scan`.
    """
    name = "ReplicaExchange over NoiseLevels(num_path_steps=...)"
    seen = prior_coordinates(model, kernel=name, by_denoiser=True)
    seed(seen, random.key(0))(*args, **kwargs)
    for site in seen.transforms:
        raise ValueError(
            f"{name} goes along the flow of a prior, but site {site!r} is a transform of one: "
            "sample the prior itself and transform its value in the model, or leave num_path_steps "
            "out."
        )


class expected_value(Messenger):
    r"""
    Run a model with each latent noise-conditional prior at a noise level, while the rest of it sees
    the mean

    .. math:: m(x) = E[v \mid x] = x + (1 - \sigma_0^2 / \sigma^2)\, (D(x, \sigma) - x)

    of its value `v` at the prior's own level :math:`\sigma_0`, and Normal data are wider.

    :param fn: a model.
    :param level: a noise level, or one with widths.
    """

    def __init__(self, fn: Callable | None = None, level: Any = None):
        is_plain = not isinstance(level, LevelOnPath)
        self.sigma, self.widths = (level, None) if is_plain else level
        self._own: dict[str, Any] = {}
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if latent_prior(msg) is not None:
            self._own[msg["name"]] = msg["fn"]
            msg["fn"] = at_noise_level(msg["fn"], self.sigma)
        elif self.widths is not None and msg["type"] == "sample":
            if msg["name"] in self.widths.variances:
                widened = partial(self.widths.widened, msg["name"], sigma=self.sigma)
                msg["fn"] = with_base(msg["fn"], widened)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        # The trace, outside, has recorded the noisy value by now.
        if msg["type"] == "sample" and msg["name"] in self._own:
            own = self._own.pop(msg["name"])
            noisy = at_noise_level(own, self.sigma)
            kept = (base_of(own).sigma / base_of(noisy).sigma) ** 2
            msg["value"] = kept * msg["value"] + (1 - kept) * denoised(noisy, msg["value"])


class NoisePaths:
    """
    :param model: a NumPyro model.
    :param num_steps: how many steps of the flow lie between two rungs.
    :param args: the arguments of the model.
    :param kwargs: its keyword arguments.
    :param like: unconstrained values by site, of which only the shapes matter.
    """

    def __init__(self, model: Any, num_steps: int, args: tuple, kwargs: dict, like: Any):
        self._num_steps = num_steps
        self._flat = FlatModel(model, args, kwargs, like)
        self._twist = DiffusionTwist(self._flat)

    @property
    def num_evals(self) -> int:
        """Evaluations of the denoiser that a swap takes of a rung, and renewing its kernel."""
        return 3 * self._num_steps + 4

    def energy(self, level: LevelOnPath, z: Any) -> Array:
        """All of the potential energy of a level but the priors: `E`."""
        return self._flat.under(expected_value, level=level).energy(ravel_pytree(z)[0])

    def carried(self, z: Any, sigma: Array, new_sigma: Array) -> Any:
        """Values carried from one noise level to another."""
        x, unravel = ravel_pytree(z)
        return unravel(in_steps(self._twist.flow, x, sigma, new_sigma, self._num_steps))

    def swapped(
        self, z: Any, z_partner: Any, level: LevelOnPath, level_of_partner: LevelOnPath
    ) -> tuple[Any, Array]:
        """
        What a rung would have after the swap, and its share in the logarithm of the ratio by which
        the swap is accepted; the other one is that of its partner.
        """
        proposal = self.carried(z_partner, level_of_partner.sigma, level.sigma)
        return proposal, self.energy(level, z) - self.energy(level, proposal)

    def prepared(
        self, key: Array, z: Any, rungs: Sequence[float], is_given: bool
    ) -> tuple[Widths, Callable[[Array, LevelOnPath], Any]]:
        """
        The widths, and where a replica starts: a function of a key and of its level.

        :param z: unconstrained values, those of all other sites for the draws of the priors.
        :param rungs: noise levels, of which the first and the last count.
        :param is_given: whether all replicas start at `z`, but for the noise of their levels.
        """
        key_pilots, key_widths = random.split(key)
        pilots = self.pilots(key_pilots, z)

        def start(key: Array, level: LevelOnPath) -> Any:
            if is_given:
                return self._noisy(key, z, level.sigma)
            return self.picked(key, pilots, level, z)

        return measured_widths(key_widths, pilots, rungs, self._flat, self._twist), start

    def _noisy(self, key: Array, z: Any, sigma: Array) -> Any:
        x, unravel = ravel_pytree(z)
        return unravel(x + self._noise_scale(x, sigma) * random.normal(key, x.shape, x.dtype))

    def _noise_scale(self, x: Array, sigma: Array) -> Array:
        return jnp.sqrt(jnp.maximum(self._twist.variance(x, sigma), 0))

    def pilots(self, key: Array, z: Any) -> Array:
        """Draws of the diffusion priors, shape `(NUM_PILOTS, d)`, all other sites as in `z`."""
        x = ravel_pytree(z)[0]
        given = {
            name: site["value"]
            for name, site in self._flat.sites(x).items()
            if site["type"] == "sample" and not site["is_observed"] and latent_prior(site) is None
        }
        keys = random.split(key, NUM_PILOTS)
        return map_rows(lambda key: self._flat.draw(key, given), keys, AT_ONCE)

    def picked(self, key: Array, pilots: Array, level: LevelOnPath, z: Any) -> Any:
        """
        One of the pilots with the noise of a level, picked by the likelihood there: a draw of the
        level as their number grows.

        :param z: what starts, with that noise, if the likelihood is zero at all pilots.
        """
        key_noise, key_pick = random.split(key)
        x, unravel = ravel_pytree(z)
        candidates = jnp.vstack([x, pilots])
        noise = random.normal(key_noise, candidates.shape, x.dtype)
        candidates += self._noise_scale(x, level.sigma) * noise
        log_weights = -lax.map(lambda x: self.energy(level, unravel(x)), candidates)
        log_weights = jnp.where(log_weights < jnp.inf, log_weights, -jnp.inf)
        is_lost = jnp.all(log_weights[1:] == -jnp.inf)
        log_weights = log_weights.at[0].set(jnp.where(is_lost, 0, -jnp.inf))
        return unravel(candidates[random.categorical(key_pick, log_weights)])
