# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Reports of draws with faults that were put there, and of draws without."""

import base64
import io
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from diagnostics.helpers import line, names, posterior
from numpyro.infer import MCMC, NUTS

import numpyro_scores as ns
from numpyro_scores.diagnostics.report import elements, thresholds
from numpyro_scores.diagnostics.report.kernel_checks import check_divergences
from numpyro_scores.diagnostics.report.parts import Part
from numpyro_scores.diagnostics.report.runs import Run

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def broken():
    """Five chains: one is stuck, one has its own mode, and one leaves the finite numbers."""
    x = RNG.normal(size=(5, 500, 2))
    x[1] = 0.3
    x[2] += 4
    x[3, 200:, 1] = np.nan
    return ns.diagnose(posterior(**{"<x> & $y$": x}))


def test_independent_draws_have_no_fault():
    report = ns.diagnose(posterior(x=RNG.normal(size=(4, 500, 3)), n=RNG.poisson(3, (4, 500))))
    assert report.faults == ()
    assert [line.status for line in report.lines] == ["fine"] * 6 + ["unknown"]
    assert "4 chains of 500 draws, 2 sites of 4 numbers" in str(report)
    assert "give model=" in line(report, "Stein discrepancy").text


def test_each_fault_is_named_with_its_chain(broken):
    faults = {(fault.name, fault.where) for fault in broken.faults}
    assert {("stuck", "chain 1"), ("not_finite", "chain 3")} <= faults
    assert names(broken) >= {"r_hat", "bulk_ess"}
    (share,) = (fault.measured for fault in broken.faults if fault.name == "not_finite")
    np.testing.assert_allclose(share, 0.6)
    (r_hat,) = (fault for fault in broken.faults if fault.name == "r_hat")
    assert r_hat.measured > 1.5 > r_hat.threshold == 1.01
    for fault in broken.faults:
        assert fault.advice.split()[0] in str(broken)


def test_numbers_are_arvizs_of_the_finite_chains(broken):
    import arviz

    x = RNG.normal(size=(4, 100, 2)).cumsum(axis=1)
    x = np.concatenate([x, np.full((1, 100, 2), np.inf)])
    report = ns.diagnose(posterior(x=x))
    expected = arviz.rhat(posterior(x=x[:4]))["x"].to_numpy()
    (fault,) = (fault for fault in report.faults if fault.name == "r_hat")
    np.testing.assert_allclose(fault.measured, expected.max(), rtol=1e-12)
    assert fault.where == f"x[{expected.argmax()}]"
    (fault,) = (fault for fault in report.faults if fault.name == "tail_ess")
    expected = arviz.ess(posterior(x=x[:4]), method="tail")["x"].to_numpy()
    np.testing.assert_allclose(fault.measured, expected.min(), rtol=1e-12)


def test_too_few_draws_are_a_fault_and_no_number():
    report = ns.diagnose(posterior(x=RNG.normal(size=(4, 40))))
    assert names(report) >= {"bulk_ess", "tail_ess"}
    report = ns.diagnose(posterior(x=RNG.normal(size=(4, 3))))
    assert names(report) == {"bulk_ess"} and report.faults[0].measured == 3
    assert "3 draws are fewer than the 4 it takes" in str(report)
    assert report.plot().axes


def test_what_cannot_be_told_is_said():
    x = RNG.normal(size=(1, 500, 2))
    report = ns.diagnose(posterior(x=x))
    assert report.faults == () and line(report, "R-hat").status == "unknown"
    assert "run 4" in line(report, "R-hat").text
    report = ns.diagnose(posterior(x=np.full((2, 500), np.nan)))
    assert names(report) == {"not_finite"} and "no chain stayed finite" in str(report)
    report = ns.diagnose(posterior(x=np.ones((2, 500))))
    assert names(report) == {"stuck"} and "every site is constant" in str(report)
    # A constant beside a site that moves is none of the chain's fault.
    report = ns.diagnose(posterior(x=RNG.normal(size=(4, 500)), one=np.ones((4, 500))))
    assert report.faults == ()


