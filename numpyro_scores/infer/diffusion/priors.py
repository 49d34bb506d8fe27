# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The noise-conditional priors of a model, each in coordinates in which it is one."""

from collections.abc import Callable
from typing import Any

import numpyro.distributions as dist
from jax import random
from numpyro.distributions import transforms
from numpyro.distributions.distribution import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
    TransformedDistribution,
)
from numpyro.primitives import Messenger

from numpyro_scores.handlers import noise_conditional_prior
from numpyro_scores.infer.parts import is_masked, is_unscaled

# Transforms whose Jacobian is the same everywhere.
AFFINE = (
    transforms.AffineTransform,
    transforms.IdentityTransform,
    transforms.ReshapeTransform,
    transforms.PermuteTransform,
)


class prior_coordinates(Messenger):
    """
    Run a model for kernels that go through noise levels. Where a latent site has a
    `TransformedDistribution` of a noise-conditional prior, such as a picture in other units, the
    trace has the value of the prior itself, and the rest of the model sees it transformed. What
    the kernels would get wrong is refused.

    :param fn: a model.
    :param kernel: the name of the kernel, for what is refused.
    :param by_denoiser: whether the kernel asks the priors for denoised values alone, and not for
        their densities.
    """

    def __init__(
        self,
        fn: Callable[..., Any] | None = None,
        kernel: str = "",
        by_denoiser: bool = False,
    ):
        self.kernel = kernel
        self.by_denoiser = by_denoiser
        self.transforms: dict[str, Any] = {}
        self.values: dict[str, Any] = {}  # transformed ones, as the model sees them
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "prng_key" and msg["value"] is None:
            if msg["kwargs"]["rng_key"] is None:
                msg["value"] = random.key(0)  # as in NumPyro's kernels, whatever the draw
        elif msg["type"] == "plate" and msg["value"] is None:
            raise ValueError(
                f"{self.kernel} sees all data at each draw, but the plate {msg['name']!r} has a "
                f"random subsample of {msg['args'][1]} of {msg['args'][0]}: leave subsample_size "
                "out, or fix the indices by numpyro.handlers.substitute(model, data={"
                f"{msg['name']!r}: indices}}), the likelihood of which is then scaled."
            )
        elif msg["type"] == "sample" and not msg["is_observed"]:
            prior, transform = prior_and_transform(msg["fn"])
            if noise_conditional_prior(prior) is not None:
                self._check(msg, transform)
                msg["fn"] = prior
                if transform is not None:
                    self.transforms[msg["name"]] = transform

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        # The trace, outside, has recorded the value of the prior by now.
        if msg["type"] == "sample" and msg["name"] in self.transforms:
            msg["value"] = self.transforms[msg["name"]](msg["value"])
            self.values[msg["name"]] = msg["value"]

    def _check(self, msg: dict[str, Any], transform: Any) -> None:
        name, scale = msg["name"], msg["scale"]
        if msg["value"] is not None:
            raise ValueError(
                f"{self.kernel} cannot anneal site {name!r}: its value is set within the model, by "
                "scan or cond (whose sites no handler reaches) or by substitute. Sample the "
                "noise-conditional prior outside, in a plate for several, and hand the values in."
            )
        is_one = is_unscaled(scale)
        if not is_one and self.by_denoiser:
            raise ValueError(
                f"{self.kernel} takes from the prior of site {name!r} its denoiser, but its log "
                f"density is scaled by {scale} (handlers.scale, or the plate of a subsample): a "
                "prior to a power has another denoiser, which is not known. Scale the likelihood "
                "alone, or take AnnealedLangevin(model), MALA(model) or NUTS(model)."
            )
        if (not is_one or is_masked(msg["fn"])) and not _is_affine(transform):
            raise ValueError(
                f"{self.kernel} cannot scale or mask the density of site {name!r}, a "
                f"noise-conditional prior under {transform}: the density of the transformed value "
                "also has the Jacobian. Sample the prior itself and transform its value."
            )


def prior_and_transform(fn: Any) -> tuple[Any, Any]:
    """
    A distribution without the transforms beneath its `expand`, `to_event` and `mask`, and the
    transform, or None.
    """
    if isinstance(fn, TransformedDistribution):
        prior, transform = prior_and_transform(fn.base_dist)
        parts = list(fn.transforms) if transform is None else [transform, *fn.transforms]
        return prior, parts[0] if len(parts) == 1 else transforms.ComposeTransform(parts)
    if not isinstance(fn, ExpandedDistribution | Independent | MaskedDistribution):
        return fn, None
    prior, transform = prior_and_transform(fn.base_dist)
    if transform is None:
        return fn, None
    if isinstance(fn, ExpandedDistribution):
        return prior.expand(fn.batch_shape), transform
    if isinstance(fn, Independent):
        return prior.to_event(fn.reinterpreted_batch_ndims), transform
    return MaskedDistribution(prior, fn._mask), transform


def mixed_priors(fn: dist.Distribution) -> bool:
    """Whether a distribution is a mixture of noise-conditional priors."""
    components = getattr(fn, "component_distributions", [getattr(fn, "component_distribution", fn)])
    return any(part is not fn and noise_conditional_prior(part) is not None for part in components)


def _is_affine(transform: Any) -> bool:
    if isinstance(transform, transforms.ComposeTransform):
        return all(_is_affine(part) for part in transform.parts)
    if isinstance(transform, transforms.IndependentTransform):
        return _is_affine(transform.base_transform)
    return transform is None or isinstance(transform, AFFINE)
