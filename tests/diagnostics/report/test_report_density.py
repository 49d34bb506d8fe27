# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Exact draws of densities to which Stein's identity does not apply, or not to all elements."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from diagnostics.helpers import line, names, posterior
from jax import random
from numpyro.contrib.control_flow import scan

import numpyro_scores as ns
from numpyro_scores.diagnostics.report import stein_checks
from numpyro_scores.diagnostics.report.probes import probe

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
SHAPE = (4, 500)


def by_inversion(log_density, grid):
    """Exact draws of a density on a line."""
    density = np.exp(log_density(grid) - np.max(log_density(grid)))
    cumulated = np.cumsum(density)
    return np.interp(RNG.random(SHAPE), cumulated / cumulated[-1], grid)


def bounded(y):
    bound = numpyro.sample("bound", dist.Exponential(0.5))
    with numpyro.plate("datum", len(y)):
        numpyro.sample("y", dist.Uniform(0.0, bound), obs=y)


def test_a_hard_limit_is_no_fault():
    """The largest datum bounds the parameter, where its density is largest."""
    y = jnp.array([0.3, 1.9, 1.2, 0.7, 1.6])
    draws = by_inversion(lambda b: -0.5 * b - 5 * np.log(b), np.linspace(1.9, 60, 400_001))
    report = ns.diagnose(posterior(bound=draws), model=bounded, args=(y,))
    assert report.faults == ()
    stein = line(report, "Stein discrepancy")
    assert stein.status == "unknown"
    assert "does not vanish at the border of its support" in stein.text


def stepped():
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.factor("step", jnp.where(x > 0.3, 0.0, -2.0))


def test_a_jump_is_no_fault():
    draws = by_inversion(lambda x: -(x**2) / 2 - 2.0 * (x <= 0.3), np.linspace(-6, 6, 400_001))
    report = ns.diagnose(posterior(x=draws), model=stepped)
    assert report.faults == () and "the density jumps" in line(report, "Stein discrepancy").text


@pytest.mark.parametrize(
    "energy, has_border, jumps",
    [
        (lambda x: jnp.sum(x**2) / 2, False, False),
        (lambda x: jnp.where(x[0] > 0, x[0], jnp.inf), True, False),
        # It vanishes at the border, as a normal distribution of the logarithm does.
        (lambda x: jnp.where(x[0] > 0, x[0] - 2 * jnp.log(jnp.abs(x[0])), jnp.inf), False, False),
        (lambda x: jnp.where(x[0] > 0, x[0], jnp.nan), True, False),
        (lambda x: x[0] + 3.0 * (x[0] > 1), False, True),
        # A kink is none.
        (lambda x: 5 * jnp.abs(x[0] - 1), False, False),
    ],
)
def test_the_probe_knows_borders_and_jumps(energy, has_border, jumps):
    x = jnp.asarray(RNG.exponential(size=(200, 1)), jnp.float32)
    found = probe(energy, x, random.key(0))
    assert (found.border > 0) == has_border and (found.jump > 0.5) == jumps


def normal():
    numpyro.sample("x", dist.Normal(0, 1))


@pytest.mark.parametrize("p_value, status", [(0.02, "fine"), (0.008, "unknown"), (5e-4, "fault")])
def test_a_weak_p_value_is_a_question(p_value, status, monkeypatch):
    def test(*args, **kwargs):
        return ns.diagnostics.KernelSteinDiscrepancy(0.1, p_value, 0.1, 1.0)

    monkeypatch.setattr(stein_checks, "kernel_stein_discrepancy", test)
    report = ns.diagnose(posterior(x=RNG.normal(size=SHAPE)), model=normal)
    assert line(report, "Stein discrepancy").status == status
    assert names(report) == ({"wrong_target"} if status == "fault" else set())


Y = jnp.array([0.3, 1.9, jnp.nan, 0.7, jnp.nan])
MASK = ~jnp.isnan(Y)


def partly_observed(y, mask):
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    with numpyro.plate("datum", 5):
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=y, obs_mask=mask)


