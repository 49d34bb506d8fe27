# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The mutual information of each code with each factor, and what is made of it."""

from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from numpyro_scores.diagnostics._samples import check_at_least_two
from numpyro_scores.diagnostics.representation.inputs import as_codes, as_labels


class MutualInformationGap(NamedTuple):
    """
    What :func:`mutual_information_gap` returns.

    - **value** - the mean over factors, from 0 to 1.
    - **of_factors** - the gap of each factor, shape `(num_factors,)`.
    - **information** - of each code on each factor in nats, shape `(num_codes, num_factors)`.
    """

    value: float
    of_factors: np.ndarray
    information: np.ndarray


class Modularity(NamedTuple):
    """
    What :func:`modularity` returns.

    - **value** - the mean over codes, from 0 to 1.
    - **of_codes** - of each code, shape `(num_codes,)`; 0 of one that knows nothing.
    - **information** - of each code on each factor in nats, shape `(num_codes, num_factors)`.
    """

    value: float
    of_codes: np.ndarray
    information: np.ndarray


def mutual_information_gap(
    codes: ArrayLike, factors: ArrayLike, *, num_bins: int = 20
) -> MutualInformationGap:
    r"""
    How much more the best code knows of a factor than the second best (Chen et al. 2018, "Isolating
    sources of disentanglement in VAEs"), with codes :math:`z_j` and factors :math:`v_k`,

    .. math:: \frac1K \sum_k \frac{1}{H(v_k)} \Bigl(I(z_{j^{(k)}}; v_k) - \max_{j \ne j^{(k)}}
        I(z_j; v_k)\Bigr), \qquad j^{(k)} = \arg\max_j I(z_j; v_k).

    Information and entropy are those of the frequencies of the samples, a code of more than
    `num_bins` values sorted into as many bins of equal width: pass draws of an encoder for the
    information in its distribution, its means for that in them. With few samples the information
    of noise is about `(num_bins - 1) (number of values - 1) / (2 n)` in place of zero.

    :param codes: shape `(n, num_codes)`.
    :param factors: discrete, shape `(n, num_factors)`.
    :param num_bins: at least 2.
    :raises ValueError: if there are more factors than samples, a factor has one value or is
        continuous, or entries are not finite.
    """
    information, entropy = _table("mutual_information_gap", codes, factors, num_bins)
    # Beside a single code there is one that knows nothing.
    ordered = np.sort(np.vstack([information, np.zeros_like(entropy)]), axis=0)
    gaps = (ordered[-1] - ordered[-2]) / entropy
    return MutualInformationGap(float(np.mean(gaps)), gaps, information)


def modularity(codes: ArrayLike, factors: ArrayLike, *, num_bins: int = 20) -> Modularity:
    r"""
    Whether each code knows of one factor only (Ridgeway & Mozer 2018, section 3): with the
    information :math:`m_{if}` of code `i` on factor `f` of `N`, and its largest one
    :math:`\theta_i = m_{i f^*}`, the mean over codes of

    .. math:: 1 - \frac{\sum_{f \ne f^*} m_{if}^2}{\theta_i^2 (N - 1)}.

    Several codes may know of one factor. Information is that of :func:`mutual_information_gap`. Of
    a code of pure noise it is what the number of samples makes it, and the value says nothing:
    look at the information.

    :param codes: shape `(n, num_codes)`.
    :param factors: discrete, shape `(n, num_factors)`, two or more.
    :param num_bins: at least 2.
    :raises ValueError: for one factor, if there are more factors than samples, a factor has one
        value or is continuous, or entries are not finite.
    """
    information, _ = _table("modularity", codes, factors, num_bins)
    if information.shape[1] == 1:
        raise ValueError("modularity compares factors and needs two or more, got 1.")
    largest = information.max(axis=1)
    others = np.sum(information**2, axis=1) - largest**2
    knows = largest > 0
    deviation = others / np.where(knows, largest**2 * (information.shape[1] - 1), 1.0)
    of_codes = np.where(knows, 1 - deviation, 0.0)
    return Modularity(float(np.mean(of_codes)), of_codes, information)


def _table(name: str, codes: Any, factors: Any, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """The information of each code on each factor, and the entropy of the factors, in nats."""
    check_at_least_two("num_bins", num_bins)
    codes = as_codes(codes)
    labels = as_labels(name, factors, len(codes))
    bins = [binned(column, num_bins) for column in codes.T]
    information = np.array([[mutual_information(z, v) for v in labels.T] for z in bins])
    return information, np.array([mutual_information(v, v) for v in labels.T])


def binned(code: np.ndarray, num_bins: int) -> np.ndarray:
    """The bin of each sample; a code of few values is as it is."""
    values, bins = np.unique(code, return_inverse=True)
    if len(values) <= num_bins:
        return bins
    return np.digitize(code, np.linspace(values[0], values[-1], num_bins + 1)[1:-1])


def mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    r""":math:`\sum_{ab} p_{ab} \log \frac{p_{ab}}{p_a p_b}` of frequencies, never negative."""
    counts = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(counts, (a, b), 1)
    joint = counts / len(a)
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return max(0.0, float(np.sum(joint[seen] * np.log(joint[seen] / apart[seen]))))
