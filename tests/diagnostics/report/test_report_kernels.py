# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What `diagnose` knows of kernels: their bias, whether draws depend, corners, files, particles."""

import json
from types import SimpleNamespace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from diagnostics.helpers import line, names, posterior, run
from numpyro.infer import NUTS

import numpyro_scores as ns
from numpyro_scores.diagnostics.report import thresholds
from numpyro_scores.diagnostics.report.kernel_checks import check_segments
from numpyro_scores.diagnostics.report.parts import ATTRIBUTE, Part, Record, read, written

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
Y = jnp.array([0.5, -0.3])


def drawn_by(kernel, draws, **statistics):
    """Draws with the attribute of a run of this kernel."""
    part = {"path": "", "kernel": kernel, "adjusted": True, "statistics": statistics}
    text = json.dumps({"sampler": kernel, "parts": [part], "particles": None})
    return draws.assign_attrs({ATTRIBUTE: text})


def denoiser(x, sigma):
    return x / (1 + sigma**2)


PRIOR = ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.02, 20.0), 2)


def known_noise(y):
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


def unknown_noise(y):
    x = numpyro.sample("x", PRIOR)
    noise = numpyro.sample("noise", dist.HalfNormal(0.5))
    numpyro.sample("y", dist.Normal(x, noise).to_event(1), obs=y)


@pytest.mark.parametrize(
    "kernel, direction",
    [
        ("DAPS", "noise scale comes out too large"),
        ("MomentMatching", "comes out too large"),
        ("DiffusionPosteriorSampling", "noise scale is too small"),
        ("SplitGibbs", "noise `coupling` added: draws spread too much"),
    ],
)
def test_a_biased_kernel_says_so_and_in_which_direction(kernel, direction):
    x, noise = RNG.normal(size=(8, 50, 2)), np.abs(RNG.normal(size=(8, 50)))
    # Without a model it is a question; with a noise scale that is inferred it is a fault.
    found = line(ns.diagnose(drawn_by(kernel, posterior(x=x))), "approximation")
    assert found.status == "unknown" and direction in found.text
    report = ns.diagnose(
        drawn_by(kernel, posterior(x=x, noise=noise)), model=unknown_noise, args=(Y,)
    )
    (fault,) = (fault for fault in report.faults if fault.name == "biased_kernel")
    assert fault.where == "noise" and "TwistedDiffusionSampler" in fault.advice


def test_independent_draws_need_no_estimate_of_their_number():
    draws = posterior(x=RNG.normal(size=(8, 50, 3)))
    for kernel in ("AnnealedLangevin", "DAPS"):
        report = ns.diagnose(drawn_by(kernel, draws))
        assert report.faults == () and "(100 wanted)" in line(report, "tail ESS").text
    few = ns.diagnose(drawn_by("AnnealedLangevin", posterior(x=RNG.normal(size=(4, 15)))))
    advice = {fault.advice for fault in few.faults if fault.name == "bulk_ess"}
    assert advice == {"Draws are independent, so that more of them is all that it takes."}
    # Of unknown kernels as many draws as are wanted do, too, if they are independent.
    assert ns.diagnose(draws).faults == ()
    assert thresholds.ess_of(8, 400) == 280 and thresholds.ess_of(4, 200) == 400
    assert thresholds.ess_of(4, 4_000) == 400


@pytest.mark.parametrize(
    "kernel, words",
    [("NUTS", "dense_mass=True"), ("BlockGibbs", "(num_steps)"), ("ReplicaExchange", "more rungs")],
)
def test_advice_is_that_for_the_kernel(kernel, words):
    slow = RNG.normal(size=(4, 300)).cumsum(axis=1)
    report = ns.diagnose(drawn_by(kernel, posterior(x=slow)))
    (advice,) = {fault.advice for fault in report.faults if fault.name == "bulk_ess"}
    assert words in advice and ("adapt_mass_matrix" in advice) == (kernel == "MALA")


def shifted():
    numpyro.sample("x", dist.Normal(1, 1))


def test_an_exact_kernel_is_not_told_to_compare_with_another():
    draws = posterior(x=RNG.normal(size=(4, 300)))
    advice = {}
    for kernel in ("NUTS", "MALA", "OverdampedLangevin"):
        report = ns.diagnose(drawn_by(kernel, draws), model=shifted)
        (advice[kernel],) = (f.advice for f in report.faults if f.name == "wrong_target")
    assert "NUTS" not in advice["NUTS"] and "MALA" not in advice["MALA"]
    assert "compare with MALA or NUTS" in advice["OverdampedLangevin"]


