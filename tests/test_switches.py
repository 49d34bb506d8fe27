# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Public functions under JAX's switches: no silent broadcasting, no NaN in a program, no leaks."""

from contextlib import nullcontext
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.curvature import curvature_at

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
X = random.normal(KEY, (12, 2))
NEAR = jnp.stack([X + shift for shift in (-0.3, 0.1, 0.2)], axis=1)
PROCESS = ns.VarianceExploding(0.1, 10.0)


def denoiser(x, sigma):
    return x / (1 + sigma**2)


def prior(shape=(2,), **options):
    return ns.DiffusionPrior(denoiser, PROCESS, shape, **options)


def sampled(sampler, **options):
    return prior().sample(KEY, (3, 2), sampler, **options)


def model():
    x = numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x, 0.7).to_event(1))


def report():
    given = numpyro.handlers.condition(model, {"y": jnp.ones(2)})
    sizes = {"num_warmup": 10, "num_samples": 20, "num_chains": 2}
    mcmc = MCMC(ns.MALA(given), chain_method="vectorized", progress_bar=False, **sizes)
    mcmc.run(KEY)
    return [line.ratio for line in D.diagnose(mcmc).lines]


def calibration():
    sizes = {"num_simulations": 10, "num_draws": 3, "num_warmup": 5, "progress_bar": False}
    kernel = partial(ns.MALA, num_steps=2)
    return D.simulation_based_calibration(model, kernel, observed=["y"], key=KEY, **sizes).p_value


def joint_distribution():
    sizes = {"num_chains": 8, "num_rounds": 1, "num_permutations": 9}
    kernel = partial(ns.MALA, step_size=0.1)
    return D.geweke_test(model, kernel, observed=["y"], key=KEY, **sizes).p_value


def importance(points):
    standard = dist.Normal(0, 1).expand([2]).to_event(1)
    joint = partial(lambda z, y: standard.log_prob(z) + standard.log_prob(y - z))
    return D.importance_log_likelihood(joint, lambda y: standard, points, key=KEY, num_draws=4)


D = ns.diagnostics
S = ns.samplers
CALLS = {
    "sample": lambda: sampled(S.Multistep(num_steps=4)),
    "sample of pictures": lambda: prior((2, 3)).sample(KEY, (2,), S.Heun(2)),
    "sample in blocks": lambda: sampled(S.Heun(2), batch_size=4),
    "ancestral": lambda: sampled(S.Ancestral(3)),
    "langevin": lambda: sampled(S.Langevin(3, num_langevin_steps=2)),
    "corrected": lambda: sampled(S.PredictorCorrector(3, spacing=S.TimeSpacing())),
    "log_prob": lambda: prior().log_prob(X),
    "flow": lambda: prior(log_density=ns.ProbabilityFlow(2)).log_prob(X),
    "gradient": lambda: jax.vmap(jax.grad(prior().log_prob))(X),
    "score": lambda: prior().score(X),
    "likelihood": lambda: prior().log_likelihood(X, flow=ns.ProbabilityFlow(2), batch_size=5),
    "probes": lambda: prior().log_likelihood(
        X, key=KEY, flow=ns.ProbabilityFlow(2, trace=ns.HutchinsonTrace(2))
    ),
    "energy": lambda: ns.EnergyDistribution(
        lambda x: x @ x / 2, 2, sampler=partial(ns.MALA, step_size=0.1, num_steps=2)
    ).sample(KEY, (3,)),
    "score distribution": lambda: ns.ScoreDistribution(jnp.negative, 2).log_prob(X),
    "product": lambda: ns.ProductOfExperts([prior(), prior()]).log_prob(X),
    "generator": lambda: ns.GeneratorPrior(jnp.tanh, 2).sample(KEY, (4,)),
    "stein": lambda: D.kernel_stein_discrepancy(X, jnp.negative)[::2],
    "stein with a key": lambda: D.kernel_stein_discrepancy(X, prior(), key=KEY),
    "finite set": lambda: D.finite_set_stein_discrepancy(X, prior(), key=KEY, num_locations=3),
    "thinning": lambda: D.stein_thinning(X, prior(), 3),
    "fisher": lambda: D.fisher_divergence(X, prior(), jnp.negative),
    "conservativeness": lambda: D.conservativeness(prior(), X, key=KEY, num_loops=3),
    "features": lambda: D.frechet_distance(X, X + 1, features=jnp.tanh),
    "levels of a score": lambda: D.score_by_level(denoiser, X, [1.0, 0.5], key=KEY).explained,
    "importance": lambda: importance(X),
    "coverage": lambda: D.coverage(NEAR, X, key=KEY).coverage,
    "tarp": lambda: D.tarp(NEAR, X, key=KEY).p_value,
    "calibration": calibration,
    "joint distribution": joint_distribution,
    "report": report,
    "curvature": lambda: curvature_at(lambda x: 3 * x, X[0], KEY),
    "levels": lambda: [p.noise_levels(5) for p in (PROCESS, ns.DDPM(10), ns.VariancePreserving())],
}
# NumPyro's MCMC, which these two run within a program, keeps its last state: a leak of its own.
KEEPS_A_STATE = "calibration", "joint distribution"


@pytest.mark.parametrize("name", CALLS)
def test_a_public_call_under_the_switches(name):
    """All at once, as each compiles a program of its own."""
    leaks = nullcontext() if name in KEEPS_A_STATE else jax.checking_leaks()
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True), leaks:
        found = jax.tree.leaves(CALLS[name]())
    assert all(np.isfinite(leaf).all() for leaf in found)


def test_a_p_value_that_is_not_known_is_not_made_in_a_program():
    with jax.debug_nans(True):
        assert np.isnan(D.kernel_stein_discrepancy(X, jnp.negative).p_value)
        p_value = jax.jit(lambda x: D.kernel_stein_discrepancy(x, jnp.negative).statistic)(X)
    assert np.isfinite(p_value)
