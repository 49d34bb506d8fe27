# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Figures: what is drawn equals what was computed."""

import sys

import arviz as az
import numpy as np
import pytest
import xarray

from numpyro_scores.diagnostics import plot_posterior_images, plot_trace_rank
from numpyro_scores.diagnostics.arviz.figures import rank_counts

CHAINS, DRAWS = 3, 40


@pytest.fixture(scope="module")
def draws():
    return np.random.default_rng(0).normal(size=(CHAINS, DRAWS, 4, 5))


@pytest.fixture(scope="module")
def posterior():
    rng = np.random.default_rng(1)
    dims = ("chain", "draw")
    return xarray.Dataset(
        {
            "noise": (dims, rng.gamma(5.0, size=(CHAINS, DRAWS))),
            "stuck": (dims, rng.normal(size=(CHAINS, DRAWS)) + 10.0 * np.arange(CHAINS)[:, None]),
            "x": ((*dims, "row", "column"), rng.normal(size=(CHAINS, DRAWS, 2, 2))),
        },
        {"row": ["top", "bottom"]},
    )


def panels(figure):
    """The images of a figure by title."""
    return {ax.get_title(): ax.images[0] for ax in figure.axes if ax.images and ax.get_title()}


def test_panels_show_truth_data_mean_and_deviation(draws):
    rng = np.random.default_rng(2)
    truth, data = rng.normal(size=(2, 4, 5))
    data[1, 2] = np.nan
    images = panels(plot_posterior_images(draws, truth=truth, data=data))
    assert list(images) == [
        "Truth",
        "Data (hatched: missing)",
        "Posterior mean",
        "Posterior std. deviation",
        "Draw 29, chain 0",
        "Draw 19, chain 1",
        "Draw 9, chain 2",
        "Draw 39, chain 2",
    ]
    expected = {
        "Truth": truth,
        "Data (hatched: missing)": data,
        "Posterior mean": draws.mean(axis=(0, 1)),
        "Posterior std. deviation": draws.std(axis=(0, 1)),
        "Draw 19, chain 1": draws[1, 19],
        "Draw 39, chain 2": draws[2, 39],
    }
    for title, image in expected.items():
        np.testing.assert_array_equal(np.ma.filled(images[title].get_array(), np.nan), image)


def test_all_but_the_deviation_share_one_grey_scale(draws):
    images = panels(plot_posterior_images(draws, truth=np.full((4, 5), 7.0)))
    deviation = images.pop("Posterior std. deviation")
    shown = [image.get_array() for image in images.values()]
    limits = (min(image.min() for image in shown), 7.0)
    assert {image.get_clim() for image in images.values()} == {limits}
    assert {image.get_cmap().name for image in images.values()} == {"gray"}
    assert deviation.get_clim() == (0.0, draws.std(axis=(0, 1)).max())
    assert deviation.get_cmap().name != "gray"

    images = panels(plot_posterior_images(draws, value_range=(-1.0, 1.0)))
    del images["Posterior std. deviation"]
    assert {image.get_clim() for image in images.values()} == {(-1.0, 1.0)}


def test_missing_pixels_are_hatched(draws):
    data = np.zeros((8, 2))
    whole = plot_posterior_images(draws, data=data)
    assert "Data" in panels(whole)
    assert not any(patch.get_hatch() for ax in whole.axes for patch in ax.patches)
    data[3, 1] = np.nan
    holed = plot_posterior_images(draws, data=data)
    (panel,) = [ax for ax in holed.axes if any(patch.get_hatch() for patch in ax.patches)]
    assert panel.get_title() == "Data (hatched: missing)"
    # A hatch is seen through the image where its pixels are masked, and only there.
    (image,) = panel.images
    np.testing.assert_array_equal(image.to_rgba(image.get_array())[..., 3] == 0, np.isnan(data))


def test_draws_without_chains(draws):
    images = panels(plot_posterior_images(draws[0], num_draws=1))
    assert list(images) == ["Posterior mean", "Posterior std. deviation", "Draw 39"]
    np.testing.assert_array_equal(images["Posterior mean"].get_array(), draws[0].mean(axis=0))
    assert "Draw 39" not in panels(plot_posterior_images(draws[0], num_draws=0))


