# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every method to find a normaliser returns."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from numpyro_scores._compile import compiled
from numpyro_scores.distributions import BoltzmannDistribution


class LogNormalizer(NamedTuple):
    r"""
    :math:`\log Z` of :math:`p(x) = e^{\ell(x)} / Z`, each entry of shape `()`.

    - **estimate** - :math:`\log Z`.
    - **standard_error** - of the estimate; zero if it is exact.
    - **lower**, **upper** - a bracket of :math:`\log Z`, in the sense that the method says; both
      are the estimate if it is exact.
    """

    estimate: Array
    standard_error: Array
    lower: Array
    upper: Array


class ExactMethod(ABC):
    """A method without a random error; subclasses are frozen dataclasses."""

    @abstractmethod
    def refusal(self, distribution: BoltzmannDistribution) -> str | None:
        """Why it cannot be used, if so: the end of a sentence."""

    @abstractmethod
    def _log_normalizer(self, distribution: BoltzmannDistribution) -> Array:
        """The value, shape `()`."""

    def __call__(
        self, distribution: BoltzmannDistribution, key: Array | None = None
    ) -> LogNormalizer:
        """
        :param key: not used.
        :raises ValueError: if the distribution is too large or of another kind.
        """
        if reason := self.refusal(distribution):
            raise ValueError(f"{type(self).__name__} {reason}")
        value = compiled(_value, distribution, method=self)
        return LogNormalizer(value, jnp.zeros_like(value), value, value)


def _value(distribution: BoltzmannDistribution, method: ExactMethod) -> Array:
    return method._log_normalizer(distribution)
