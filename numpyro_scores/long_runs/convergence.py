# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""R-hat and ESS of a run that goes on, read from its store by pieces of bounded size."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from numpyro_scores._validation import check_positive
from numpyro_scores.long_runs.moments import RunningMoments

# Draws of the elements that are looked at together, as float64.
MAX_BYTES = 2**26
# Elements that the bar looks at: those whose chains differ most.
WORST = 16
FEWEST_DRAWS = 4
# After so many times the draws it is looked at again: all looks together cost as much as a few.
GROWTH = 1.25


@dataclass(frozen=True)
class Until:
    """
    A rule by which a run stops early. Make one with :func:`until`.

    :param r_hat: the largest R-hat of all elements, or None.
    :param bulk_ess: the smallest bulk ESS, or None.
    """

    r_hat: float | None = None
    bulk_ess: float | None = None

    def holds(self, found: "Convergence") -> bool:
        """Whether the numbers are good enough; NaN is not, nor are draws that are all the same."""
        fine_r_hat = self.r_hat is None or bool(np.all(found.r_hat <= self.r_hat))
        fine_ess = self.bulk_ess is None or bool(np.all(found.bulk_ess >= self.bulk_ess))
        return bool(found.names) and fine_r_hat and fine_ess


def until(*, r_hat: float | None = 1.01, bulk_ess: float | None = 400) -> Until:
    """
    Draw until R-hat and bulk ESS (Vehtari et al. 2021) of every element are this good, or all
    draws are there. Looking is a test made again and again: a run that stops by its own draws is
    a little too sure of itself, so the rule wants numbers with room to spare.

    :param r_hat: the largest R-hat; None for any. Takes two chains at least.
    :param bulk_ess: the smallest bulk ESS; None for any.
    """
    if r_hat is None and bulk_ess is None:
        raise ValueError("until needs r_hat or bulk_ess: without either a run would never stop.")
    for name, value in (("r_hat", r_hat), ("bulk_ess", bulk_ess)):
        if value is not None:
            check_positive(name, value)
    return Until(r_hat, bulk_ess)


class Convergence(NamedTuple):
    """
    - **names** - of the elements, such as `"x[3, 1]"`; constants are left out.
    - **r_hat**, **bulk_ess** - by ArviZ, of each.
    """

    names: tuple[str, ...]
    r_hat: np.ndarray
    bulk_ess: np.ndarray


# A variable's draws from `start` to `stop`, shape `(chains, stop - start, ...)`.
Read = Callable[[str, int, int], np.ndarray]


def convergence_of(
    read: Read, elements: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], num_draws: int
) -> Convergence:
    """
    :param read: the draws.
    :param elements: which elements of each variable, as indices of its flattened draw.
    :param shapes: of one draw of each.
    :param num_draws: how many draws there are.
    """
    names, r_hat, bulk = [], [np.empty(0)], [np.empty(0)]
    for name, columns, draws in _blocks(read, elements, num_draws):
        spread = np.any(draws != draws[:1, :1], axis=(0, 1))
        names += [element_name(name, i, shapes[name]) for i in columns[spread]]
        found = _numbers(draws[:, :, spread])
        r_hat.append(found[0])
        bulk.append(found[1])
    return Convergence(tuple(names), np.concatenate(r_hat), np.concatenate(bulk))


def _blocks(
    read: Read, elements: dict[str, np.ndarray], num_draws: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Some elements at a time, with all of their draws; draws are read some at a time as well."""
    for name, columns in elements.items():
        if not len(columns):
            continue
        first = read(name, 0, 1)
        num_chains, size = len(first), max(first[0, 0].size, 1)
        width = max(1, MAX_BYTES // (8 * num_chains * num_draws))
        step = max(1, MAX_BYTES // (8 * num_chains * size))
        for at in range(0, len(columns), width):
            own = columns[at : at + width]
            draws = np.empty((num_chains, num_draws, len(own)))
            for start in range(0, num_draws, step):
                stop = min(start + step, num_draws)
                piece = read(name, start, stop)
                draws[:, start:stop] = piece.reshape(*piece.shape[:2], -1)[:, :, own]
            yield name, own, draws


def _numbers(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R-hat and bulk ESS by ArviZ, of draws of shape `(chains, draws, elements)`."""
    import arviz
    import xarray

    if not draws.shape[2]:
        return np.empty(0), np.empty(0)
    dataset = xarray.Dataset({"x": (("chain", "draw", "element"), draws)})
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        bulk = arviz.ess(dataset, method="bulk")["x"].to_numpy()
        if len(draws) < 2:
            return np.full(draws.shape[2], np.nan), bulk
        return arviz.rhat(dataset)["x"].to_numpy(), bulk


def element_name(site: str, index: int, shape: tuple[int, ...]) -> str:
    """Such as `x[3, 1]`."""
    if not shape:
        return site
    return f"{site}[{', '.join(map(str, np.unravel_index(index, shape)))}]"


def worst_elements(
    elements: dict[str, np.ndarray],
    moments: list[RunningMoments],
    order: Sequence[str],
    number: int,
) -> dict[str, np.ndarray]:
    """The elements whose chains' means differ most, for the spread within the chains."""
    scores = []
    for name, own in zip(order, moments, strict=True):
        with np.errstate(all="ignore"):
            ratio = own.mean.var(axis=0) / own.squares.mean(axis=0)
        ratio = np.where(np.isfinite(ratio), ratio, -1.0).ravel()
        scores += [(value, name, i) for i, value in zip(elements[name], ratio, strict=True)]
    best = sorted(scores, key=lambda entry: entry[0], reverse=True)[:number]
    return {
        name: np.array(sorted(i for _, own, i in best if own == name), int) for name in elements
    }
