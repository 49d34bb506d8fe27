# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Effect handlers: how a kernel changes a model without the user touching it."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.distribution import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)
from numpyro.primitives import Messenger

from numpyro_scores._validation import as_number, is_concrete
from numpyro_scores.distributions._wrapped import base_of, with_base


def is_noise_conditional(fn: Any) -> bool:
    """Whether a distribution is noise-conditional: it answers `at(sigma)` and `denoise(x)`."""
    return hasattr(fn, "at") and hasattr(fn, "denoise")


def noise_conditional_prior(fn: dist.Distribution) -> Any:
    """
    The noise-conditional distribution beneath `expand`, `to_event`, `mask` and `plate`, or None.
    """
    base = base_of(fn)
    return base if is_noise_conditional(base) else None


def transformed_prior(fn: dist.Distribution) -> Any:
    """As :func:`noise_conditional_prior`, but also beneath a `TransformedDistribution`; or None."""
    base = base_of(fn)
    if isinstance(base, dist.TransformedDistribution):
        return transformed_prior(base.base_dist)
    return base if is_noise_conditional(base) else None


def at_noise_level(fn: dist.Distribution, sigma: Any) -> dist.Distribution:
    """
    `fn` with the noise-conditional distribution beneath it at noise level `sigma`: a transform maps
    what has the noise.
    """

    def at(base: Any) -> Any:
        if isinstance(base, dist.TransformedDistribution):
            prior = at_noise_level(base.base_dist, sigma)
            return dist.TransformedDistribution(prior, base.transforms)
        return base.at(sigma)

    return with_base(fn, at)


def denoised(fn: Any, x: Any) -> Any:
    r"""
    :math:`E[x_0 \mid x_\sigma = x]` by the noise-conditional distribution beneath `fn`. What is
    masked has no density to denoise by, and stays. Beneath a transform it is the transform of the
    denoised value.
    """
    if isinstance(fn, MaskedDistribution):
        mask = jnp.asarray(fn._mask)
        mask = jnp.reshape(mask, (*mask.shape, *[1] * fn.event_dim))
        return jnp.where(mask, denoised(fn.base_dist, x), x)
    if isinstance(fn, ExpandedDistribution | Independent):
        return denoised(fn.base_dist, x)
    if isinstance(fn, dist.TransformedDistribution):
        transform = dist.transforms.ComposeTransform(fn.transforms)
        return transform(denoised(fn.base_dist, transform.inv(x)))
    return fn.denoise(x)


def latent_prior(msg: dict[str, Any]) -> Any:
    """The noise-conditional distribution of the latent site of a message, or None."""
    if msg["type"] != "sample" or msg["is_observed"]:
        return None
    return noise_conditional_prior(msg["fn"])


class noise_level(Messenger):
    r"""
    Run a model with each latent noise-conditional prior :math:`p` at a noise level:
    :math:`p_\sigma = p * N(0, \sigma^2 I)` in its place, beneath a `TransformedDistribution` too.

    With `denoised=True` the rest of the model sees :math:`E[x_0 \mid x_\sigma]` where it asked for
    the site, so that a likelihood is that of the denoised value (diffusion posterior sampling;
    Chung et al. 2023, equation 11), while the trace keeps :math:`x_\sigma` itself.

    :param fn: a model.
    :param sigma: the noise level, clipped to the levels of each prior's process.
    :param denoised: whether the rest of the model sees the denoised value.
    """

    def __init__(
        self, fn: Callable[..., Any] | None = None, sigma: Any = None, denoised: bool = False
    ):
        self.sigma = sigma
        self.denoised = denoised
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if _is_annealed(msg):
            msg["fn"] = at_noise_level(msg["fn"], self.sigma)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        # The trace, outside, has recorded the noisy value by now.
        if self.denoised and _is_annealed(msg):
            msg["value"] = denoised(msg["fn"], msg["value"])


def _is_annealed(msg: dict[str, Any]) -> bool:
    is_latent = msg["type"] == "sample" and not msg["is_observed"]
    return is_latent and transformed_prior(msg["fn"]) is not None


# NumPyro adds the Jacobian of the transform of a latent site `x` as a factor `_x_log_det`, before
# which a `scope` puts its prefix.
_JACOBIAN = re.compile(r"(?:^|\W)_.+_log_det$")


def is_jacobian(msg: Any) -> bool:
    """Whether a message or a site of a trace is the Jacobian of a latent site's transform."""
    # Messages of control flow and random keys have no name: the type comes first.
    return (
        msg["type"] == "sample"
        and isinstance(base_of(msg["fn"]), dist.Unit)
        and _JACOBIAN.search(msg["name"]) is not None
    )


def is_likelihood(msg: Any) -> bool:
    """Whether a message or a site of a trace is observed, or a factor of the model's own."""
    return msg["type"] == "sample" and msg["is_observed"] and not is_jacobian(msg)


def raise_to_power(msg: dict[str, Any], power: Any) -> None:
    """
    Raise the density of the site of a message to a power. A power of zero leaves it out, where it
    is zero too: `0 * -inf` is not a number.
    """
    if is_concrete(power):
        if power == 1:
            return
        if power == 0:
            msg["fn"] = msg["fn"].mask(False)  # a static mask: nothing of it is computed
            return
    else:
        msg["fn"] = msg["fn"].mask(power != 0)
    msg["scale"] = power if msg["scale"] is None else power * msg["scale"]


class guided(Messenger):
    r"""
    Run a model with the likelihood of chosen sites to the power :math:`\gamma`:
    :math:`p(x)\, p(y \mid x)^\gamma`, so that the score is :math:`\nabla \log p(x) + \gamma \nabla
    \log p(y \mid x)`. Above 1 it trusts the data more than the model does, below 1 less; only 1 is
    Bayes' rule. A site that is conditioned outside of it, `condition(guided(model), data)`, is not
    yet observed inside and keeps its likelihood: write `guided(condition(model, data))`.

    :param fn: a model.
    :param gamma: the power, a finite number that is not negative.
    :param sites: names of observed sites; all by default.
    :raises ValueError: if one of them is not an observed site of the model.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        gamma: Any = 1.0,
        sites: Sequence[str] | None = None,
    ):
        if is_concrete(gamma) and not 0 <= as_number(gamma) < math.inf:
            raise ValueError(f"gamma must be a finite number that is not negative, got {gamma!r}.")
        self.gamma = gamma
        names = [sites] if isinstance(sites, str) else sites
        self.sites = None if names is None else frozenset(names)
        super().__init__(fn)

    def __enter__(self):
        self._missing = set(self.sites or ())
        return super().__enter__()

    def __exit__(self, exc_type, exc_value, traceback):
        super().__exit__(exc_type, exc_value, traceback)
        if exc_type is None and self._missing:
            raise ValueError(f"guided: the model has no observed sites {sorted(self._missing)}.")

    def process_message(self, msg: dict[str, Any]) -> None:
        if is_likelihood(msg) and (self.sites is None or msg["name"] in self.sites):
            self._missing.discard(msg["name"])
            raise_to_power(msg, self.gamma)
