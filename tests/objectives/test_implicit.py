# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Implicit score matching."""

import jax
import jax.numpy as jnp
import numpy as np

from numpyro_scores.objectives import ImplicitScoreMatching


def test_it_is_the_fisher_divergence_up_to_the_data(x64):
    # A two-mode density on a fine grid: the trapezoid rule on a smooth, decaying integrand.
    grid = np.linspace(-12, 12, 2001)[:, None]

    def data_energy(x):
        return -jnp.logaddexp(-((x[0] - 2) ** 2) / 2, -((x[0] + 2) ** 2) / 2)

    density = np.exp(-jax.vmap(data_energy)(grid))
    density /= density.sum()
    data_score = jax.vmap(lambda x: -jax.grad(data_energy)(x))(grid)[:, 0]

    def implicit(score):
        one = jax.jit(jax.vmap(lambda x: ImplicitScoreMatching()(score, x[None])))
        return np.sum(density * one(grid))

    def fisher(score):
        return np.sum(density * (jax.vmap(score)(grid)[:, 0] - data_score) ** 2) / 2

    constant = np.sum(density * data_score**2) / 2
    for score in (lambda x: -x, jnp.sin, lambda x: jnp.tanh(x) - x / 3):
        np.testing.assert_allclose(implicit(score), fisher(score) - constant, rtol=1e-9)


def test_the_gradient_is_that_of_the_closed_form(x64):
    # E(x) = sum x^4 / 4 * a: the score is -a x^3, the trace -3 a sum x^2.
    x = np.random.default_rng(0).normal(size=(5, 2))

    def loss(a):
        return ImplicitScoreMatching()(lambda x: a * jnp.sum(x**4) / 4, x)

    expected = np.mean(np.sum(2.0 * x**6 - 3 * x**2, axis=1))
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(2.0), expected, rtol=1e-12)
