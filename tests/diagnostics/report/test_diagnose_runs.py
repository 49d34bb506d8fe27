# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Runs of kernels with a fault that was planted, each of which `diagnose` names, and healthy runs, in
which it finds nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import HMC, MCMC, NUTS, Gibbs

import numpyro_scores as ns

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation"),
    # Said at the start of a run, too.
    pytest.mark.filterwarnings("ignore:The score of site"),
]

Y = jnp.array([0.5, -1.0, 2.0])


def run(kernel, *args, num_warmup=500, num_draws=1_000, num_chains=4, start=None, **settings):
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_draws,
        num_chains=num_chains,
        chain_method=settings.get("chain_method", "vectorized"),
        progress_bar=False,
    )
    mcmc.run(random.key(0), *args, init_params=start)
    return mcmc


def regression(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([3]).to_event(1))
    scale = numpyro.sample("scale", dist.LogNormal(-0.5, 0.3))
    numpyro.sample("y", dist.Normal(x, scale).to_event(1), obs=y)


def eight_schools():
    y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    errors = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", 8):
        theta = numpyro.sample("theta", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu + tau * theta, errors), obs=y)


def funnel():
    v = numpyro.sample("v", dist.Normal(0, 3))
    numpyro.sample("x", dist.Normal(0, jnp.exp(v / 2)).expand([9]).to_event(1))


def two_modes(x):
    return -jnp.logaddexp(-2 * jnp.sum((x + 3) ** 2), -2 * jnp.sum((x - 3) ** 2))


def bimodal():
    numpyro.sample("x", ns.EnergyDistribution(two_modes, 2))


def quartic(x):
    return jnp.sum(x**4) / 4


def half_square(x):
    return jnp.sum(x**2) / 2


def of_score(score):
    numpyro.sample("x", ns.ScoreDistribution(score, 2))


def swirl(x):
    return -x + 0.5 * jnp.array([x[1], -x[0]])


def straight(x):
    return -x / jnp.array([1.0, 2.0])


def scaled(scale, x):
    return jnp.sum(x**2) / (2 * scale**2)


def without_normalizer(y):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("x", ns.EnergyDistribution(jax.tree_util.Partial(scaled, scale), 3), obs=y)


def denoiser(x, sigma):
    return x / (1 + sigma**2)


def inverse_problem(y):
    x = numpyro.sample("x", ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.02, 20.0), 3))
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(1), obs=y)


def spins():
    numpyro.sample("x", ns.Ising((4, 4), coupling=0.3))


def noisy_spins(y):
    sampler = partial(ns.BlockGibbs, num_steps=20)
    x = numpyro.sample("x", ns.Ising((4, 4), coupling=0.3, sampler=sampler))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 0.3))
    numpyro.sample("y", dist.Normal(x, noise).to_event(2), obs=y)


@dataclass(frozen=True)
class HalfTheNoise(ns.integrators.OverdampedIntegrator):
    """Broken on purpose."""

    def step(self, state, noise, gradient, step_size):
        x = ns.integrators.euler_maruyama(state.x, state.grad, step_size, noise[0] / 2)
        return ns.integrators.IntegratorState(x, gradient(x), None)


def with_a_chain_that_is_nan():
    mcmc = run(ns.MALA(potential_fn=half_square), start=jnp.zeros((4, 2)))
    mcmc._states["z"] = mcmc._states["z"].at[2, 300:].set(jnp.nan)
    return mcmc


def frozen(step_size, **kwargs):
    return dict(step_size=step_size, adapt_step_size=False, adapt_mass_matrix=False, **kwargs)


PLANTED: dict[str, Callable] = {
    "stuck": lambda: run(
        ns.MALA(potential_fn=quartic, **frozen(0.05)), start=jnp.array([[0.0], [1e2], [0.5], [1.0]])
    ),
    "step_bias": lambda: run(
        ns.ULA(potential_fn=half_square, step_size=1.0, num_steps=5), start=jnp.zeros((4, 2))
    ),
    "low_acceptance": lambda: run(ns.MALA(regression, **frozen(0.6)), Y),
    "small_step": lambda: run(ns.MALA(regression, **frozen(1e-4)), Y),
    "not_a_gradient": lambda: run(ns.MALA(partial(of_score, swirl))),
    # The kernels of this package refuse it.
    "missing_normalizer": lambda: run(NUTS(without_normalizer), Y, num_draws=300),
    "no_round_trips": lambda: run(
        ns.ReplicaExchange(ns.MALA(bimodal), ns.InverseTemperatures([1.0, 1e-4]))
    ),
    "diverging": lambda: run(NUTS(funnel)),
    "r_hat": lambda: run(ns.MALA(bimodal)),
    "not_finite": with_a_chain_that_is_nan,
    "bulk_ess": lambda: run(
        ns.MALA(potential_fn=half_square), start=jnp.zeros((4, 2)), num_draws=30
    ),
    "wrong_target": lambda: run(
        ns.OverdampedLangevin(regression, integrator=HalfTheNoise(), step_size=0.02, num_steps=100),
        Y,
    ),
}

HEALTHY: dict[str, Callable] = {
    "NUTS": lambda: run(NUTS(eight_schools, target_accept_prob=0.95)),
    "HMC": lambda: run(HMC(regression, trajectory_length=2.0), Y),
    "MALA": lambda: run(ns.MALA(regression, num_steps=20), Y),
    "MALT": lambda: run(ns.MALT(regression), Y),
    "MALA with a score": lambda: run(ns.MALA(partial(of_score, straight))),
    "ULA": lambda: run(ns.ULA(regression, num_steps=100), Y),
    "UnderdampedLangevin": lambda: run(ns.UnderdampedLangevin(regression, num_steps=20), Y),
    "SKROCK": lambda: run(ns.SKROCK(regression, num_steps=10), Y),
    "AnnealedLangevin": lambda: run(
        ns.AnnealedLangevin(inverse_problem), Y, num_warmup=0, num_draws=50, num_chains=16
    ),
    "ReplicaExchange": lambda: run(
        ns.ReplicaExchange(
            ns.MALA(bimodal, num_steps=5), ns.InverseTemperatures([1.0, 0.3, 0.1, 0.03, 0.01])
        ),
        num_draws=2_000,
    ),
    "BlockGibbs": lambda: run(ns.BlockGibbs(spins, num_steps=5)),
    "GibbsWithGradients": lambda: run(ns.GibbsWithGradients(spins, num_steps=50)),
    "DiscreteLangevin": lambda: run(ns.DiscreteLangevin(spins, num_steps=20)),
    "Gibbs": lambda: run(
        Gibbs([(ns.BlockGibbs(noisy_spins), ["x"]), (NUTS(noisy_spins), ["noise"])]),
        jnp.ones((4, 4)),
        num_warmup=200,
        num_draws=400,
        chain_method="sequential",
    ),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named(fault, tmp_path):
    report = ns.diagnose(PLANTED[fault]())
    found = {found.name: found for found in report.faults}
    assert fault in found, report
    assert found[fault].advice.split()[0] in str(report)
    chain = {"stuck": "chain 1", "not_finite": "chain 2"}
    assert fault not in chain or found[fault].where == chain[fault]
    report.to_html(tmp_path / "report.html")
    assert fault in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", HEALTHY)
def test_no_alarm_about_a_healthy_run(name):
    report = ns.diagnose(HEALTHY[name]())
    assert report.faults == (), report
    # What cannot be told is told of discrete sites; an anneal is approximate.
    unknown = {line.title for line in report.lines if line.status == "unknown"}
    assert unknown <= {"Stein discrepancy", "step-size bias", "approximation"}
