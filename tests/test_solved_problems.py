# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The references of the solved problems, each against a closed form or a sum over all there is."""

import argparse
import itertools
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from scipy import stats

from benchmarks._arguments import sizes
from benchmarks.exact import discrete, finite_points, interacting, levy
from benchmarks.exact.__main__ import main as exact_main
from benchmarks.exact.levy_prior import COARSE_ABOVE, LOCAL_BELOW, batched, energy
from benchmarks.exact.levy_reference import gibbs, lattice_posterior
from benchmarks.exact.problems import Cell, Programs, run_cell

LENGTH = 16
LAWS = levy.laws(LENGTH)
# Local nodes, the common lattice and the coarse one.
LEVELS = (0.05, 0.4, 1.3, 20.0)
jitted = jax.jit(batched)
energies = jax.jit(jax.vmap(energy, in_axes=(None, 0, None)))


def walk_covariance(length):
    steps = np.arange(1, length + 1)
    return np.minimum.outer(steps, steps) * float(LAWS["Gauss"].scale) ** 2


@pytest.mark.parametrize("sigma", LEVELS)
def test_gaussian_walks_have_a_linear_denoiser_and_a_quadratic_energy(sigma):
    assert LEVELS[1] < LOCAL_BELOW < LEVELS[2] < COARSE_ABOVE < LEVELS[3]
    covariance = walk_covariance(LENGTH)
    gain = covariance @ np.linalg.inv(covariance + sigma**2 * np.eye(LENGTH))
    rng = np.random.default_rng(0)
    x = rng.multivariate_normal(np.zeros(LENGTH), covariance, size=3)
    x = (x + sigma * rng.normal(size=x.shape)).astype(np.float32)
    assert np.abs(jitted(LAWS["Gauss"], x, sigma) - x @ gain.T).max() < 1e-4
    law = stats.multivariate_normal(cov=covariance + sigma**2 * np.eye(LENGTH))
    np.testing.assert_allclose(energies(LAWS["Gauss"], x, sigma), -law.logpdf(x), atol=1e-3)


def test_a_point_beyond_the_lattice_is_drawn_back_to_it():
    x = np.full((1, LENGTH), 80.0, np.float32)
    assert np.all(np.abs(jitted(LAWS["Student"], x, 1.3)) <= 32.0)


@pytest.mark.parametrize("sigma", [0.3, 1.5])
@pytest.mark.parametrize("name", ["Laplace", "Bernoulli-Laplace", "Student"])
def test_denoiser_and_energy_of_two_numbers_are_double_integrals(name, sigma):
    zero, _, laplace, cauchy, scale = (float(a) for a in LAWS[name])
    spacing, x = 0.01, np.array([0.7, 1.1])
    u = spacing * np.arange(-1500, 1501)
    # Between two nodes the Laplace density is linear but for its curvature: no corner is cut.
    p = laplace * np.exp(-np.abs(u / scale)) / 2 + cauchy / (np.pi * (1 + (u / scale) ** 2))
    p *= spacing / scale
    p[1500] += zero
    first = p * np.exp(-(((x[0] - u) / sigma) ** 2) / 2)
    joint = first[:, None] * p
    total = u[:, None] + u
    joint *= np.exp(-(((x[1] - total) / sigma) ** 2) / 2)
    exact = np.array([(joint * u[:, None]).sum(), (joint * total).sum()]) / joint.sum()
    found = jitted(LAWS[name], x[None].astype(np.float32), sigma)[0]
    np.testing.assert_allclose(found, exact, atol=1e-4)
    value = energies(LAWS[name], x[None].astype(np.float32), sigma)[0]
    np.testing.assert_allclose(value, np.log(2 * np.pi * sigma**2 / joint.sum()), atol=1e-3)


@pytest.mark.parametrize("name", ["blur", "mask"])
def test_the_references_of_gaussian_walks_are_kriging(name):
    """Of the walk with the noise of the smallest level, here one that is not small."""
    level, operator = 0.3, levy.operators(LENGTH)[name]
    problem = levy.make_problems(LAWS["Gauss"], operator, 1)[0]
    noise, y = float(problem.noise), np.asarray(problem.y, np.float64)
    draws = levy.reference(problem, 0, level=level)
    prior = walk_covariance(LENGTH) + level**2 * np.eye(LENGTH)
    marginal = operator @ prior @ operator.T + noise**2 * np.eye(LENGTH)
    gain = prior @ operator.T @ np.linalg.inv(marginal)
    sd = np.sqrt(np.diag(prior - gain @ operator @ prior))
    z = (draws.mean(axis=0) - gain @ y) / sd
    assert np.abs(z).max() < 5 / len(draws) ** 0.5
    np.testing.assert_allclose(draws.std(axis=0) / sd, 1, atol=0.05)


def test_a_reference_whose_chains_differ_fails(monkeypatch):
    monkeypatch.setattr(levy, "GIBBS_LENGTHS", (4,))
    monkeypatch.setattr(levy, "LARGEST_R_HAT", 0.5)
    problem = levy.make_problems(LAWS["Laplace"], levy.operators(LENGTH)["blur"], 1)[0]
    with pytest.raises(ValueError, match="chains of the Gibbs reference have not met: R-hat"):
        levy.reference(problem, 0)


@pytest.mark.parametrize("name", ["Laplace", "Bernoulli-Laplace", "Student"])
def test_the_two_references_agree_on_other_walks(name):
    problem = levy.make_problems(LAWS[name], np.eye(LENGTH), 1)[0]
    noise, y = float(problem.noise), np.asarray(problem.y, np.float64)
    x = lattice_posterior(LAWS[name], np.ones(LENGTH, bool), y, noise, 4_000, 0)
    chains = gibbs(LAWS[name], np.eye(LENGTH), y, noise)
    assert chains.r_hat < levy.LARGEST_R_HAT
    z = chains.draws.reshape(-1, LENGTH)
    assert np.abs((z.mean(axis=0) - x.mean(axis=0)) / x.std(axis=0)).max() < 0.12
    np.testing.assert_allclose(z.std(axis=0) / x.std(axis=0), 1, atol=0.2)


