# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
A density known by its score, under Metropolis kernels: every difference of the potential energy,
every acceptance and every draw is that of the same density known by its energy.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.flatten_util import ravel_pytree
from numpyro.infer import Gibbs, init_to_uniform
from numpyro.infer.util import potential_energy

import numpyro_scores as ns
from numpyro_scores.infer.langevin.score_sites import target_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

Y = np.array([0.4, -1.1, 0.8])
MASK = np.array([True, False, True])
POSITIVE = dist.constraints.positive


def energy(x):
    """Its gradient is a cubic polynomial, for which two nodes are exact."""
    return jnp.sum(x**4) / 4 + x @ jnp.arange(1.0, 1.0 + x.size) ** 2 + jnp.sum(x) ** 2 / 2


def score(x):
    return -jax.grad(energy)(x)


def prior(known_by, support=dist.constraints.real):
    if known_by == "energy":
        return ns.EnergyDistribution(energy, 2, support=support)
    reference = jnp.array([1.3, 0.2])  # anywhere: it drops out
    return ns.ScoreDistribution(score, 2, reference=reference, support=support)


def likelihood(x):
    noise = numpyro.sample("noise", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(jnp.sum(x), 0.3 + noise).expand([3]), obs=Y)


def masked(prior):
    likelihood(numpyro.sample("x", prior().mask(MASK).to_event(1)))


def subsampled(prior):
    with numpyro.plate("points", 6, subsample_size=3) as indices:
        x = numpyro.sample("x", prior())
    likelihood(x + 0.1 * indices[:, None])


def handled(prior):
    """Under a scale, a mask and a factor, beside an observed site of the same kind."""
    with numpyro.handlers.scale(scale=1.7), numpyro.handlers.mask(mask=MASK):
        x = numpyro.sample("x", prior().expand([3]))
    numpyro.factor("soft", -jnp.sum(jnp.cosh(x)) / 10)
    numpyro.sample("seen", prior(), obs=jnp.ones(2))
    likelihood(x)


def positive(prior):
    likelihood(numpyro.sample("x", prior(support=POSITIVE).expand([3]).to_event(1)))


subsampled = numpyro.handlers.substitute(subsampled, data={"points": jnp.array([0, 2, 5])})
MODELS = [masked, subsampled, handled, positive]


def rule(model):
    # The cubic is exact with each, and the error of the first is far below its tolerance.
    # An exponential of z is no polynomial.
    return ns.LineIntegral(num_nodes=16) if model is positive else ns.SegmentIntegral(num_nodes=5)


def rises(target):
    """`U(y) - U(x)` by a target, and whether it is known."""

    @jax.jit
    def rise(x, y):
        start, end = (target.at(z, jnp.zeros(())) for z in (x, y))
        rise, error = target.rise(start, end)
        return end.energy - start.energy + rise, target.is_known(error)

    return rise


def potential_of(model, known_by):
    """The potential energy of a vector of unconstrained values."""
    _, unravel = ravel_pytree({"noise": jnp.zeros(()), "x": jnp.zeros((3, 2))})
    model = partial(model, partial(prior, known_by))
    return lambda z: potential_energy(model, (), {}, unravel(z))


@pytest.mark.parametrize("model", MODELS)
def test_differences_along_a_segment_are_those_of_the_energy(x64, model):
    by_energy, by_score = potential_of(model, "energy"), potential_of(model, "score")
    x, y = np.random.default_rng(0).normal(size=(2, 7)) / 2
    target = target_of(by_score, x, rule(model))
    rise, _ = rises(target)(x, y)
    np.testing.assert_allclose(rise, by_energy(y) - by_energy(x), rtol=1e-10)
    point = jax.jit(target.at)(x, jnp.zeros(()))
    np.testing.assert_allclose(point.grad, jax.grad(by_energy)(x), rtol=1e-10)
    end, _ = jax.jit(target.leap)(point, y - x)
    np.testing.assert_allclose(end.x, y, rtol=1e-15)
    np.testing.assert_allclose(end.grad, jax.grad(by_energy)(y), rtol=1e-10)


def test_at_an_inverse_temperature_the_differences_are_scaled(x64):
    """The rung is a tracer, as in replica exchange."""
    x, y = np.random.default_rng(0).normal(size=(2, 7)) / 2

    def rise(rung):
        def tempered(prior):
            with numpyro.handlers.scale(scale=rung):
                masked(prior)

        target = target_of(potential_of(tempered, "score"), x, ns.LineIntegral(2))
        return rises(target)(x, y)[0]

    by_energy = potential_of(masked, "energy")
    rungs = np.array([1.0, 0.4, 0.1])
    expected = rungs * (by_energy(y) - by_energy(x))
    np.testing.assert_allclose(jax.jit(jax.vmap(rise))(rungs), expected, rtol=1e-10)


