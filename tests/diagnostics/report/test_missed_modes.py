# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Two modes: all chains in one of them, or in both."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.diagnostics import split_gelman_rubin
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.diagnostics.report.missed_modes import FEWEST, _unseen

pytestmark = pytest.mark.usefixtures("quick_compilation")

DIM = 4
MODES = jnp.array([[6.0, 0.0, 0.0, 0.0], [-6.0, 1.0, 0.0, 0.0]])


def denoiser(x, sigma):
    variance = 1 + sigma**2
    logits = -jnp.sum((x - MODES) ** 2, axis=1) / (2 * variance)
    mean = jax.nn.softmax(logits) @ MODES
    return mean + (x - mean) / variance


PRIOR = ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.05, 40.0), DIM)


def model(y, slope=0.0):
    """One number is measured that the modes differ little in, and one that they differ in."""
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x[1], 0.5), obs=y)
    numpyro.factor("about_the_mode", slope * x[0])


class ByScore:
    """A run of ULA, which takes the score alone, from given places."""

    @staticmethod
    @cache
    def mcmc():
        return MCMC(
            ns.ULA(model, step_size=0.02, num_steps=150),
            num_warmup=10,
            num_samples=100,
            num_chains=4,
            chain_method="vectorized",
            jit_model_args=True,
            progress_bar=False,
        )

    @staticmethod
    def run(modes, **kwargs):
        mcmc = ByScore.mcmc()
        starts = MODES[jnp.array(modes)]
        mcmc.run(random.key(0), jnp.array(0.5), init_params={"x": starts}, **kwargs)
        return mcmc


@cache
def anneal():
    return ns.AnnealedLangevin(model, num_levels=30, num_steps=2)


def look(mcmc):
    return ns.diagnostics.missed_modes(mcmc, key=random.key(1), num_anneals=32, kernel=anneal())


def test_a_mode_that_all_chains_miss_is_told_where_r_hat_and_stein_are_blind():
    mcmc = ByScore.run([0, 0, 0, 0])
    x = mcmc.get_samples(group_by_chain=True)["x"]
    assert np.min(x[..., 0]) > 0
    assert np.max(split_gelman_rubin(np.asarray(x))) < 1.03

    def potential(x):
        mixture = jax.nn.logsumexp(-jnp.sum((x - MODES) ** 2, axis=1) / 2)
        return 0.5 * ((0.5 - x[1]) / 0.5) ** 2 - mixture

    draws = x.reshape(-1, DIM)[::2]
    stein = ns.diagnostics.kernel_stein_discrepancy(draws, potential, key=random.key(0))
    assert stein.p_value > 0.05
    found = look(mcmc)
    assert found.told
    assert "missed a mode" in str(found)
    assert np.all(found.anneals["x"][found.is_unseen, 0] < 0)
    assert 0.25 < found.share < 0.75
    # The other mode's mean is that of the first in the measured number but for 1.
    assert abs(found.log_likelihood_gain) < 2


def test_modes_that_were_seen_are_not_told():
    found = look(ByScore.run([0, 1, 0, 1]))
    assert not found.told
    assert "no sign of a missed mode" in str(found)


@pytest.mark.slow
def test_a_place_with_a_bad_likelihood_is_not_told():
    """Anneals end there if their kernel does not know the likelihood."""
    mcmc = ByScore.run([0, 0, 0, 0], slope=jnp.array(3.0))
    blind = ns.AnnealedLangevin(partial(model, slope=0.0), num_levels=30, num_steps=2)

    class Blind(type(blind)):
        def _at(self, sigma):
            without = super()._at(sigma)
            return lambda y, slope: without(y)

    found = ns.diagnostics.missed_modes(
        mcmc, key=random.key(1), num_anneals=32, kernel=Blind(model, num_levels=30, num_steps=2)
    )
    assert np.sum(found.anneals["x"][:, 0] < 0) > 5
    assert not found.told
    assert found.weights[found.anneals["x"][:, 0] < 0].sum() < 1e-6


@pytest.mark.parametrize("dim", [1, 2, 64])
def test_false_alarms_and_power_over_50_seeds(dim):
    told = np.zeros(4, int)
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x, a = rng.normal(size=(1_000, dim)), rng.normal(size=(64, dim))
        apart = 10.0 * np.eye(dim)[0]
        in_other = rng.uniform(size=(64, 1)) < 0.2
        both = x + apart * (rng.uniform(size=(1_000, 1)) < 0.5)
        pairs = ((x, a), (x, 1.2 * a), (both, a + apart * in_other), (x, a + apart * in_other))
        told += [_unseen(draws, ends, np.ones(64))[1] >= FEWEST for draws, ends in pairs]
    # All seen; anneals that spread too much; both modes seen; one missed.
    assert list(told[:3]) == [0, 0, 0]
    assert told[3] >= 48


def test_refusals():
    mcmc = ByScore.run([0, 0, 0, 0])
    data = ns.to_inference_data(mcmc)
    with pytest.raises(ValueError, match="missed_modes needs the model"):
        ns.diagnostics.missed_modes(data, key=random.key(0))

    def other(y):
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([DIM]).to_event(1))
        numpyro.sample("y", dist.Normal(x[1], 0.5), obs=y)

    with pytest.raises(ValueError, match="needs a noise-conditional prior"):
        ns.diagnostics.missed_modes(data, key=random.key(0), model=other, args=(0.5,))
