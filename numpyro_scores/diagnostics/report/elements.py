# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""R-hat, ESS and MCSE of the elements of a posterior; of a large one, of those that stand worst."""

import warnings
from typing import NamedTuple

import numpy as np

from numpyro_scores.diagnostics.arviz.datasets import Arrays

# How many elements ArviZ sees, some 2 ms each: half of them those whose chains differ most, half
# spread evenly.
MAX_ELEMENTS = 400
# Elements in memory at a time as float64.
CHUNK = 1_000
# What ArviZ's estimators want of each chain.
FEWEST_DRAWS = 4


class Elements(NamedTuple):
    """
    The elements that were looked at, `k` of them, with

    - **names** - such as `"x[3, 1]"`.
    - **draws** - shape `(chains, draws, k)`.
    - **is_spread** - whether it is one of those spread evenly, shape `(k,)`.
    - **r_hat** - NaN with one chain, shape `(k,)`.
    - **bulk**, **tail** - effective sample sizes, shape `(k,)`.
    - **mcse** - Monte Carlo standard error of the mean over the standard deviation, shape `(k,)`.
    - **num_all**, **num_constant** - number of all elements, and of those with one value only,
      which are left out.
    """

    names: tuple[str, ...]
    draws: np.ndarray
    is_spread: np.ndarray
    r_hat: np.ndarray
    bulk: np.ndarray
    tail: np.ndarray
    mcse: np.ndarray
    num_all: int
    num_constant: int


def elements_of(posterior: Arrays, left_out: Arrays | None = None) -> Elements:
    """
    Of a posterior of finite draws, shape `(chains, draws, ...)` with 4 draws at least. A large one
    is read chunk by chunk: memory is that of `CHUNK` elements beyond the draws themselves.

    :param left_out: which elements of a site are not to be looked at.
    """
    flat = {name: x.reshape(*x.shape[:2], -1) for name, x in posterior.items()}
    scores = np.concatenate([_difference_of_chains(x) for x in flat.values()])
    flags = [(left_out or {}).get(name, np.zeros(x.shape[2], bool)) for name, x in flat.items()]
    scores[np.concatenate([np.ravel(flag) for flag in flags])] = np.nan
    alive = np.flatnonzero(~np.isnan(scores))
    spread = alive
    if len(alive) > MAX_ELEMENTS:
        spread = alive[np.linspace(0, len(alive) - 1, MAX_ELEMENTS // 2).astype(int)]
    worst = alive[np.argsort(scores[alive])[::-1][: MAX_ELEMENTS // 2]]
    chosen = np.union1d(spread, worst)
    names, columns, start = [], [], 0
    for name, x in flat.items():
        own = chosen[(start <= chosen) & (chosen < start + x.shape[2])] - start
        start += x.shape[2]
        columns.append(x[:, :, own].astype(float))
        names += [_element_name(name, i, posterior[name].shape[2:]) for i in own]
    draws = np.concatenate(columns, axis=2)
    return Elements(
        tuple(names),
        draws,
        np.isin(chosen, spread),
        *_numbers(draws),
        num_all=len(scores),
        num_constant=len(scores) - len(alive),
    )


def _difference_of_chains(draws: np.ndarray) -> np.ndarray:
    """
    Variance of the means of half-chains over the variance within them, shape `(k,)`: what the
    classical split R-hat is made of, and cheap. NaN for a constant.
    """
    num_chains, num_draws, size = draws.shape
    half = num_draws // 2
    ratios = [np.empty(0)]
    for start in range(0, size, CHUNK):
        x = draws[:, : 2 * half, start : start + CHUNK].astype(float)
        halves = x.reshape(2 * num_chains, half, -1)
        between, within = halves.mean(axis=1).var(axis=0), halves.var(axis=1).mean(axis=0)
        constant = np.all(draws[:, :, start : start + CHUNK] == x[:1, :1], axis=(0, 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios.append(np.where(constant, np.nan, np.nan_to_num(between / within, nan=np.inf)))
    return np.concatenate(ratios)


def _numbers(draws: np.ndarray) -> tuple[np.ndarray, ...]:
    """R-hat, bulk and tail ESS and relative MCSE by ArviZ."""
    import arviz
    import xarray

    if not draws.shape[2]:
        return (np.empty(0),) * 4
    dataset = xarray.Dataset({"x": (("chain", "draw", "element"), draws)})
    with warnings.catch_warnings():
        # Of one chain, or of more chains than draws: the report says so itself.
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            r_hat = arviz.rhat(dataset)["x"].to_numpy()
            bulk = arviz.ess(dataset, method="bulk")["x"].to_numpy()
            tail = arviz.ess(dataset, method="tail")["x"].to_numpy()
            mcse = arviz.mcse(dataset, method="mean")["x"].to_numpy()
            mcse = mcse / draws.std(axis=(0, 1))
    if len(draws) > 1:
        # No variance within the chains, but some between them.
        r_hat = np.where(np.isfinite(r_hat), r_hat, np.inf)
    return r_hat, bulk, tail, mcse


def _element_name(site: str, index: int, shape: tuple[int, ...]) -> str:
    if not shape:
        return site
    return f"{site}[{', '.join(map(str, np.unravel_index(index, shape)))}]"