def twisted(x, sigma):
    """The denoised value turned by an angle: no gradient, though nearly a contraction."""
    return (x + 0.8 * sigma * jnp.array([x[1], -x[0]]) / (1 + sigma)) / (1 + sigma**2)


def test_a_prior_whose_value_is_not_its_score_is_no_fault_of_the_chain():
    prior = ns.DiffusionPrior(twisted, ns.VarianceExploding(0.3, 5.0), 2)

    def model():
        numpyro.sample("x", prior)

    # The first set of draws is far from the score's density, so that the test is sure of itself.
    report = ns.diagnose(
        drawn_by("NUTS", posterior(x=0.6 * RNG.normal(size=(4, 300, 2)))), model=model
    )
    assert "wrong_target" not in names(report) and "not_a_gradient" not in names(report)
    stein = line(report, "Stein discrepancy")
    assert stein.status == "unknown" and "value and score of the density of ['x']" in stein.text
    assert line(report, "score of x").status == "unknown"


@pytest.mark.parametrize(
    "kernel, slope, status",
    [
        ("AnnealedLangevin", 0.4, "fault"),
        ("MALA", 0.4, "unknown"),
        ("AnnealedLangevin", 0.0, "fine"),
    ],
)
def test_levels_that_disagree_are_told_and_a_fault_where_they_are_followed(kernel, slope, status):
    def energy(x, sigma):  # of a standard normal with noise, and what a level adds
        variance = 1 + sigma**2
        return jnp.sum(x**2) / variance / 2 + jnp.log(variance) + slope * jnp.log(sigma)

    prior = ns.DiffusionPrior(energy, ns.VarianceExploding(0.02, 20.0), 2)

    def model():
        numpyro.sample("x", prior)

    draws = drawn_by(kernel, posterior(x=RNG.normal(size=(4, 100, 2))))
    found = line(ns.diagnose(draws, model=model), "levels of x")
    assert found.status == status
    nats = 0.4 * np.log(1_000) if slope else 0.0
    assert f"differ by {nats:.2g} nats" in found.text or not slope


def metropolis(log_density, start, scale, num_draws=2_000):
    """Random walks of one step size, four chains side by side."""
    x = np.array(start, float)
    draws = np.empty((num_draws, *x.shape))
    for t in range(num_draws):
        proposal = x + scale * RNG.normal(size=x.shape)
        accepted = np.log(RNG.random(len(x))) < log_density(proposal) - log_density(x)
        x = np.where(accepted[:, None], proposal, x)
        draws[t] = x
    return np.swapaxes(draws, 0, 1)


def funnel(x):
    return -(x[:, 0] ** 2) / 8 - x[:, 0] - np.exp(-x[:, 0]) * (x[:, 1] ** 2 + x[:, 2] ** 2) / 2


def test_a_corner_in_which_chains_hardly_move_is_named():
    start = np.concatenate([np.full((4, 1), 2.0), np.zeros((4, 2))], axis=1)
    x = metropolis(funnel, start, 1.5)
    report = ns.diagnose(posterior(v=x[..., 0], x=x[..., 1:]))
    (fault,) = (fault for fault in report.faults if fault.name == "stuck_corner")
    assert fault.where == "v" and "where v is smallest" in str(report)
    moves = np.diff(x[..., 0]) != 0
    level = np.quantile(x[:, :-1, 0], 0.05)
    corner = x[:, :-1, 0] <= level
    np.testing.assert_allclose(fault.measured, moves[corner].mean())
    np.testing.assert_allclose(fault.threshold, moves[~corner].mean() * 2 / 3)


@pytest.mark.parametrize("d", [1, 5])
def test_tails_of_a_normal_distribution_are_no_corner(d):
    x = metropolis(lambda x: -np.sum(x**2, axis=1) / 2, np.zeros((4, d)), 2.4 / np.sqrt(d))
    found = line(ns.diagnose(posterior(x=x)), "moves in corners")
    assert found.status == "fine", found


def test_independent_draws_have_no_corners():
    report = ns.diagnose(posterior(x=RNG.normal(size=(4, 500))))
    assert not [line for line in report.lines if line.title == "moves in corners"]