def test_bad_images_are_refused(draws):
    with pytest.raises(ValueError, match=r"draws must have shape .* got \(4, 5\)"):
        plot_posterior_images(draws[0, 0])
    with pytest.raises(
        ValueError, match=r"truth must be an image of shape \(4, 5\), got .*\(5, 4\)"
    ):
        plot_posterior_images(draws, truth=np.zeros((5, 4)))
    with pytest.raises(ValueError, match=r"data must be an image of shape \(h, w\), got .*\(20,\)"):
        plot_posterior_images(draws, data=np.zeros(20))
    with pytest.raises(ValueError, match="data has no finite pixel"):
        plot_posterior_images(draws, data=np.full((4, 5), np.nan))
    with pytest.raises(ValueError, match="between 0 and 120, got 121"):
        plot_posterior_images(draws, num_draws=121)
    holed = draws.copy()
    holed[1, 3, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 120 draws are not finite. Leave them out"):
        plot_posterior_images(holed)
    plot_posterior_images(holed[np.isfinite(holed).all(axis=(-2, -1))])


def test_rank_counts_against_hand_count():
    draws = np.array([[0.1, 0.2, 0.3, 0.9], [0.4, 0.5, 0.6, 0.8]])
    np.testing.assert_array_equal(rank_counts(draws, 2), [[3, 1], [1, 3]])
    np.testing.assert_array_equal(rank_counts(draws, 4), [[2, 1, 0, 1], [0, 1, 2, 1]])
    # Ties share the mean rank, (1 + 2 + 3 + 4) / 4, and what is not finite has none.
    tied = np.array([[1.0, 1.0, 2.0], [1.0, 1.0, np.nan]])
    np.testing.assert_array_equal(rank_counts(tied, 5), [[0, 0, 2, 0, 1], [0, 0, 2, 0, 0]])


def test_traces_and_ranks(posterior):
    figure = plot_trace_rank(posterior)
    axes = figure.axes
    assert len(axes) == 4
    for row, name in enumerate(("noise", "stuck")):
        trace, rank = axes[2 * row : 2 * row + 2]
        draws = posterior[name].to_numpy()
        np.testing.assert_array_equal([line.get_ydata() for line in trace.lines], draws)

        heights = np.reshape([bar.get_height() for bar in rank.patches], (CHAINS, -1))
        floors = np.reshape([bar.get_y() for bar in rank.patches], (CHAINS, -1))
        num_bins = heights.shape[1]
        np.testing.assert_allclose(heights, rank_counts(draws, num_bins))
        np.testing.assert_allclose(heights.sum(axis=1), DRAWS)
        uniform = [line.get_ydata()[0] for line in rank.lines]
        np.testing.assert_allclose(uniform, floors[:, 0] + DRAWS / num_bins)
        # Chains do not overlap, and the bars lie end to end over all ranks.
        assert np.all(floors[:-1, 0] >= floors[1:, 0] + heights[1:].max(axis=1))
        edges = [bar.get_x() + bar.get_width() for bar in rank.patches[:num_bins]]
        np.testing.assert_allclose(edges, CHAINS * DRAWS * np.arange(1, num_bins + 1) / num_bins)


def test_titles_carry_rhat_and_ess(posterior):
    figure = plot_trace_rank(posterior, var_names="stuck")
    rhat = float(az.rhat(posterior)["stuck"])
    ess = float(az.ess(posterior, method="bulk")["stuck"])
    title = figure.axes[0].get_title(loc="left")
    assert title == f"stuck:  R-hat {rhat:.3f},  bulk ESS {ess:.0f} of 120 draws"
    assert rhat > 2.0
    single = plot_trace_rank(posterior.isel(chain=[0], draw=slice(3)), var_names=["noise"])
    assert "R-hat undefined,  bulk ESS undefined" in single.axes[0].get_title(loc="left")


def test_arrays_have_a_row_an_entry(posterior):
    figure = plot_trace_rank(posterior, var_names=["x"])
    labels = [ax.get_title(loc="left").split(":")[0] for ax in figure.axes[::2]]
    assert labels == ["x[top, 0]", "x[top, 1]", "x[bottom, 0]", "x[bottom, 1]"]
    np.testing.assert_array_equal(
        figure.axes[2].lines[1].get_ydata(), posterior["x"][1, :, 0, 1].to_numpy()
    )
    selected = plot_trace_rank(posterior.isel(row=1, column=0), var_names=["x"])
    assert selected.axes[0].get_title(loc="left").startswith("x[bottom]:")


def test_either_container(posterior):
    container = vars(az).get("InferenceData")
    if container is None:
        held = xarray.DataTree.from_dict({"posterior": posterior})
    else:
        held = container(posterior=posterior)
    for source in (held, held["posterior"], held["posterior"].isel(row=0)):
        figure = plot_trace_rank(source, var_names=["noise"])
        np.testing.assert_array_equal(
            figure.axes[0].lines[2].get_ydata(), posterior["noise"][2].to_numpy()
        )


def test_bad_inference_data_is_refused(posterior):
    with pytest.raises(TypeError, match="what to_inference_data returns.*got dict"):
        plot_trace_rank({"noise": posterior["noise"].to_numpy()})
    with pytest.raises(ValueError, match=r"No variable is called \['nose'\]; there are \['noise'"):
        plot_trace_rank(posterior, var_names=["nose"])
    with pytest.raises(ValueError, match=r"No scalar variable to show; there are \['x'\]"):
        plot_trace_rank(posterior[["x"]])
    wide = xarray.Dataset({"x": (("chain", "draw", "pixel"), np.zeros((2, 5, 41)))})
    with pytest.raises(ValueError, match="41 rows are more than the 40"):
        plot_trace_rank(wide, var_names=["x"])


def test_figures_are_written_without_pyplot(draws, posterior, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot_posterior_images(draws, data=np.full((4, 5), 1.0)).savefig(tmp_path / "images.png")
    plot_trace_rank(posterior).savefig(tmp_path / "ranks.png")
    for name in ("images.png", "ranks.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
