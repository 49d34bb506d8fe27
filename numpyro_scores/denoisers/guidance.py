# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Denoisers of a class with guidance."""

import math
from dataclasses import dataclass
from typing import Any

from jax import Array

from numpyro_scores._callables import as_pytree
from numpyro_scores._pytrees_by_fields import pytree_of
from numpyro_scores._validation import as_number, is_concrete


@pytree_of("denoiser", "label", "gamma")
@dataclass(frozen=True, eq=False)
class ClassifierFreeGuidance:
    r"""
    The denoiser :math:`(1 - \gamma) D(x, \sigma) + \gamma D(x, \sigma, c)` (Ho & Salimans 2022,
    "Classifier-free diffusion guidance", equation 6, with :math:`\gamma = 1 + w`): 0 is the prior
    of all classes, 1 that of the class `c`, above 1 the class is exaggerated. Its score is
    :math:`\nabla \log p_\sigma(x) + \gamma \nabla \log p_\sigma(c \mid x)`; for other values than 0
    and 1 it is not the denoiser of any data, so that a posterior with it is a picture of a stronger
    class rather than Bayes' rule.

    It is a pytree, so that `DiffusionPrior` takes it; `label` and `gamma` may be latent or traced.

    :param denoiser: `denoiser(x, sigma)` of any class, `denoiser(x, sigma, label)` of one, such
        as an `nn.UNetDenoiser` with `num_classes`, on one unbatched point; two evaluations each.
    :param label: what the denoiser takes as third argument, such as an integer.
    :param gamma: strength of the guidance, a number.
    :raises TypeError: if `denoiser` can't be called.
    :raises ValueError: if `gamma` is no number.
    """

    denoiser: Any
    label: Any
    gamma: Any = 1.0

    def __post_init__(self):
        object.__setattr__(self, "denoiser", as_pytree("denoiser", self.denoiser))
        if is_concrete(self.gamma) and not math.isfinite(as_number(self.gamma)):
            raise ValueError(f"gamma must be a finite number, got {self.gamma!r}.")

    def __call__(self, x: Array, sigma: Array) -> Array:
        """
        :param x: one noisy point.
        :param sigma: its noise level, shape `()`.
        :return: the denoised point, the shape of `x`.
        """
        any_class = self.denoiser(x, sigma)
        return any_class + self.gamma * (self.denoiser(x, sigma, self.label) - any_class)
