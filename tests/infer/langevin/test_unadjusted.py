# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Unadjusted kernels: exactly the affine map, and so the stationary law, that the formulas say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import assert_no_rejection
from jax import random
from jax.flatten_util import ravel_pytree
from numpyro.infer import MCMC
from scipy import linalg, stats

import numpyro_scores as ns
from numpyro_scores.integrators import stationary_variance

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRECISION = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])
FRICTION = 0.7
KERNELS = {
    "ULA": ns.ULA,
    "LM": partial(ns.OverdampedLangevin, integrator=ns.LeimkuhlerMatthews()),
    "SKROCK": partial(ns.SKROCK, num_stages=3),
    "OBABO": partial(ns.UnderdampedLangevin, integrator=ns.OBABO(), friction=FRICTION),
    "BAOAB": partial(ns.UnderdampedLangevin, integrator=ns.BAOAB(), friction=FRICTION),
    "UBU": partial(ns.UnderdampedLangevin, integrator=ns.UBU(), friction=FRICTION),
}
of_every_integrator = pytest.mark.parametrize("name", KERNELS)


def gaussian(precision):
    def potential_fn(z):
        x, _ = ravel_pytree(z)
        return x @ precision @ x / 2

    return potential_fn


def point(d):
    """A pytree of `d` numbers with two leaves, or a plain array for one number."""
    return {"a": jnp.zeros(1), "b": jnp.zeros(d - 1)} if d > 1 else jnp.zeros(1)


def dynamics(name):
    return (FRICTION,) if name in ("OBABO", "BAOAB", "UBU") else ()


def transition(kernel, d, monkeypatch):
    """(A, B) of the kernel's `x <- A x + B noise`, with its memory, if any, as part of `x`."""
    unravel = ravel_pytree(point(d))[1]
    first = kernel.init(random.key(0), 0, point(d), (), {})
    with_memory = first.memory is not None
    num_noises = kernel._integrator.num_noises

    def step(x, noise):
        # The same for every step.
        noises = jnp.reshape(noise, (num_noises, d))
        monkeypatch.setattr(random, "normal", lambda _, shape, __: jnp.broadcast_to(noises, shape))
        state = first._replace(z=unravel(x[:d]), memory=x[d:] if with_memory else None)
        state = kernel.sample(kernel.refresh(state, (), {}), (), {})
        new = ravel_pytree(state.z)[0]
        return jnp.concatenate([new, state.memory]) if with_memory else new

    size, num_normals = 2 * d if with_memory else d, num_noises * d
    units = np.split(np.eye(size + num_normals), [size], axis=1)
    columns = np.transpose(jax.jit(jax.vmap(step))(*units))
    monkeypatch.undo()
    return columns[:, :size], columns[:, size:]


def stationary_covariance(kernel, d, monkeypatch):
    a, b = transition(kernel, d, monkeypatch)
    return linalg.solve_discrete_lyapunov(a, b @ b.T)[:d, :d]


@pytest.mark.parametrize(
    "name, half, one",
    [
        ("ULA", 4 / 3, 2.0),
        ("LM", 1.0, 1.0),
        ("OBABO", 16 / 15, 4 / 3),
        ("BAOAB", 1.0, 1.0),
        ("UBU", 0.95859146566114, 0.83853566550816),
    ],
)
def test_stationary_variance_of_a_standard_normal(x64, monkeypatch, name, half, one):
    """The numbers of UBU, at friction one, are from the recursion in integrators/test_gaussian."""
    extra = {"friction": 1.0} if dynamics(name) else {}
    for step_size, variance in [(0.5, half), (1.0, one)]:
        kernel = KERNELS[name](
            potential_fn=gaussian(np.eye(1)), step_size=step_size, num_steps=1, **extra
        )
        covariance = stationary_covariance(kernel, 1, monkeypatch)
        np.testing.assert_allclose(covariance[0, 0], variance, rtol=1e-10)


@of_every_integrator
def test_stationary_covariance_of_a_gaussian_in_a_pytree(x64, monkeypatch, name):
    h = 0.4
    kernel = KERNELS[name](potential_fn=gaussian(PRECISION), step_size=h, num_steps=1)
    covariance = stationary_covariance(kernel, 3, monkeypatch)
    precisions, axes = linalg.eigh(PRECISION)
    variances = [
        stationary_variance(kernel._integrator, h, precision, *dynamics(name))
        for precision in precisions
    ]
    np.testing.assert_allclose(covariance, (axes * variances) @ axes.T, atol=1e-12)


@of_every_integrator
def test_a_metric_is_a_change_of_coordinates(x64, monkeypatch, name):
    """With the covariance itself for a metric all directions are as one with precision one."""
    h, covariance = 0.4, linalg.inv(PRECISION)
    metric = {"inverse_mass_matrix": covariance, "dense_mass": True}
    kernel = KERNELS[name](potential_fn=gaussian(PRECISION), step_size=h, num_steps=1, **metric)
    variance = stationary_variance(kernel._integrator, h, 1.0, *dynamics(name))
    got = stationary_covariance(kernel, 3, monkeypatch)
    np.testing.assert_allclose(got, variance * covariance, atol=1e-12)


