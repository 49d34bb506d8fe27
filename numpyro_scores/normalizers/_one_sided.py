# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Bounds of a normaliser on one side, without a random error."""

from abc import ABC, abstractmethod
from typing import ClassVar

import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._compile import compiled
from numpyro_scores._validation import check_key
from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.normalizers._base import LogNormalizer
from numpyro_scores.normalizers._pairwise import is_pairwise


class OneSidedMethod(ABC):
    """
    A bound as a method of `log_normalizer`: `estimate` is the bound, its `standard_error` and the
    other side of the bracket are infinite. Subclasses are frozen dataclasses.
    """

    is_lower: ClassVar[bool]

    @abstractmethod
    def _bound(self, distribution: BoltzmannDistribution, key: Array) -> Array:
        """The bound, shape `()`."""

    def refusal(self, distribution: BoltzmannDistribution) -> str | None:
        """Why it cannot be used, if so: the end of a sentence."""
        if is_pairwise(distribution):
            return None
        return (
            "is for interactions in pairs, Ising, Potts, PairwiseMRF, BernoulliRBM and "
            f"GaussianBernoulliRBM, not {type(distribution).__name__}."
        )

    def __call__(
        self, distribution: BoltzmannDistribution, key: Array | None = None
    ) -> LogNormalizer:
        """
        :param key: of the starts, if the method has random ones; always the same unless given.
        :raises ValueError: for a distribution of another kind.
        """
        name = type(self).__name__
        if reason := self.refusal(distribution):
            raise ValueError(f"{name} {reason}")
        key = random.key(0) if key is None else check_key(name, key)
        bound = compiled(_value, distribution, key, method=self)
        infinite = jnp.full_like(bound, jnp.inf)
        sides = (bound, infinite) if self.is_lower else (-infinite, bound)
        return LogNormalizer(bound, infinite, *sides)


def _value(distribution: BoltzmannDistribution, key: Array, method: OneSidedMethod) -> Array:
    return method._bound(distribution, key)
