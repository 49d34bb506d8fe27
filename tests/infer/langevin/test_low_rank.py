# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The metric of low rank: what it makes of a Gaussian, and of a chain that has to learn it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.diagnostics.report.metric_checks import check_metric
from numpyro_scores.infer.langevin.targets import unwhiten, whiten
from numpyro_scores.infer.low_rank import LowRankRoot, geometric_mean, low_rank_root

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)


def stiff_and_wide(d, num_directions, variance):
    """A covariance whose first half of directions has a small variance, the second a large one."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(d, num_directions)))[0]
    half = num_directions // 2
    stretch = np.repeat([variance**-0.5, variance**0.5], [half, num_directions - half])
    root = np.eye(d) + directions * (stretch - 1) @ directions.T
    return np.exp(rng.normal(size=d))[:, None] * root


def condition_number(root, covariance):
    rows = jax.jit(jax.vmap(LowRankRoot.unwhiten, (None, 0)))(root, np.eye(len(covariance)))
    back = np.linalg.inv(np.asarray(rows).T)
    return np.linalg.cond(back @ covariance @ back.T)


def test_a_gaussian_is_round_in_it(x64):
    d, n = 60, 200
    root = stiff_and_wide(d, 6, 100.0)
    covariance = root @ root.T
    x = np.random.default_rng(1).normal(size=(n, d)) @ root.T + 3
    grad = (x - 3) @ np.linalg.inv(covariance)
    # Rows behind the last draw do not count.
    chance = np.random.default_rng(2).normal(size=(n, d))
    x, grad, chance = (np.concatenate([v, np.full((56, d), 1e3)]) for v in (x, grad, chance))
    learn = jax.jit(low_rank_root, static_argnums=3)
    learned = learn(x, grad, n, 6)
    diagonal = learned._replace(stretch=jnp.ones(6))
    assert condition_number(diagonal, covariance) > 3_000
    assert condition_number(learned, covariance) < 15
    # Chance alone is not taken for a direction.
    np.testing.assert_array_equal(learn(chance, chance, n, 6).stretch, 1)


def test_the_geometric_mean_of_draws_and_gradients(x64):
    rng = np.random.default_rng(0)
    covariance, of_gradients = (np.cov(rng.normal(size=(4, 20))) for _ in range(2))
    mean = geometric_mean(covariance, of_gradients)
    np.testing.assert_allclose(mean @ of_gradients @ mean, covariance, rtol=1e-9)


def test_its_root_is_that_of_the_matrix(x64):
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(5, 2)))[0]
    root = LowRankRoot(np.arange(1.0, 6), directions, np.array([0.5, 4.0]))
    middle = directions @ np.diag(np.array([0.25, 16.0]) - 1) @ directions.T
    inverse_metric = np.outer(root.scale, root.scale) * (np.eye(5) + middle)
    np.testing.assert_allclose(root.inverse_metric, inverse_metric, rtol=1e-9)
    v, grad = rng.normal(size=(2, 5))
    move = np.asarray(jax.vmap(lambda v: unwhiten(root, v))(np.eye(5)))  # the rows of R
    np.testing.assert_allclose(whiten(root, grad), move @ grad, rtol=1e-9)
    np.testing.assert_allclose(unwhiten(root, v), v @ move, rtol=1e-9)


@pytest.mark.parametrize("kernel", [ns.MALT, ns.MCLMC], ids=lambda kernel: kernel.__name__)
def test_warmup_learns_the_directions(kernel):
    d = 40
    root = jnp.array(stiff_and_wide(d, 4, 100.0), jnp.float32)

    def model():
        x = numpyro.sample("x", dist.MultivariateNormal(jnp.zeros(d), scale_tril=tril))
        numpyro.deterministic("white", jnp.linalg.solve(root, x))

    tril = jnp.linalg.cholesky(root @ root.T)
    mcmc = MCMC(
        kernel(model, metric=ns.LowRank(4)),
        num_warmup=500,
        num_samples=200,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(KEY)
    state = mcmc.last_state
    learned = jax.tree.map(lambda leaf: leaf[0], state.adapt_state.inverse_mass_matrix)
    assert condition_number(learned, np.asarray(root @ root.T, float)) < 60
    # Draws of all directions, the narrow and the wide ones, are nearly independent.
    white = np.asarray(mcmc.get_samples()["white"])
    np.testing.assert_allclose(np.mean(white**2, axis=0), 1, atol=0.35)
    np.testing.assert_allclose(np.mean(white**2), 1, atol=0.05)


def test_diagnose_tells_the_directions():
    def told(stretch, d):
        root = LowRankRoot(np.ones((2, d)), np.zeros((2, d, 3)), np.array(stretch))
        state = SimpleNamespace(adapt_state=SimpleNamespace(inverse_mass_matrix=root))
        (line,) = check_metric(SimpleNamespace(parts=[SimpleNamespace(state=state)]))
        return line.text

    text = told([[0.25, 4.0, 1.0], [0.5, 1.0, 1.0]], 5)
    assert text == "low rank, 1 to 2 of 3 directions, 0.25 to 4 times as wide as the diagonal says"
    assert told([[1.0, 1.0, 1.0]] * 2, 5) == "low rank, 0 of 3 directions"
    assert told([[0.5, 4.0, 2.0]] * 2, 5).endswith("; all are taken: LowRank(6) may learn more")
    assert told([[0.5, 4.0, 2.0]] * 2, 3).endswith("as the diagonal says")


def test_what_is_no_metric_is_told():
    def model():
        numpyro.sample("x", dist.Normal().expand([3]))

    with pytest.raises(ValueError, match="metric must be Diagonal.*LowRank"):
        ns.MALA(model, metric="low rank")
    with pytest.raises(ValueError, match="not both"):
        ns.MALT(model, metric=ns.LowRank(2), dense_mass=True)
    with pytest.raises(ValueError, match="rank"):
        ns.LowRank(0)
    with pytest.raises(ValueError, match="needs metric=Dense"):
        ns.MAMS(model, metric=ns.LowRank(2), inverse_mass_matrix={("x",): jnp.ones(3)})
    # A rank above the dimension is the dimension.
    mcmc = MCMC(
        ns.MALA(model, metric=ns.LowRank(10)), num_warmup=30, num_samples=2, progress_bar=False
    )
    mcmc.run(KEY)
    assert mcmc.last_state.adapt_state.inverse_mass_matrix.directions.shape == (3, 3)


def test_a_rank_above_what_few_draws_span():
    def model():
        numpyro.sample("x", dist.Normal().expand([100]))

    kernel = ns.MALA(model, metric=ns.LowRank(50))
    mcmc = MCMC(kernel, num_warmup=20, num_samples=2, progress_bar=False)
    mcmc.run(KEY)
    # Twice the 15 draws of the only window, which are spanned by draws and by gradients.
    assert mcmc.last_state.adapt_state.inverse_mass_matrix.directions.shape == (100, 30)
