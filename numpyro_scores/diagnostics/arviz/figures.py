# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a posterior, on Matplotlib figures of their own: no pyplot, no global state."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from numpyro_scores.diagnostics.arviz.panels import chain_colors, show_ranks, show_trace
from numpyro_scores.diagnostics.arviz.panels import rank_counts as rank_counts
from numpyro_scores.diagnostics.arviz.versions import posterior_dataset

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 40


def plot_posterior_images(
    draws: Any,
    *,
    truth: Any = None,
    data: Any = None,
    num_draws: int = 4,
    value_range: tuple[float, float] | None = None,
) -> "Figure":
    """
    Show a posterior over images: the truth, the data, the posterior mean and standard deviation in
    one row, and single draws below. All but the standard deviation share one grey scale, drawn on
    the left; the scale of the standard deviation is on the right.

    :param draws: posterior draws, shape `(chains, draws, h, w)` or `(draws, h, w)`.
    :param truth: the image to be found, shape `(h, w)`, where it is known.
    :param data: what was measured, a picture of any size; NaN marks a missing pixel, drawn hatched.
    :param num_draws: how many draws to show, spread evenly over the chains.
    :param value_range: values shown black and white; by default the least and the greatest value of
        the grey panels.
    :return: a `matplotlib.figure.Figure`; write it with `figure.savefig(path)`.
    :raises ValueError: if a shape does not fit, if draws are not finite, or if there are fewer than
        `num_draws`.
    """
    from matplotlib.figure import Figure

    draws = np.asarray(draws)
    _check_draws(draws, num_draws)
    by_chain = draws.ndim == 4
    chain_length = draws.shape[1] if by_chain else len(draws)
    flat = draws.reshape(-1, *draws.shape[-2:])

    top: list[tuple[str, np.ndarray]] = []
    if truth is not None:
        top.append(("Truth", _image("truth", truth, flat.shape[1:])))
    if data is not None:
        data = _image("data", data)
        missing = np.isnan(data).any()
        top.append(("Data (hatched: missing)" if missing else "Data", data))
    top.append(("Posterior mean", flat.mean(axis=0)))
    bottom: list[tuple[str, np.ndarray]] = []
    for number in range(1, num_draws + 1):
        # The last of equal stretches: with as many draws as chains, the last one of each chain.
        index = number * len(flat) // num_draws - 1
        chain, draw = divmod(index, chain_length)
        title = f"Draw {draw}, chain {chain}" if by_chain else f"Draw {draw}"
        bottom.append((title, flat[index]))

    if value_range is None:
        values = np.concatenate([image.ravel() for _, image in top + bottom])
        value_range = (float(np.nanmin(values)), float(np.nanmax(values)))
    num_columns = len(top) + 1
    num_rows = 1 + math.ceil(num_draws / num_columns)
    figure = Figure(figsize=(2.2 * num_columns + 1.5, 2.45 * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    *summaries, deviation = axes[0]
    for ax, (title, image) in zip([*summaries, *axes[1:].flat], top + bottom, strict=False):
        grey = _show(ax, title, image, cmap="gray", vmin=value_range[0], vmax=value_range[1])
    spread = _show(deviation, "Posterior std. deviation", flat.std(axis=0), cmap="viridis", vmin=0)
    figure.colorbar(grey, ax=axes[:, 0], location="left", aspect=20 * num_rows, shrink=0.9)
    figure.colorbar(spread, ax=deviation, shrink=0.9)
    return figure


def plot_trace_rank(inference_data: Any, var_names: Sequence[str] | None = None) -> "Figure":
    """
    Show how well chains agree, a row for each scalar: its trace, one line a chain, with R-hat and
    bulk ESS (rank-normalised, by ArviZ), and the histogram of each chain's ranks among all draws.

    Chains that explore the same distribution have flat rank histograms, near the dashed line.

    Reference: Vehtari, Gelman, Simpson, Carpenter, Buerkner (2021), "Rank-normalization, folding,
    and localization: an improved R-hat for assessing convergence of MCMC", Bayesian Analysis 16(2).

    :param inference_data: what `to_inference_data` returns, or a selection from its posterior, such
        as `inference_data.posterior.isel(x_dim_0=3, x_dim_1=4)`.
    :param var_names: the variables to show, an array with one row an entry; by default all scalar
        ones.
    :return: a `matplotlib.figure.Figure`; write it with `figure.savefig(path)`.
    :raises ValueError: if a name is unknown, or if there is nothing, or too much, to show.
    """
    import arviz
    from matplotlib.figure import Figure

    selected = _select(posterior_dataset(inference_data), var_names)
    rhat, ess = arviz.rhat(selected), arviz.ess(selected, method="bulk")
    rows = list(_scalars(selected))
    num_chains = selected.sizes["chain"]

    height = 1.9 + 0.12 * np.clip(num_chains - 4, 0, 28)
    figure = Figure(figsize=(10.0, height * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), 2, squeeze=False, width_ratios=(2, 1))
    colors = chain_colors(num_chains)
    for (trace_ax, rank_ax), (label, name, entry) in zip(axes, rows, strict=True):
        draws = selected[name].isel(entry).transpose("chain", "draw").to_numpy()
        show_trace(trace_ax, draws, colors)
        trace_ax.set_title(
            f"{label}:  R-hat {_number(rhat[name].isel(entry), 3)},  "
            f"bulk ESS {_number(ess[name].isel(entry), 0)} of {draws.size} draws",
            fontsize=10,
            loc="left",
        )
        show_ranks(rank_ax, draws, colors)
    axes[0, 1].set_title("Ranks by chain (dashed: if all agree)", fontsize=10, loc="left")
    axes[-1, 0].set_xlabel("Draw")
    axes[-1, 1].set_xlabel("Rank among the draws of all chains")
    return figure


def _number(value: Any, digits: int) -> str:
    return f"{float(value):.{digits}f}" if np.isfinite(value) else "undefined"


def _show(ax: "Axes", title: str, image: np.ndarray, **style: Any) -> Any:
    from matplotlib.patches import Rectangle

    ax.set_title(title, fontsize=10)
    if np.isnan(image).any():
        # Behind the image, whose NaN pixels are transparent.
        tan, brown = "#f2dfc6", "#b07d3a"
        hatched = Rectangle((0, 0), 1, 1, fc=tan, ec=brown, lw=0, hatch="////", zorder=0)
        hatched.set_transform(ax.transAxes)
        ax.add_patch(hatched)
    return ax.imshow(image, interpolation="nearest", zorder=1, **style)


def _check_draws(draws: np.ndarray, num_draws: int) -> None:
    if draws.ndim not in (3, 4) or 0 in draws.shape:
        raise ValueError(
            "draws must have shape (chains, draws, h, w) or (draws, h, w), got "
            f"{draws.shape}. Take the image's site, as mcmc.get_samples(group_by_chain=True)['x']."
        )
    is_finite = np.isfinite(draws).all(axis=(-2, -1))
    if not is_finite.all():
        raise ValueError(
            f"{(~is_finite).sum()} of {is_finite.size} draws are not finite. Leave them out, and "
            "say so: draws[np.isfinite(draws).all(axis=(-2, -1))]."
        )
    if not 0 <= num_draws <= is_finite.size:
        raise ValueError(f"num_draws must be between 0 and {is_finite.size}, got {num_draws}.")


def _image(name: str, image: Any, shape: tuple[int, ...] | None = None) -> np.ndarray:
    image = np.asarray(image, dtype=float)
    wanted = "(h, w)" if shape is None else shape
    if image.ndim != 2 or (shape is not None and image.shape != shape):
        raise ValueError(f"{name} must be an image of shape {wanted}, got shape {image.shape}.")
    if not np.isfinite(image).any():
        raise ValueError(f"{name} has no finite pixel.")
    return np.where(np.isfinite(image), image, np.nan)


def _select(posterior: "xarray.Dataset", var_names: Sequence[str] | None) -> "xarray.Dataset":
    """The variables to show, checked."""
    if isinstance(var_names, str):
        var_names = [var_names]
    available = [str(name) for name in posterior.data_vars]
    if var_names is None:
        var_names = [name for name in available if posterior[name].ndim == 2]
    unknown = [name for name in var_names if name not in available]
    if unknown:
        raise ValueError(f"No variable is called {unknown}; there are {available}.")
    num_rows = sum(int(np.prod(posterior[name].shape[2:])) for name in var_names)
    if num_rows == 0:
        raise ValueError(
            f"No scalar variable to show; there are {available}. Name one in var_names, or select "
            "entries: plot_trace_rank(inference_data.posterior.isel(x_dim_0=0, x_dim_1=0))."
        )
    if num_rows > MAX_ROWS:
        raise ValueError(
            f"{num_rows} rows are more than the {MAX_ROWS} that can be read. Select entries: "
            "plot_trace_rank(inference_data.posterior.isel(x_dim_0=0, x_dim_1=0))."
        )
    return posterior[list(var_names)]


def _scalars(posterior: "xarray.Dataset") -> Iterator[tuple[str, str, dict[str, int]]]:
    """Each scalar as its label, its variable and the index of the entry."""
    for name, variable in posterior.data_vars.items():
        dims = [str(dim) for dim in variable.dims if dim not in ("chain", "draw")]
        for index in np.ndindex(*(variable.sizes[dim] for dim in dims)):
            entry = dict(zip(dims, index, strict=True))
            # Whoever selected an entry beforehand left its coordinates behind.
            fixed = {dim: x.item() for dim, x in variable.isel(entry).coords.items() if x.ndim == 0}
            label = ", ".join(str(value) for value in (entry | fixed).values())
            yield (f"{name}[{label}]" if label else str(name)), str(name), entry
