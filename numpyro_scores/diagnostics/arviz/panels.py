# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The panels that figures of chains share: a trace, and ranks by chain."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of more chains a bar each cannot be read: then a map, a row each.
MAX_HISTOGRAMS = 8
# Points of a trace, evenly spaced.
MAX_POINTS = 2_000


def chain_colors(num_chains: int) -> np.ndarray:
    """A color for each chain."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0.0, 0.9, num_chains))


def show_trace(ax: "Axes", draws: np.ndarray, colors: np.ndarray) -> None:
    """A line for each chain, draws of shape `(chains, draws)`."""
    from matplotlib.ticker import MaxNLocator

    at_draws = np.arange(0, draws.shape[1], -(-draws.shape[1] // MAX_POINTS))
    for chain, (values, color) in enumerate(zip(draws, colors, strict=True)):
        label = f"chain {chain}"
        ax.plot(at_draws, values[at_draws], color=color, lw=0.8, alpha=0.8, label=label)
    ax.margins(x=0.0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def show_ranks(ax: "Axes", draws: np.ndarray, colors: np.ndarray) -> None:
    """
    Histograms of each chain's ranks, the first chain on top: bars, or of more than 8 chains a map
    of how many there are over how many there would be if all chains agreed.
    """
    num_chains, num_draws = draws.shape
    # About ten draws a bin: a bar's chance variation is then a third of its height.
    num_bins = int(np.clip(num_draws // 10, 2, 20))
    counts = rank_counts(draws, num_bins)
    width = max(counts.sum(), 1) / num_bins
    every = -(-num_chains // 16)
    if num_chains > MAX_HISTOGRAMS:
        _show_map(ax, counts, width)
        places = np.arange(num_chains, dtype=float)
    else:
        places = _show_bars(ax, counts, width, colors)
    ax.set_yticks(places[::every], [str(c) for c in range(0, num_chains, every)])
    ax.tick_params(axis="y", length=0)
    ax.set_ylabel("Chain")
    ax.set_xlim(0, width * num_bins)


def _show_bars(ax: "Axes", counts: np.ndarray, width: float, colors: np.ndarray) -> np.ndarray:
    num_chains, num_bins = counts.shape
    spacing = 1.1 * max(counts.max(), 1)
    floors = spacing * np.arange(num_chains)[::-1]
    left = width * np.arange(num_bins)
    for heights, floor, color in zip(counts, floors, colors, strict=True):
        ax.bar(left, heights, width, floor, align="edge", color=color, edgecolor="white", lw=0.4)
        ax.axhline(floor + heights.mean(), color="black", linestyle="--", linewidth=0.8)
    ax.set_ylim(0, spacing * num_chains)
    return floors + 0.4 * spacing


def _show_map(ax: "Axes", counts: np.ndarray, width: float) -> None:
    num_chains, num_bins = counts.shape
    expected = np.maximum(counts.mean(axis=1, keepdims=True), 1e-9)
    extent = (0, width * num_bins, num_chains - 0.5, -0.5)
    image = ax.imshow(
        counts / expected,
        extent=extent,
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=0,
        vmax=2,
        aspect="auto",
    )
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.9, ticks=[0, 1, 2])
    bar.ax.set_yticklabels(["none", "as if all agree", "twice or more"], fontsize=7)


def rank_counts(draws: np.ndarray, num_bins: int) -> np.ndarray:
    """
    Histogram of each chain's ranks among all draws, ties sharing their mean rank; draws that are
    not finite are left out.

    :param draws: one scalar's draws, shape `(chains, draws)`.
    :param num_bins: number of bins of equal width from the first to the last rank.
    :return: counts, shape `(chains, num_bins)`; a row sums to the number of finite draws.
    """
    from scipy.stats import rankdata

    finite = np.isfinite(draws)
    ranks = np.full(draws.shape, np.nan)
    ranks[finite] = rankdata(draws[finite]) - 0.5
    edges = np.linspace(0.0, finite.sum(), num_bins + 1)
    return np.stack([np.histogram(r[f], edges)[0] for r, f in zip(ranks, finite, strict=True)])
