# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The page of a report, and the same in a notebook."""

import re

import numpy as np
import pytest
from diagnostics.helpers import posterior

import numpyro_scores as ns
from numpyro_scores.diagnostics.arviz.panels import MAX_HISTOGRAMS

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def report():
    return ns.diagnose(posterior(x=RNG.normal(size=(16, 50, 3)), n=RNG.normal(size=(16, 50)) + 7))


def test_a_notebook_shows_a_part_of_a_page_and_changes_nothing_else(report):
    shown = report._repr_html_()
    assert shown.startswith('<div class="numpyro-scores">') and shown.endswith("</div>")
    assert shown.count(report.title) == 1
    assert "<body" not in shown and "<html" not in shown
    # Every rule is of this class alone.
    (style,) = re.findall(r"<style>(.*?)</style>", shown, re.DOTALL)
    style = re.sub(r"/\*.*?\*/|@media [^{]*\{", "", style, flags=re.DOTALL)
    for selectors in re.findall(r"([^{}]+)\{", style):
        assert all(s.strip().startswith(".numpyro-scores") for s in selectors.split(","))


def test_the_page_is_the_part_of_a_notebook(report, tmp_path):
    report.to_html(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count(f"<h1>{report.title}</h1>") == 1
    assert "<h2>Estimates</h2>" in text and "<td>x[2]</td>" in text


def test_the_title_stands_once_beside_the_figure(report):
    from numpyro_scores.diagnostics.report.figure import figure_of

    assert report.title in report.plot().get_suptitle()
    assert not figure_of(report, report._panels, with_title=False).get_suptitle()


def test_estimates_are_those_of_the_draws(report):
    import arviz

    found = {element.name: element for element in report.estimates}
    assert set(found) == {"x[0]", "x[1]", "x[2]", "n"}
    n = posterior(n=_draws())
    mean, sd = float(n["n"].mean()), float(n["n"].std())
    element = found["n"]
    np.testing.assert_allclose([element.mean, element.sd], [mean, sd], rtol=1e-6)
    np.testing.assert_allclose(
        [element.low, element.high], np.quantile(n["n"], [0.05, 0.95]), rtol=1e-6
    )
    np.testing.assert_allclose(element.bulk_ess, float(arviz.ess(n)["n"]), rtol=1e-6)
    np.testing.assert_allclose(element.mcse, float(arviz.mcse(n)["n"]), rtol=1e-6)
    np.testing.assert_allclose(element.r_hat, float(arviz.rhat(n)["n"]), rtol=1e-6)


def _draws():
    rng = np.random.default_rng(0)
    rng.normal(size=(16, 50, 3))
    return rng.normal(size=(16, 50)) + 7


def test_ranks_of_many_chains_are_a_map(report):
    ranks = next(ax for ax in report.plot().axes if ax.get_title(loc="left").startswith("Ranks"))
    (image,) = ranks.images
    assert image.get_array().shape == (16, 5) and len(image.get_array()) > MAX_HISTOGRAMS
    # In each row the mean is what it would be if all chains agreed.
    np.testing.assert_allclose(np.mean(image.get_array(), axis=1), 1.0)
    assert not ranks.patches