PARTICLES = {
    "num_ancestors": 400,
    "smallest_ess": 300.0,
    "smallest_accept_prob": 0.4,
    "log_evidence": -3.2,
    "log_evidence_error": 0.1,
}


@pytest.mark.parametrize(
    "changed, fault",
    [
        ({}, None),
        ({"num_ancestors": 7}, "few_ancestors"),
        ({"smallest_ess": 2.0}, "particle_ess"),
        ({"smallest_accept_prob": 0.01}, "low_acceptance"),
        ({"log_evidence_error": 3.0}, "evidence_error"),
    ],
)
def test_particles_are_judged_by_what_is_known_of_them(changed, fault):
    text = json.dumps({"sampler": "TemperedSMC", "parts": [], "particles": PARTICLES | changed})
    draws = posterior(x=RNG.normal(size=(1, 1_000))).assign_attrs({ATTRIBUTE: text})
    report = ns.diagnose(draws)
    assert names(report) == ({fault} if fault else set())
    assert str(report).startswith("TemperedSMC: 1,000 particles, 1 site of 1 number")
    assert not {"R-hat", "bulk ESS", "moving chains"} & {line.title for line in report.lines}
    assert "-3.20 +- " in line(report, "log evidence").text
    # No effective sample size, which would be that of a chain.
    assert np.isnan(report.estimates[0].bulk_ess) and abs(report.estimates[0].mean) < 0.2


def test_a_sampler_of_particles_is_diagnosed():
    def model(y):
        x = numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)

    smc = ns.TemperedSMC(model, num_particles=300, progress_bar=False)
    smc.run(jax.random.key(0), Y)
    report = ns.diagnose(smc)
    assert report.faults == () and line(report, "Stein discrepancy").status == "fine"
    assert line(report, "log evidence").text.startswith(f"{smc.log_evidence:.2f} +- ")
    again = ns.diagnose(ns.to_inference_data(smc), model=model, args=(Y,))
    assert [line.text for line in again.lines] == [line.text for line in report.lines]
    with pytest.raises(ValueError, match="A TemperedSMC brings its model"):
        ns.diagnose(smc, model=model)


def test_a_file_keeps_the_kernel_and_what_it_said(tmp_path):
    mcmc = run(ns.MALA(known_mean), Y, draws=200, chains=4, extra_fields=())
    path = tmp_path / "run.nc"
    ns.to_inference_data(mcmc).to_netcdf(path, engine="h5netcdf")
    again = az.from_netcdf(path, engine="h5netcdf")
    live, kept = ns.diagnose(mcmc), ns.diagnose(again, model=known_mean, args=(Y,))
    assert str(kept).startswith("MALA: 4 chains of 200 draws")
    assert {x.title: x.text for x in kept.lines} == {x.title: x.text for x in live.lines}
    again.close()


def known_mean(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


def test_what_is_written_of_a_kernel_is_read_again():
    class Elsewhere(NUTS):
        pass

    class State:
        mean_accept_prob = np.array([0.5, 0.25])
        other = 3

    parts = (Part("block_states.0.", Elsewhere(known_mean), State()),)
    found = read(written(Record("Gibbs", parts)))
    assert found.sampler == "Gibbs" and found.parts[0].path == "block_states.0."
    assert found.parts[0].kind.__name__ == "Elsewhere" and not found.parts[0].is_alive
    np.testing.assert_array_equal(found.parts[0].state.mean_accept_prob, [0.5, 0.25])
    assert not hasattr(found.parts[0].state, "other")
    assert read(written(Record("MALA", (Part("", ns.MALA(known_mean), None),)))).parts[0].kind is (
        ns.MALA
    )
    for text in (None, "", "{}", "[1]", "3"):
        assert read(text) is None


def test_proposals_whose_integral_is_not_known_are_counted():
    for shares, status in [((0.0, 0.0), None), ((0.0, 0.1), "fine"), ((0.05, 0.6), "fault")]:
        state = SimpleNamespace(mean_unresolved=np.array(shares))
        part = Part("", ns.MALA(potential_fn=jnp.sum), state)
        found = list(check_segments(SimpleNamespace(parts=[part])))
        assert [line.status for line in found] == ([] if status is None else [status])
        if status == "fault":
            (fault,) = found[0].faults
            assert fault.where == "chain 1" and "num_nodes=13" in fault.advice
