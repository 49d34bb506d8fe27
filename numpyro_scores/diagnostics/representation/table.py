# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""All measures of a representation in one table."""

from typing import Any, NamedTuple

import numpy as np
from jax import Array, random
from jax.typing import ArrayLike

from numpyro_scores._validation import check_key
from numpyro_scores.diagnostics._samples import as_flat_pair
from numpyro_scores.diagnostics.representation.beta_vae import beta_vae_score
from numpyro_scores.diagnostics.representation.clustering import clustering_scores
from numpyro_scores.diagnostics.representation.factor_vae import factor_vae_score
from numpyro_scores.diagnostics.representation.importance import dci
from numpyro_scores.diagnostics.representation.information import (
    modularity,
    mutual_information_gap,
)
from numpyro_scores.diagnostics.representation.sap import sap_score


class RepresentationTable(NamedTuple):
    """
    What :func:`representation_table` returns; `print` shows it.

    - **rows** - the value of each measure by its name.
    """

    rows: dict[str, float]

    def __str__(self) -> str:
        width = max(map(len, self.rows))
        return "\n".join(f"{name:<{width}}  {value:8.3f}" for name, value in self.rows.items())


def representation_table(
    codes: ArrayLike,
    factors: ArrayLike,
    *,
    key: Array,
    labels: ArrayLike | None = None,
    inputs: Array | None = None,
    reconstructions: Array | None = None,
) -> RepresentationTable:
    """
    Every measure of a code: the six of disentanglement; of clusters, if there are classes; of a
    reconstruction, its mean squared error for each entry and the share of the inputs' variance that
    it explains. Each measure has a function of its own, with settings and what it is of noise.

    :param codes: shape `(n, num_codes)`.
    :param factors: discrete numbers, shape `(n, num_factors)`, two or more.
    :param key: a random key.
    :param labels: the class of each sample, shape `(n,)`.
    :param inputs: what was encoded, shape `(n, *event_shape)`, with
    :param reconstructions: what was decoded, of the same shape.
    :raises ValueError: as the measures do, or if one of inputs and reconstructions is missing.
    :raises ImportError: without scikit-learn.
    """
    keys = random.split(check_key("representation_table", key), 4)
    parts = dci(codes, factors, key=keys[2])
    rows = {
        "beta-VAE score": beta_vae_score(codes, factors, key=keys[0]).value,
        "FactorVAE score": factor_vae_score(codes, factors, key=keys[1]).value,
        "mutual information gap": mutual_information_gap(codes, factors).value,
        "SAP": sap_score(codes, factors).value,
        "DCI disentanglement": parts.value,
        "DCI completeness": parts.completeness,
        "DCI informativeness": parts.informativeness,
        "modularity": modularity(codes, factors).value,
    }
    if labels is not None:
        found = clustering_scores(codes, labels, key=keys[3])
        rows["homogeneity"] = found.homogeneity
        rows["completeness"] = found.completeness
        rows["V-measure"] = found.value
    if inputs is not None or reconstructions is not None:
        rows |= _reconstruction(inputs, reconstructions)
    return RepresentationTable(rows)


def _reconstruction(inputs: Any, reconstructions: Any) -> dict[str, float]:
    if inputs is None or reconstructions is None:
        raise ValueError("A reconstruction is compared with its input: give both, or neither.")
    x, y = map(np.asarray, as_flat_pair(inputs, reconstructions))
    if len(x) != len(y):
        raise ValueError(f"Each input has a reconstruction, got {len(x)} and {len(y)} of them.")
    error, variance = float(np.mean((x - y) ** 2)), float(np.mean(np.var(x, axis=0)))
    explained = 1 - error / variance if variance > 0 else float(error == 0)
    return {"mean squared error": error, "explained variance": explained}