def test_one_bad_pixel_of_a_large_image_is_found_in_bounded_time(monkeypatch):
    image = RNG.normal(size=(4, 300, 60, 60)).astype(np.float32)
    seen = []
    numbers = elements._numbers

    def counted(draws):
        seen.append(draws.shape)
        return numbers(draws)

    monkeypatch.setattr(elements, "_numbers", counted)
    monkeypatch.setattr(elements, "MAX_ELEMENTS", 50)
    assert ns.diagnose(posterior(image=image)).faults == ()
    image[1, :, 7, 31] += 2
    report = ns.diagnose(posterior(image=image))
    assert {fault.where for fault in report.faults} == {"image[7, 31]"}
    assert names(report) >= {"r_hat", "bulk_ess"}
    assert all(shape[2] <= 50 for shape in seen)
    assert "of 3,600 elements looked at" in str(report)


def test_many_short_chains_of_independent_draws_are_fine():
    """The R-hat of short chains is above 1.01 by chance."""
    report = ns.diagnose(posterior(x=RNG.normal(size=(16, 50, 8, 8))))
    assert report.faults == ()
    assert thresholds.r_hat_of(4, 1_000, 64) == 1.01 < thresholds.r_hat_of(16, 50, 64) < 1.04
    x = RNG.normal(size=(4_000, 2 * 16, 25))
    ratio = x.mean(axis=2).var(axis=1, ddof=1) / x.var(axis=2, ddof=1).mean(axis=1)
    # Half of the level, since this is one of the two that R-hat is the larger of.
    share = np.mean(np.sqrt(24 / 25 + ratio) > thresholds.r_hat_of(16, 50, 1))
    assert share < 0.0005 + 4 * np.sqrt(0.0005 / 4_000)


class Page(HTMLParser):
    """Its tags in pairs, its text, and all that it refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.words, self.refers = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "img", "!doctype"):
            self.open.append(tag)
        self.refers += [value for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_escaped_and_has_its_picture_inside(broken, tmp_path):
    path = tmp_path / "report.html"
    broken.to_html(path)
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and "script" not in page.seen and "link" not in page.seen
    assert "http" not in text and "url(" not in text and "@import" not in text
    words = " ".join(page.words)
    for fault in broken.faults:
        assert fault.name in words and fault.where in words and fault.advice in words
    assert "<x> & $y$[0]" in words and "<x>" not in text
    assert "prefers-color-scheme: dark" in text
    (source,) = page.refers
    head, data = source.split(",", 1)
    assert head == "data:image/png;base64"
    image = matplotlib.image.imread(io.BytesIO(base64.b64decode(data)), format="png")
    assert min(image.shape[:2]) > 400 and len(np.unique(image[..., 0])) > 50


def test_the_figure_shows_every_line_and_the_worst_element(broken):
    verdicts, *_, trace = broken.plot().axes
    titles = [label.get_text() for label in verdicts.get_yticklabels()]
    assert titles == [line.title for line in broken.lines]
    assert trace.get_title(loc="left").startswith("Trace of <x> & $y$[")
    # The chain that left the finite numbers is not drawn.
    assert len(trace.lines) == 4


def gaussian(scale):
    def model():
        numpyro.sample("x", dist.Normal(0, scale).expand([2]).to_event(1))
        numpyro.sample("positive", dist.Exponential(1.0))

    return model


def test_the_stein_discrepancy_is_that_of_the_model_in_its_unconstrained_space():
    draws = posterior(x=RNG.normal(size=(4, 300, 2)), positive=RNG.exponential(size=(4, 300)))
    right = ns.diagnose(draws, model=gaussian(1.0))
    assert right.faults == () and line(right, "Stein discrepancy").status == "fine"
    wrong = ns.diagnose(draws, model=gaussian(2.0))
    assert names(wrong) == {"wrong_target"}


def scaled(scale, x):
    return jnp.sum(x**2) / (2 * scale**2)


def missing_normalizer():
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    energy = jax.tree_util.Partial(scaled, scale)
    numpyro.sample("x", ns.EnergyDistribution(energy, (3,)), obs=jnp.ones(3))


def swirl(x):
    return -x + 0.5 * jnp.array([x[1], -x[0]])


def no_gradient():
    numpyro.sample("x", ns.ScoreDistribution(swirl, (2,)))


def test_a_model_is_looked_at_with_draws_from_elsewhere():
    """The kernels of this package refuse this one; NumPyro's do not."""
    draws = posterior(scale=np.abs(RNG.normal(size=(4, 20))))
    report = ns.diagnose(draws, model=missing_normalizer)
    (fault,) = (fault for fault in report.faults if fault.name == "missing_normalizer")
    assert fault.where == "x" and "log_normalizer" in fault.advice
    report = ns.diagnose(posterior(x=RNG.normal(size=(4, 20, 2))), model=no_gradient)
    (fault,) = (fault for fault in report.faults if fault.name == "not_a_gradient")
    # The Jacobian is -I plus a rotation by 1/2.
    assert f"asymmetry {0.5 / np.sqrt(1.25):.2g}" in str(report)


