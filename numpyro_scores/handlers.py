# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Effect handlers: how a kernel changes a model without the user touching it."""

from collections.abc import Callable
from typing import Any

import numpyro.distributions as dist
from jax import Array
from numpyro.primitives import Messenger

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


def at_noise_level(fn: dist.Distribution, sigma: Any) -> dist.Distribution:
    """`fn` with the noise-conditional distribution beneath it at noise level `sigma`."""
    return with_base(fn, lambda prior: prior.at(sigma))


class noise_level(Messenger):
    r"""
    Run a model with each latent noise-conditional prior :math:`p` at a noise level:
    :math:`p_\sigma = p * N(0, \sigma^2 I)` in its place.

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

    def _applies(self, msg: dict[str, Any]) -> bool:
        return (
            msg["type"] == "sample"
            and not msg["is_observed"]
            and noise_conditional_prior(msg["fn"]) is not None
        )

    def process_message(self, msg: dict[str, Any]) -> None:
        if self._applies(msg):
            msg["fn"] = at_noise_level(msg["fn"], self.sigma)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        # The trace, outside, has recorded the noisy value by now.
        if self.denoised and self._applies(msg):
            msg["value"] = self._denoise(msg["fn"], msg["value"])

    @staticmethod
    def _denoise(fn: dist.Distribution, value: Array) -> Array:
        return noise_conditional_prior(fn).denoise(value)