def test_exact_draws_have_no_excess_and_cover_what_they_should():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(4_000, LENGTH))
    found = [levy.figures(exact, rng.normal(size=(39, LENGTH))) for _ in range(60)]
    excess, covered = np.mean([list(figures.values()) for figures in found], axis=0)
    assert abs(excess) < 0.05
    assert abs(covered - 0.9) < 0.01
    shifted = levy.figures(exact, rng.normal(size=(39, LENGTH)) + 1)
    assert abs(shifted[levy.EXCESS] - 10 * np.log10(2)) < 0.5


def test_the_law_of_the_first_two_of_five_discrete_numbers_is_a_sum():
    y = discrete.make_problem(3, 0)
    exact = discrete.exact_posterior(y)
    joint = np.zeros((discrete.NUM_LEVELS,) * 2)
    for i, j in itertools.product(range(discrete.NUM_LEVELS), repeat=2):
        values = discrete.LEVELS
        residuals = [y[0] - values[i] - values[j], y[1] - values[j] - values]
        p = [np.exp(-((r / discrete.NOISE) ** 2) / 2) for r in residuals]
        joint[i, j] = discrete.PRIOR[i] * discrete.PRIOR[j] * p[0] * np.sum(discrete.PRIOR * p[1])
    joint /= joint.sum()
    np.testing.assert_allclose(exact.first[:, None] * exact.next[0], joint, atol=1e-6)
    draws = discrete.exact_draws(exact, random.key(0), 20_000)
    counts = np.bincount(draws[:, 2], minlength=discrete.NUM_LEVELS) / len(draws)
    np.testing.assert_allclose(counts, joint.sum(axis=0) @ exact.next[1], atol=0.02)


def test_the_ten_gaussians_have_the_posterior_of_importance_weights():
    """Of two components in two dimensions, where draws of the prior with weights reach it."""
    rng = np.random.default_rng(0)
    means = jnp.asarray([[1.0, 0.0], [-1.0, 0.5]])
    problem = interacting.Problem(
        means, jnp.asarray(0.4), jnp.asarray([[0.6, 0.8]]), jnp.asarray([0.1])
    )
    x = means[rng.integers(2, size=200_000)] + 0.4**0.5 * rng.normal(size=(200_000, 2))
    residual = 0.1 - x @ np.array([0.6, 0.8])
    weights = np.exp(-((residual / interacting.NOISE) ** 2) / 2)
    weights = np.asarray(weights / weights.sum())
    draws = interacting.exact_draws(problem, random.key(0), 50_000)
    np.testing.assert_allclose(draws.mean(axis=0), weights @ np.asarray(x), atol=0.02)
    second = (np.asarray(x) * weights[:, None]).T @ np.asarray(x)
    np.testing.assert_allclose(np.asarray(draws).T @ np.asarray(draws) / 50_000, second, atol=0.02)


def test_weights_of_points_are_likelihoods_and_exact_draws_have_them():
    problem = finite_points.make_problem(finite_points.LIKELIHOODS["Poisson counts"], 0)
    weights = finite_points.weights_of(finite_points.LIKELIHOODS["Poisson counts"], problem)
    rate = float(problem.scale) * np.exp(finite_points.POINTS @ np.asarray(problem.operator).T)
    logits = (np.asarray(problem.y) * np.log(rate) - rate).sum(axis=1)
    exact = np.exp(logits - logits.max())
    np.testing.assert_allclose(weights, exact / exact.sum(), atol=1e-3)
    assert 2 < 1 / np.sum(weights**2) < 12
    found = finite_points.distance(
        weights, finite_points.exact_draws(weights, random.key(0), 4_000)
    )
    assert found[finite_points.VARIATION] < 0.04
    assert found[finite_points.AWAY] == 0
    wrong = finite_points.exact_draws(np.full(100, 0.01), random.key(0), 4_000)
    assert finite_points.distance(weights, wrong)[finite_points.VARIATION] > 0.5


def test_a_figure_that_is_no_number_fails():
    cell = Cell(
        "broken",
        lambda: None,
        None,
        [()],
        lambda i, key, num_draws: jnp.zeros((num_draws, 1)),
        lambda i, x: {"distance": np.nan},
        2,
        (),
    )
    with pytest.raises(ValueError, match="broken, problem 0: exact draws"):
        next(run_cell(cell, Programs()))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--samplers", "Gibs"], r"No cell has the samplers \['Gibs'\], but \['BlockGibbs'"),
        (["--cells", "5 numbers", "7 numbers"], r"No cell has any of \['7 numbers'\].*10 numbers"),
        (["--draws", "0"], "must be a positive integer, got '0'"),
        (["--problems", "-1"], "must be a positive integer, got '-1'"),
        (["--sets", "discret"], "invalid choice: 'discret'"),
    ],
)
def test_a_benchmark_of_nothing_says_so_before_it_runs(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["exact", "--sets", "discrete", *arguments])
    with pytest.raises(SystemExit) as error:
        exact_main()
    assert re.search(words, f"{error.value} {capsys.readouterr().err}")


def test_a_mixture_has_an_even_number_of_unknowns_and_no_more_data():
    assert sizes("80,40") == (80, 40)
    for text in "7,1", "8,9", "8", "8,1,2", "8,x", "8,0":
        with pytest.raises(argparse.ArgumentTypeError, match="such as 8,1; got"):
            sizes(text)
