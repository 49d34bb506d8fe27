# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Objectives that need no normaliser: contrastive divergence, pseudo-likelihood, ratio matching."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from scipy.special import log_softmax, softmax

import numpyro_scores as ns
from numpyro_scores.objectives import (
    ContrastiveDivergence,
    PersistentContrastiveDivergence,
    PseudoLikelihood,
    RatioMatching,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

rng = np.random.default_rng(0)
WEIGHTS, VISIBLE, HIDDEN = rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=3)


def rbm(weights=WEIGHTS, visible_bias=VISIBLE, hidden_bias=HIDDEN):
    return ns.BernoulliRBM(weights, visible_bias, hidden_bias)


DISTRIBUTIONS = {
    "ising": (lambda: ns.Ising((2, 3), 0.4, rng.normal(size=(2, 3))), (-1, 1)),
    "potts": (lambda: ns.Potts((2, 2), 3, 0.7, rng.normal(size=3)), (0, 1, 2)),
    "rbm": (rbm, (0, 1)),
    "both sides": (lambda: rbm().joint(), (0, 1)),
}


def points(states, shape):
    grid = itertools.product(states, repeat=int(np.prod(shape)))
    return jnp.array(list(grid), float).reshape(-1, *shape)


def log_likelihood(d, x):
    return jnp.mean(d.log_prob(x)) - ns.log_normalizer(d, key=random.key(0)).estimate