def test_a_diagonal_metric_is_a_change_of_units(x64, monkeypatch):
    scales = np.array([0.1, 3.0, 20.0])
    plain = ns.UnderdampedLangevin(potential_fn=gaussian(PRECISION), step_size=0.3)
    scaled = ns.UnderdampedLangevin(
        potential_fn=gaussian(PRECISION / np.outer(scales, scales)),
        step_size=0.3,
        inverse_mass_matrix=scales**2,
    )
    a, b = transition(plain, 3, monkeypatch)
    a_scaled, b_scaled = transition(scaled, 3, monkeypatch)
    units = np.concatenate([scales, np.ones(3)])  # the momentum is in the metric's coordinates
    np.testing.assert_allclose(a_scaled, a * units[:, None] / units, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(b_scaled, b * units[:, None], rtol=1e-9, atol=1e-12)


def test_num_steps_are_that_many_steps(x64, monkeypatch):
    def drift(num_steps):
        kernel = ns.ULA(potential_fn=gaussian(PRECISION), step_size=0.3, num_steps=num_steps)
        return transition(kernel, 3, monkeypatch)[0]

    np.testing.assert_allclose(drift(5), np.linalg.matrix_power(drift(1), 5), atol=1e-13)


@pytest.mark.parametrize("name", ["ULA", "LM", "SKROCK", "BAOAB", "UBU"])
def test_the_draws_have_the_stationary_law_of_the_formula(name):
    """
    Draws through MCMC of a model whose unconstrained value is standard normal: with 20,000
    independent chains a distribution function that is off by 0.02 is found, and so is a standard
    deviation that is off by 2.5% (that of ULA is larger than one by 15%).
    """

    def model():
        numpyro.sample("x", dist.LogNormal(0.0, 1.0))

    kernel = KERNELS[name](model, step_size=0.5, num_steps=3)
    mcmc = MCMC(
        kernel,
        num_warmup=0,
        num_samples=15,
        num_chains=20_000,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), extra_fields=("num_grad_evals", "step_size", "variance_error"))
    z = np.log(np.asarray(mcmc.get_samples(group_by_chain=True)["x"][:, -1], np.float64))
    variance = float(stationary_variance(kernel._integrator, 0.5, 1.0, *dynamics(name)))
    assert_no_rejection(
        {
            "distribution": stats.kstest(z / variance**0.5, stats.norm.cdf).pvalue,
            "variance": stats.norm.sf(abs(np.mean(z**2) / variance - 1) * np.sqrt(len(z) / 2)),
        }
    )
    fields = mcmc.get_extra_fields()
    assert set(np.unique(fields["num_grad_evals"])) == {3 * kernel._integrator.num_grad_evals}
    assert set(np.unique(fields["step_size"])) == {0.5}
    assert fields["variance_error"] is None  # no curvature was measured


@of_every_integrator
def test_the_default_step_is_safe_and_tells_its_bias(x64, name):
    # Twenty power iterations from a random direction: within 1% for this spectrum.
    kernel = KERNELS[name](potential_fn=gaussian(PRECISION))
    z = jax.tree.map(lambda a: jnp.stack([a] * 3), point(3))
    state = kernel.init(random.split(random.key(0), 3), 0, z, (), {})
    largest = linalg.eigvalsh(PRECISION).max()
    np.testing.assert_allclose(state.step_size, kernel._integrator.safe_step(largest), rtol=0.01)
    for step_size, error in zip(state.step_size, state.variance_error, strict=True):
        variance = stationary_variance(kernel._integrator, step_size, largest, *dynamics(name))
        np.testing.assert_allclose(error, variance * largest - 1, atol=0.003)
        assert abs(error) < 0.115
    assert f"variance {error:+.0%}" in kernel.get_diagnostics_str(
        state._replace(step_size=step_size, variance_error=error)
    )


def test_on_a_straight_potential_the_slope_bounds_the_step():
    for slope, step_size in [(5.0, 0.04), (0.0, 1.0)]:
        kernel = ns.ULA(potential_fn=lambda z, slope=slope: slope * jnp.sum(z))
        state = kernel.init(random.key(0), 0, jnp.zeros(2), (), {})
        np.testing.assert_allclose((state.step_size, state.variance_error), (step_size, 0.0))


def test_the_default_friction_is_a_fifth_a_step(x64, monkeypatch):
    for step_size in (0.1, 0.5):
        kernels = [
            ns.UnderdampedLangevin(
                potential_fn=gaussian(np.eye(1)), step_size=step_size, num_steps=1, **friction
            )
            for friction in ({}, {"friction": 0.2 / step_size})
        ]
        default, explicit = (transition(kernel, 1, monkeypatch) for kernel in kernels)
        jax.tree.map(np.testing.assert_array_equal, default, explicit)


def test_a_huge_momentum_is_not_tried_again(x64):
    kernel = ns.UnderdampedLangevin(potential_fn=gaussian(np.eye(3)), step_size=0.3)
    state = kernel.init(random.key(0), 0, point(3), (), {})
    stuck = kernel.sample(state._replace(memory=jnp.full(3, jnp.inf)), (), {})
    assert stuck.diverging and np.all(np.isfinite(stuck.memory))
    jax.tree.map(np.testing.assert_array_equal, stuck.z, state.z)
    assert not kernel.sample(stuck, (), {}).diverging