def test_elements_that_a_mask_leaves_out_are_no_parameters():
    variance = 1 / (1 / 4 + 3)
    mu = 2.9 * variance + np.sqrt(variance) * RNG.normal(size=SHAPE)
    twins = mu[..., None] + RNG.normal(size=(*SHAPE, 5))
    # Those of what was observed go where they like.
    twins[..., MASK] = RNG.normal(size=(*SHAPE, 3)).cumsum(axis=1)
    y = np.where(MASK, Y, twins)
    draws = posterior(mu=mu, y_unobserved=twins, y=y)
    report = ns.diagnose(draws, model=partly_observed, args=(Y, MASK))
    assert report.faults == ()
    assert "3 of y_unobserved have no density" in line(report, "elements").text
    assert line(report, "Stein discrepancy").status == "fine"
    assert {element.name for element in report.estimates} == {
        *("mu", "y_unobserved[2]", "y_unobserved[4]", "y[2]", "y[4]")
    }
    # A wrong posterior of what is left is found.
    report = ns.diagnose(
        posterior(mu=mu + 1.0, y_unobserved=twins, y=y), model=partly_observed, args=(Y, MASK)
    )
    assert names(report) == {"wrong_target"}


def flat_prior():
    numpyro.sample("x", dist.Uniform(-1.0, 1.0))
    with numpyro.handlers.mask(mask=jnp.array([True, False])):
        numpyro.sample("v", dist.Normal(0, 1).expand([2, 3]).to_event(1))


def test_a_uniform_density_is_one():
    x = RNG.uniform(-1, 1, size=SHAPE)
    report = ns.diagnose(posterior(x=x, v=RNG.normal(size=(*SHAPE, 2, 3))), model=flat_prior)
    assert "3 of v have no density" in line(report, "elements").text
    assert len(report.estimates) == 4 and report.faults == ()


def series(y):
    def step(x, y_t):
        x = numpyro.sample("x", dist.Normal(0.9 * x, 0.7))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=y_t)
        return x, None

    scan(step, jnp.zeros(()), y)
    numpyro.prng_key()


def test_sites_within_a_scan_are_looked_at():
    y = jnp.array([0.5, 1.0, -0.3])
    path = np.tril(0.9 ** (np.arange(3)[:, None] - np.arange(3)).clip(0)) * 0.7
    prior = path @ path.T
    gain = prior @ np.linalg.inv(prior + 0.25 * np.eye(3))
    root = np.linalg.cholesky(prior - gain @ prior)
    x = gain @ np.asarray(y) + RNG.normal(size=(*SHAPE, 3)) @ root.T
    report = ns.diagnose(posterior(x=x), model=series, args=(y,))
    assert report.faults == () and line(report, "Stein discrepancy").status == "fine"
    report = ns.diagnose(posterior(x=1.5 * x), model=series, args=(y,))
    assert names(report) == {"wrong_target"}


def test_a_model_that_cannot_be_called_is_told():
    def of_real_data(y):
        numpyro.sample("x", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(0, 1), obs=y["key"])

    report = ns.diagnose(posterior(x=RNG.normal(size=SHAPE)), model=of_real_data, args=(1.0,))
    assert report.faults == ()
    assert "the model cannot be looked at (TypeError" in line(report, "Stein discrepancy").text

    def of_complex_data(y):
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(x, 1), obs=y)

    data = posterior(x=RNG.normal(size=SHAPE))
    report = ns.diagnose(data, model=of_complex_data, args=(jnp.array(1.0 + 1j),))
    assert "complex" in line(report, "Stein discrepancy").text


def rotated(angle, x):
    return -x + angle * jnp.array([x[1], -x[0]])


def of_score(angle):
    score = jax.tree_util.Partial(rotated, angle)
    numpyro.sample("x", ns.ScoreDistribution(score, 2))


def test_a_score_is_judged_by_nats_and_not_by_its_share():
    draws = posterior(x=RNG.normal(size=(*SHAPE, 2)))
    report = ns.diagnose(draws, model=of_score, args=(0.02,))
    assert report.faults == ()
    found = line(report, "score of x")
    assert found.text.startswith("nearly a gradient") and "asymmetry 0.02" in found.text
    report = ns.diagnose(draws, model=of_score, args=(0.5,))
    (fault,) = (fault for fault in report.faults if fault.name == "not_a_gradient")
    # Twice the area of a triangle of normal points has a mean square of 6.
    np.testing.assert_allclose(fault.measured, 0.5 * np.sqrt(6), rtol=0.35)
    assert fault.threshold == 0.5