def test_after_long_chains_the_gradient_is_that_of_the_likelihood():
    n = 20_000
    x = jnp.tile(jnp.array([[0.0, 1, 1, 0], [1, 1, 0, 1]]), (n // 2, 1))
    objective = ContrastiveDivergence(num_steps=60)
    gradient = jax.jit(jax.grad(objective))(rbm(), x, key=random.key(0))
    exact = jax.jit(jax.grad(lambda d: -log_likelihood(d, x[:2])))(rbm())
    # What is averaged lies in [0, 1].
    for name in ("weights", "visible_bias", "hidden_bias"):
        np.testing.assert_allclose(getattr(gradient, name), getattr(exact, name), atol=2 / n**0.5)


def test_nothing_of_the_chains_is_differentiated():
    """The derivative through a step of ULA would be that of its drift."""
    energy = jax.tree_util.Partial(lambda scale, x: scale * jnp.sum(x**2) / 2, jnp.array(2.0))
    x = jnp.array([[1.0], [-2.0]])
    sampler = partial(ns.ULA, step_size=0.1, num_steps=1)
    moved = ns.objectives.contrastive.moved_points(energy, sampler, random.key(0), x, 1)
    gradient = jax.grad(ContrastiveDivergence(sampler=sampler), allow_int=True)(
        energy, x, key=random.key(0)
    )
    expected = jnp.mean(x**2) / 2 - jnp.mean(moved**2) / 2
    np.testing.assert_allclose(gradient.args[0], expected, rtol=1e-5)


def test_chains_of_a_kernel_have_keys_of_their_own():
    sampler = partial(ns.ULA, step_size=0.1, num_steps=1)
    x = jnp.zeros((3, 2))
    moved = ns.objectives.contrastive.moved_points(
        lambda x: jnp.sum(x**2) / 2, sampler, random.key(0), x, 1
    )
    assert len(np.unique(np.asarray(moved))) == 6


def test_persistent_chains_go_on():
    objective = PersistentContrastiveDivergence(num_chains=50, num_steps=3)
    x = jnp.tile(jnp.array([[0.0, 1, 1, 0]]), (8, 1))
    first = objective.init(x, random.key(0))
    loss, second = jax.jit(objective)(rbm(), x, first, key=random.key(1))
    expected = rbm().gibbs_steps(random.split(random.key(1), 3)[2], first, 3)
    np.testing.assert_array_equal(second, expected)
    assert not np.array_equal(second, first)
    energies = [-jnp.mean(jax.jit(rbm().log_prob)(points)) for points in (x, second)]
    np.testing.assert_allclose(loss, energies[0] - energies[1], rtol=1e-5)
    fitted = ns.fit(
        rbm(), objective, x, key=random.key(0), num_steps=3, batch_size=8, progress_bar=False
    )
    assert fitted.objective_state.shape == (50, 4)
    assert not np.array_equal(fitted.objective_state, x[:1].repeat(50, 0))


@pytest.mark.slow
def test_restarted_chains_are_points_of_the_batch():
    x = jnp.ones((5, 4))
    objective = PersistentContrastiveDivergence(num_chains=4000, restart_prob=0.25)
    # Units that never change: a chain is where it was, or at a point of the batch.
    frozen = rbm(np.zeros((4, 3)), np.full(4, -50.0))
    still = ns.BernoulliRBM(np.zeros((4, 3)), np.full(4, 50.0), np.zeros(3))
    _, chains = objective(still, x, jnp.zeros((4000, 4)), key=random.key(0))
    np.testing.assert_array_equal(chains, 1)
    _, chains = objective(frozen, x, jnp.zeros((4000, 4)), key=random.key(0))
    np.testing.assert_array_equal(chains, 0)
    sampler = partial(ns.ULA, step_size=1e-12, num_steps=1)
    objective = PersistentContrastiveDivergence(4000, sampler=sampler, restart_prob=0.25)
    _, chains = objective(lambda x: jnp.sum(x**2), x, jnp.zeros((4000, 4)), key=random.key(0))
    share = np.mean(np.round(chains[:, 0]) == 1)
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


@pytest.mark.parametrize("objective", [ContrastiveDivergence(5), PersistentContrastiveDivergence()])
def test_a_machine_is_learned_from_its_draws(objective):
    x = points((0, 1), (4,))
    log_prob = jax.jit(lambda d: d.log_prob(x))
    truth = softmax(np.asarray(log_prob(rbm()), float))
    data = np.asarray(x)[np.random.default_rng(0).choice(16, 4000, p=truth)]
    start = rbm(0.1 * WEIGHTS, np.zeros(4), np.zeros(3))
    fitted = ns.fit(
        start,
        objective,
        data,
        key=random.key(1),
        num_steps=3000,
        ema_decay=0.99,
        progress_bar=False,
    )
    divergences = [
        truth @ (np.log(truth) - log_softmax(np.asarray(log_prob(d), float)))
        for d in (start, fitted.module)
    ]
    assert divergences[0] > 0.2 and divergences[1] < 0.01


@pytest.mark.slow
def test_a_continuous_energy_is_learned_with_langevin_chains():
    energy = jax.tree_util.Partial(
        lambda precision, x: precision * jnp.sum(x**2) / 2, jnp.array(1.0)
    )
    data = 0.5 * random.normal(random.key(0), (4000, 1))
    sampler = partial(ns.MALA, step_size=0.2, num_steps=10)
    objective = PersistentContrastiveDivergence(200, sampler=sampler)
    fitted = ns.fit(
        energy,
        objective,
        data,
        key=random.key(1),
        num_steps=1500,
        optimizer=optax.adam(0.05),
        ema_decay=0.99,
        progress_bar=False,
    )
    np.testing.assert_allclose(fitted.module.args[0], 1 / jnp.mean(data**2), rtol=0.1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_log_probability_of_each_site_by_changing_it(name):
    make, states = DISTRIBUTIONS[name]
    d = make()
    x = points(states, d.event_shape)

    @jax.jit
    def site_log_probs(d):
        by_energy = ns.objectives.pseudo_likelihood.site_log_probs
        return d.site_log_probs(x), by_energy(lambda x: -d.log_prob(x), x, states)

    found, expected = site_log_probs(d)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert np.all(expected < 0)


@pytest.mark.usefixtures("x64")
def test_the_loss_by_its_formula():
    d = rbm()
    x = points((0, 1), (4,))[3:10:6]

    @jax.jit
    def found(d, x):
        by_energy = PseudoLikelihood(states=(0, 1))(lambda x: -d.log_prob(x), x)
        return d.site_log_probs(x), PseudoLikelihood()(d, x), by_energy, RatioMatching()(d, x)

    log_p, *pseudo, ratio = found(d, x)
    p = np.exp(log_p)
    np.testing.assert_allclose(pseudo, -np.log(p).sum(1).mean(), rtol=1e-12)
    np.testing.assert_allclose(ratio, ((1 - p) ** 2).sum(1).mean(), rtol=1e-12)


def quadratic():
    return jax.tree_util.Partial(lambda a, x: a * jnp.sum(x**2), jnp.array(1.0))


def fit_to(data, module=None, objective=None):
    return ns.fit(
        rbm() if module is None else module,
        ContrastiveDivergence() if objective is None else objective,
        data,
        key=random.key(0),
        num_steps=1,
        batch_size=2,
        progress_bar=False,
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: ContrastiveDivergence(0), "num_steps must be a positive integer"),
        (lambda: PersistentContrastiveDivergence(0), "num_chains must be a positive integer"),
        (lambda: PersistentContrastiveDivergence(restart_prob=1.0), r"must be in \[0, 1\)"),
        (lambda: fit_to(np.full((3, 4), 2)), r"in the support of BernoulliRBM.* 3 of 3 points"),
        (lambda: fit_to(np.array([[0, 1, 1, 0], [0, 1, 0.5, 0]])), "first at index 1"),
        (lambda: fit_to(np.ones((3, 4)), quadratic()), "has no gibbs_steps of its own"),
        (
            lambda: fit_to(np.ones((3, 4)), quadratic(), PseudoLikelihood()),
            r"the states of a site must be given",
        ),
        (
            lambda: fit_to(
                np.ones((3, 4)),
                ns.BernoulliRBM(WEIGHTS, VISIBLE, HIDDEN, log_normalizer=jnp.array(1.0)),
            ),
            "must not have a log_normalizer",
        ),
    ],
)
def test_what_does_not_fit_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_integers_of_the_support_are_data():
    assert np.isfinite(fit_to(np.array([[0, 1, 1, 0], [1, 1, 0, 0]])).losses).all()


def test_the_scale_of_continuous_units_is_trained_on_its_logarithm():
    """Units without weights are normal: their scale comes out."""
    data = 0.3 + 0.5 * random.normal(random.key(0), (4000, 2))
    machine = ns.GaussianBernoulliRBM(
        jnp.zeros((2, 1)), jnp.zeros(2), jnp.array([0.8, 2.0]), jnp.zeros(1)
    )
    params, rebuilt = machine.free_parameters()
    np.testing.assert_allclose(rebuilt(params).log_prob(data[:3]), machine.log_prob(data[:3]))
    fitted = ns.fit(
        machine,
        PersistentContrastiveDivergence(num_chains=2000),
        data,
        key=random.key(1),
        optimizer=optax.sgd(0.1),
        num_steps=300,
        batch_size=2000,
        ema_decay=0.9,
        progress_bar=False,
    ).module
    np.testing.assert_allclose(fitted.visible_scale, 0.5, rtol=0.05)