@pytest.mark.parametrize(
    "rule, rise",
    [
        (ns.LineIntegral(1), 1.4),
        (ns.LineIntegral(2), 2.086),
        (ns.SegmentIntegral(num_nodes=5, tolerance=10.0), 2.086),
    ],
)
def test_the_rise_of_a_quartic(x64, rule, rise):
    """From 0.3 to 1.7: by the midpoint 1.0^3 * 1.4; from two nodes on exactly."""

    def model():
        numpyro.sample("x", ns.ScoreDistribution(lambda x: -(x**3), 1))

    x, y = np.array([0.3]), np.array([1.7])
    target = target_of(lambda x: potential_energy(model, (), {}, {"x": x}), x, rule)
    for start, end, expected in [(x, y, rise), (y, x, -rise)]:
        value, known = rises(target)(start, end)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        assert known
    assert target.energy(x) == target.energy(y) == 0


def test_without_a_site_known_by_its_score_nothing_changes():
    potential = potential_of(masked, "energy")
    target = target_of(potential, jnp.ones(7), ns.SegmentIntegral())
    assert target.energy is potential and target.force is None and target.num_score_evals == 0
    assert target.at(jnp.ones(7), jnp.zeros(())).force is None


# ---- kernels ----


def mala(model, rule):
    return ns.MALA(
        model,
        step_size=0.02,
        num_steps=2,
        segment_integral=rule,
        adapt_mass_matrix=False,
        adapt_step_size=False,
        init_strategy=init_to_uniform(radius=0.5),
    )


def malt(model, rule):
    return ns.MALT(
        model,
        step_size=0.2,
        num_steps=3,
        segment_integral=rule,
        adapt_mass_matrix=False,
        adapt_step_size=False,
        init_strategy=init_to_uniform(radius=0.5),
    )


def block(model, rule):
    return Gibbs([(mala(model, rule), ["x"]), (mala(model, rule), ["noise"])])


def tempered(model, rule):
    ladder = ns.InverseTemperatures([1.0, 0.5])
    return ns.ReplicaExchange(mala(model, rule), ladder)


def histories(make, model, known_by, num_draws=30):
    """Unconstrained values of a chain, and its last state."""
    kernel = make(partial(model, partial(prior, known_by)), rule(model))
    state = kernel.init(random.key(0), 0, None, (), {})

    @jax.jit
    def draws(state):
        def body(state, _):
            state = kernel.sample(state, (), {})
            return state, ravel_pytree(getattr(state, kernel.sample_field))[0]

        return jax.lax.scan(body, state, length=num_draws)

    return (kernel, *draws(state))


@pytest.mark.parametrize(
    "make, model",
    [
        (mala, handled),
        (mala, positive),
        pytest.param(malt, handled, marks=pytest.mark.slow),
        pytest.param(block, masked, marks=pytest.mark.slow),
        pytest.param(tempered, subsampled, marks=pytest.mark.slow),
    ],
)
def test_the_draws_are_those_of_the_energy(x64, make, model):
    kernel, state, draws = histories(make, model, "score")
    _, by_energy, expected = histories(make, model, "energy")
    np.testing.assert_allclose(draws, expected, atol=1e-8)
    moved = np.any(np.diff(expected, axis=0) != 0, axis=1)
    assert 5 < moved.sum()  # acceptances and rejections, the same
    if make in (mala, malt):
        np.testing.assert_allclose(state.mean_accept_prob, by_energy.mean_accept_prob, atol=1e-8)
        assert 0.05 < state.mean_accept_prob < 0.98
        # The running sum is the potential energy itself, the long integral from the reference.
        potential_energy = kernel.get_potential_fn()(state.z)
        np.testing.assert_allclose(state.potential_energy, potential_energy, rtol=1e-9)


@pytest.mark.parametrize(
    "make, num_steps, rule, num_nodes",
    [
        (mala, 2, ns.SegmentIntegral(num_nodes=7), 5),
        (malt, 3, ns.LineIntegral(2), 2),
    ],
)
def test_a_step_evaluates_the_score_once_and_at_each_node(make, num_steps, rule, num_nodes):
    """
    Nor is there an integral from the reference, of 32 nodes. Once more where a draw starts.
    """
    calls = []

    def counted(x):
        jax.debug.callback(calls.append, x)
        return -x

    def model():
        numpyro.sample("x", ns.ScoreDistribution(counted, 2))

    kernel = make(model, rule)
    state = kernel.init(random.key(0), 0, None, (), {})
    jax.effects_barrier()
    calls.clear()
    state = jax.block_until_ready(jax.jit(kernel.sample)(state, (), {}))
    jax.effects_barrier()
    assert len(calls) == num_steps * (1 + num_nodes) + 1 == state.num_grad_evals
