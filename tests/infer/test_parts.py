# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The parts of a density raised to powers, beside the sum written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.handlers import scope, seed, substitute, trace
from numpyro.infer.util import potential_energy

import numpyro_scores as ns
from numpyro_scores.infer.parts import (
    has_likelihood,
    likelihood_alone,
    likelihood_to_power,
    others_alone,
    without_priors,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

Y = np.array([0.3, -0.2, 0.5])
POINT = {"s": np.array(0.4), "x": np.array([0.1, -0.3])}


def gaussian(x, sigma):
    return x / (1 + sigma**2)


PRIOR = ns.DiffusionPrior(gaussian, ns.VarianceExploding(0.02, 10.0), 2)


def model():
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    x = numpyro.sample("x", PRIOR)
    numpyro.sample("y", dist.Normal(x[0], s), obs=Y)
    numpyro.factor("more", -(x[1] ** 2))


def pieces():
    """Log densities by hand: of the likelihood, the prior, the other site and its Jacobian."""
    s, x = jnp.exp(POINT["s"]), POINT["x"]
    likelihood = jnp.sum(dist.Normal(x[0], s).log_prob(Y)) - x[1] ** 2
    return likelihood, PRIOR.log_prob(x), dist.HalfNormal(1.0).log_prob(s), POINT["s"]


@pytest.mark.parametrize(
    "change, weights",
    [
        (lambda m: likelihood_to_power(m, 3.0), (3, 1, 1, 1)),
        (lambda m: likelihood_to_power(m, 0), (0, 1, 1, 1)),
        (likelihood_alone, (1, 0, 0, 0)),
        (without_priors, (1, 0, 1, 1)),
        (others_alone, (0, 0, 1, 1)),
        (lambda m: ns.handlers.guided(m, 3.0), (3, 1, 1, 1)),
        (lambda m: ns.handlers.guided(m, 0.0), (0, 1, 1, 1)),
        (lambda m: likelihood_to_power(numpyro.handlers.scale(m, scale=2.0), 3.0), (6, 2, 2, 2)),
    ],
)
@pytest.mark.parametrize("scoped", [False, True], ids=["plain", "scoped"])
def test_the_potential_is_the_sum_of_the_weighted_pieces(x64, change, weights, scoped):
    """With a scope, too, whose prefix NumPyro writes before that of a Jacobian."""
    outer = scope(model, prefix="a") if scoped else model
    z = {f"a/{name}": value for name, value in POINT.items()} if scoped else POINT
    expected = -sum(w * piece for w, piece in zip(weights, pieces(), strict=True))
    energy = potential_energy(change(outer), (), {}, z)
    np.testing.assert_allclose(energy, expected, rtol=1e-12)
    traced = jax.jit(lambda power: potential_energy(likelihood_to_power(outer, power), (), {}, z))
    likelihood, *rest = pieces()
    for power in (0.0, 0.5, 1.0):
        np.testing.assert_allclose(traced(power), -power * likelihood - sum(rest), rtol=1e-12)


def strip(bound):
    """A likelihood that is zero on a strip."""
    x = numpyro.sample("x", dist.Normal(0.5, 1.0))
    numpyro.factor("strip", jnp.where(jnp.abs(x) > bound, 0.0, -jnp.inf))


def of_counts(bound):
    """And one that is zero beside an observation."""
    x = numpyro.sample("x", dist.Normal(0.5, 1.0))
    numpyro.sample("y", dist.Uniform(x - bound, x + bound), obs=jnp.array(9.0))


@pytest.mark.parametrize("density", [strip, of_counts])
@pytest.mark.parametrize("power", [0, 0.0, jnp.zeros(()), np.float32(0)], ids=repr)
def test_a_power_of_zero_leaves_out_what_is_zero_itself(density, power):
    prior = -dist.Normal(0.5, 1.0).log_prob(0.0)
    z = {"x": jnp.zeros(())}

    def energies(power):
        hot = [
            ns.LikelihoodPowers([1.0, 0.0]).tempered(density, power),
            likelihood_to_power(density, power),
            ns.handlers.guided(density, power),
        ]
        return [
            jax.value_and_grad(lambda z, m=m: potential_energy(m, (1.5,), {}, z))(z) for m in hot
        ]

    for run in (energies, jax.jit(energies)):
        for energy, slope in run(power):
            np.testing.assert_allclose(energy, prior, rtol=1e-6)
            np.testing.assert_allclose(slope["x"], -0.5, rtol=1e-6)


def test_sites_of_a_scan_are_seen_and_its_own_message_has_no_name():
    def walk(y):
        def step(x, y):
            x = numpyro.sample("x", dist.Gamma(2.0, 1.0 + x))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        scan(step, jnp.zeros(()), y)

    z = {"x": jnp.log(jnp.array([0.7, 1.1, 0.4]))}
    x = jnp.exp(z["x"])
    before = jnp.concatenate([jnp.zeros(1), x[:-1]])
    likelihood = jnp.sum(dist.Normal(x, 0.5).log_prob(Y))
    rest = jnp.sum(dist.Gamma(2.0, 1.0 + before).log_prob(x) + z["x"])
    for change, expected in [
        (lambda m: likelihood_to_power(m, 3.0), 3 * likelihood + rest),
        (lambda m: likelihood_to_power(m, 0.0), rest),
        (likelihood_alone, likelihood),
    ]:
        energy = potential_energy(change(walk), (Y,), {}, z)
        np.testing.assert_allclose(energy, -expected, rtol=1e-5)
    assert has_likelihood(trace(seed(substitute(walk, {"x": x}), 0)).get_trace(Y))


def test_a_jacobian_alone_is_no_likelihood():
    def prior():
        numpyro.sample("s", dist.HalfNormal(1.0))

    with_jacobian = trace(seed(prior, 0)).get_trace()
    with_jacobian["_s_log_det"] = trace(
        lambda: numpyro.factor("_s_log_det", jnp.zeros(()))
    ).get_trace()["_s_log_det"]
    assert not has_likelihood(with_jacobian)
