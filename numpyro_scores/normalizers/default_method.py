# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""`log_normalizer`, which calls a method, or finds one that fits."""

from collections.abc import Callable

from jax import Array

from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.normalizers._base import LogNormalizer
from numpyro_scores.normalizers.annealed_importance import AnnealedImportanceSampling
from numpyro_scores.normalizers.enumeration import Enumeration
from numpyro_scores.normalizers.transfer_matrix import TransferMatrix

Method = Callable[[BoltzmannDistribution, Array | None], LogNormalizer]


def log_normalizer(
    distribution: BoltzmannDistribution, *, key: Array | None = None, method: Method | None = None
) -> LogNormalizer:
    r"""
    :math:`\log Z` of a distribution whose density is known up to it: `Ising`, `Potts`,
    `PairwiseMRF`, `BernoulliRBM`, `GaussianBernoulliRBM` or a joint distribution of the last two,
    whether or not it was given a `log_normalizer`.

    It may be called in a model: an exact value is differentiable in the parameters, so that
    `Ising(shape, K, log_normalizer=log_normalizer(Ising(shape, K)).estimate)` is right for a
    coupling that is inferred. An estimate is not, and says so.

    :param key: a random key, for a method that needs one.
    :param method: `TransferMatrix()`, `Enumeration()`, `AnnealedImportanceSampling()`,
        `ReverseAnnealedImportanceSampling()`, `ThermodynamicIntegration()`, the one-sided
        `MeanFieldBound()`, `BetheBound()` and `TreeReweightedBound()`, or any
        `method(distribution, key)` that returns a `LogNormalizer`. By default the first of these
        that fits.
    :raises ValueError: if the method does not fit the distribution, or if no exact one does and
        there is no key for an estimate.
    :raises TypeError: for another distribution, or if an estimate is differentiated.
    """
    if not isinstance(distribution, BoltzmannDistribution):
        raise TypeError(
            "log_normalizer takes one Ising, Potts, PairwiseMRF, BernoulliRBM, "
            f"GaussianBernoulliRBM or joint of the last two, got {type(distribution).__name__}; "
            "of an expanded or masked one take the base_dist."
        )
    if method is not None:
        return method(distribution, key)
    exact = TransferMatrix(), Enumeration()
    for candidate in exact:
        if candidate.refusal(distribution) is None:
            return candidate(distribution, key)
    if key is None:
        reasons = " ".join(f"{type(m).__name__} {m.refusal(distribution)}" for m in exact)
        raise ValueError(
            f"No exact method fits this {type(distribution).__name__} of event shape "
            f"{distribution.event_shape}. {reasons} Give a random key to estimate it, "
            "log_normalizer(..., key=key), or take fewer sites."
        )
    return AnnealedImportanceSampling()(distribution, key)