def squares(x):
    return 2 * jnp.sum(x**2)


@pytest.fixture(scope="module")
def langevin():
    """Steps of the inverse curvature on a normal make the variance twice as large."""
    mcmc = MCMC(
        ns.ULA(potential_fn=squares, step_size=0.25, num_steps=10),
        num_warmup=0,
        num_samples=500,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), init_params=jnp.zeros((4, 2)))
    return mcmc


def test_a_given_step_is_judged_by_the_curvature_at_the_draws(langevin):
    report = ns.diagnose(langevin)
    assert names(report) == {"step_bias", "wrong_target"}
    (fault,) = (fault for fault in report.faults if fault.name == "step_bias")
    np.testing.assert_allclose(fault.measured, 1.0, rtol=1e-3)
    assert str(report).startswith("OverdampedLangevin: 4 chains of 500 draws, 1 site of 2 numbers")


def test_statistics_of_arviz_data_are_read():
    x = RNG.normal(size=(4, 500))
    data = ns.diagnostics.arviz.versions.pack_groups(
        {
            "posterior": posterior(x=x),
            "sample_stats": posterior(
                acceptance_rate=np.full((4, 500), 0.05), diverging=np.arange(500) < 2 * np.eye(4, 1)
            ),
        }
    )
    report = ns.diagnose(data)
    assert names(report) == {"low_acceptance", "diverging"}
    assert "chain 0 (2)" in str(report)


def test_a_rejection_is_no_divergence_and_hides_none():
    """Of blocks of Gibbs: MALA rejects what is not finite, NUTS has met an energy error."""
    flags = {f"block_states.{i}.diverging": np.eye(2, 50, k=i, dtype=bool) for i in (0, 1)}
    kernels = (ns.MALA(potential_fn=squares), NUTS(potential_fn=squares))
    parts = tuple(Part(f"block_states.{i}.", kernel, None) for i, kernel in enumerate(kernels))
    run = Run("", {}, flags, {}, parts, None, (), {})
    (fault,) = check_divergences(run).faults
    assert fault.measured == 2 and "Under HMC and NUTS" in fault.advice
    run = run._replace(fields={"block_states.0.diverging": flags["block_states.0.diverging"]})
    assert check_divergences(run).status == "fine"


def test_what_is_no_run_is_refused(langevin):
    with pytest.raises(TypeError, match="Expected what to_inference_data returns"):
        ns.diagnose({"x": RNG.normal(size=(4, 5))})
    with pytest.raises(ValueError, match="the posterior holds no draws"):
        ns.diagnose(posterior(x=np.ones((4, 0))))
    with pytest.raises(ValueError, match="An MCMC brings its model"):
        ns.diagnose(langevin, model=missing_normalizer)
    with pytest.raises(ValueError, match="no draws yet"):
        ns.diagnose(MCMC(NUTS(missing_normalizer), num_warmup=1, num_samples=1))
