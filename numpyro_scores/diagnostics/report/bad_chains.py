# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Chains whose draws cannot be trusted as they are, in words."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpyro.infer import HMC

from numpyro_scores.diagnostics.arviz.datasets import Arrays
from numpyro_scores.infer.diffusion.base import NoiseLevelKernel
from numpyro_scores.infer.langevin.base import LangevinKernel

# Fewer equal draws may be rejections.
FEWEST_STUCK_DRAWS = 10

# What `diverging` means under a kernel; one that is made of others may mean any of it.
DIVERGENCES = {
    HMC: "Under HMC and NUTS the energy error of these trajectories was too large, and draws near "
    "them may be missing: raise target_accept_prob, or reparametrise the model.",
    (LangevinKernel, NoiseLevelKernel): "Under Langevin kernels steps that left the finite numbers "
    "were not made, and these draws are not of the posterior; those with a Metropolis test (MALA, "
    "MALT) only rejected such proposals, and their draws are. Try a smaller step size or another "
    "start.",
}


def bad_chains(posterior: Arrays, fields: Arrays, kernel: Any) -> Iterator[str]:
    """
    Messages that name the chains with draws that are not finite or diverging, or that never moved.

    :param posterior: draws by site, shape `(chains, draws, ...)`.
    :param fields: the kernel's extra fields, of the same shape.
    :param kernel: the kernel of the run.
    """
    finite = {name: _of_draws(np.isfinite(values)) for name, values in posterior.items()}
    is_finite = np.all(list(finite.values()), axis=0)
    if not is_finite.all():
        sites = ", ".join(name for name, flags in finite.items() if not flags.all())
        yield (
            f"Draws that are not finite: {_chains(~is_finite)}, at the sites {sites}. Means, R-hat "
            "and ESS over these chains say nothing; try a smaller step size or another start."
        )
    # A block of Gibbs has a field of its own, `block_states.0.diverging`.
    diverging = [values for name, values in fields.items() if name.split(".")[-1] == "diverging"]
    if np.any(diverging):
        meanings = [text for kind, text in DIVERGENCES.items() if isinstance(kernel, kind)]
        yield (
            f"Diverging draws: {_chains(np.any(diverging, axis=0))}. "
            + " ".join(meanings or DIVERGENCES.values())
        )
    same = np.all([_of_draws(values == values[:, :1]) for values in posterior.values()], axis=0)
    stuck = np.broadcast_to(same.all(axis=1, keepdims=True), same.shape)
    if stuck.any() and stuck.shape[1] >= FEWEST_STUCK_DRAWS:
        yield (
            f"Stuck, with all draws at one point: {_chains(stuck)}. Try a smaller step size or "
            "another start."
        )


def _of_draws(flags: np.ndarray) -> np.ndarray:
    """Whether all entries of a draw have the flag, shape `(chains, draws)`."""
    return np.all(flags, axis=tuple(range(2, flags.ndim)))


def _chains(is_bad: np.ndarray) -> str:
    return ", ".join(
        f"chain {chain} ({count} of {is_bad.shape[1]})"
        for chain, count in enumerate(is_bad.sum(axis=1))
        if count
    )
