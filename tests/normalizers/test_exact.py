# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Exact normalisers: published numbers, sums by brute force, and each other."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_density
from scipy.special import logsumexp, softmax

import numpyro_scores as ns
from numpyro_scores.infer.guards import check_normalizers
from numpyro_scores.normalizers import enumeration, transfer_matrix

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
CRITICAL = 0.4406867935
assert_close = np.testing.assert_allclose


def value_and_grad(make, *params, method=None):
    """log Z and its derivative in the first parameter."""
    return jax.jit(
        jax.value_and_grad(lambda *params: ns.log_normalizer(make(*params), method=method).estimate)
    )(*params)


# Kaufman 1949, "Crystal statistics II", for the torus; computed apart from this package.
@pytest.mark.parametrize(
    "size, coupling, log_z, energy",
    [
        (4, 0.2, 11.7714703585, None),
        (4, CRITICAL, 15.5219154588, None),
        (8, CRITICAL, 60.1417807891, -1.491589),
        pytest.param(10, 0.2, 73.45309780, -0.428240, marks=pytest.mark.slow),
    ],
)
def test_the_torus_without_a_field_has_kaufmans_normaliser(x64, size, coupling, log_z, energy):
    found, derivative = value_and_grad(lambda k: ns.Ising((size, size), k), coupling)
    assert_close(found, log_z, rtol=0, atol=1e-8)
    if energy is not None:
        assert_close(-derivative / size**2, energy, rtol=0, atol=1e-6)


# Grathwohl et al. 2021, "Oops I took a gradient", and Zhang, Liu & Liu 2022, "A Langevin-like
# sampler for discrete distributions": energy x^T J x with a symmetric J of 0.1 on a 5 x 5 torus.
BIASED, BIASED_LOG_Z, BIASED_MEAN = 0.2, 19.6740857613, 0.4829698422


def biased(field):
    return ns.Ising((5, 5), 0.2, field)


def test_a_torus_with_a_field(x64):
    found, derivative = value_and_grad(biased, BIASED)
    assert_close(found, BIASED_LOG_Z, rtol=0, atol=1e-9)
    assert_close(derivative / 25, BIASED_MEAN, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_the_largest_enumeration_is_the_torus_with_a_field(x64):
    found = ns.log_normalizer(biased(BIASED), method=ns.Enumeration()).estimate
    assert_close(found, BIASED_LOG_Z, rtol=0, atol=1e-9)


log_prob = jax.jit(lambda d, x: d.log_prob(x))


def brute_force(d, states):
    points = np.array(list(itertools.product(states, repeat=int(np.prod(d.event_shape)))))
    return logsumexp(log_prob(d, points.reshape(-1, *d.event_shape)))


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (3, 4)])
def test_every_state_of_an_ising_model_is_summed(x64, shape, periodic):
    d = ns.Ising(shape, 0.7, RNG.normal(size=shape), periodic)
    expected = brute_force(d, [-1, 1])
    for method in (ns.Enumeration(), ns.TransferMatrix()):
        found = ns.log_normalizer(d, method=method)
        assert_close(found.estimate, expected, rtol=1e-12)
        assert found.lower == found.upper == found.estimate and found.standard_error == 0


@pytest.mark.parametrize("shape, num_states, periodic", [((2, 3), 3, False), ((3, 2), 4, True)])
def test_every_state_of_a_potts_model_is_summed(x64, shape, num_states, periodic):
    d = ns.Potts(shape, num_states, -0.6, RNG.normal(size=(*shape, num_states)), periodic)
    expected = brute_force(d, range(num_states))
    for method in (ns.Enumeration(), ns.TransferMatrix()):
        assert_close(ns.log_normalizer(d, method=method).estimate, expected, rtol=1e-12)


def test_first_rows_in_several_blocks(x64, monkeypatch):
    d = ns.Potts((3, 5), 3, 0.5, RNG.normal(size=(3, 5, 3)))
    whole = ns.log_normalizer(d).estimate
    monkeypatch.setattr(transfer_matrix, "ENTRIES_AT_A_TIME", 3**4)
    in_blocks = jax.jit(ns.TransferMatrix()._log_normalizer)
    assert "length=9" in str(jax.make_jaxpr(in_blocks)(d))
    assert_close(in_blocks(d), whole, rtol=1e-13)


def test_states_in_several_blocks_of_which_the_last_is_not_full(x64, monkeypatch):
    monkeypatch.setattr(enumeration, "STATES_AT_A_TIME", 100)
    d = ns.PairwiseMRF([[0, 1], [1, 2], [4, 2]], RNG.normal(size=3), RNG.normal(size=(5, 3)), 3)
    found = jax.jit(ns.Enumeration()._log_normalizer)(d)
    assert_close(found, brute_force(d, range(3)), rtol=1e-12)


@pytest.mark.parametrize("num_hidden, log_z", [(10, 93.933389420), (16, 94.503757545)])
def test_a_machine_is_summed_by_its_smaller_side(x64, num_hidden, log_z):
    rng = np.random.default_rng(0)
    weights = rng.normal(0, np.sqrt(0.05), (num_hidden, 100))
    visible_bias, hidden_bias = rng.normal(size=100), rng.normal(size=num_hidden)
    tall = ns.BernoulliRBM(weights.T, visible_bias, hidden_bias)
    wide = ns.BernoulliRBM(weights, hidden_bias, visible_bias)
    for d in (tall, wide) if num_hidden == 10 else (tall,):
        assert_close(ns.log_normalizer(d).estimate, log_z, rtol=0, atol=1e-8)


def test_a_small_machine_by_brute_force(x64):
    d = ns.BernoulliRBM(RNG.normal(size=(4, 3)), RNG.normal(size=4), RNG.normal(size=3))
    for machine in (d, d.joint()):
        expected = brute_force(machine, [0, 1])
        assert_close(ns.log_normalizer(machine).estimate, expected, rtol=1e-12)


def test_a_gaussian_machine_by_quadrature(x64):
    d = ns.GaussianBernoulliRBM([[1.0, -0.5], [0.3, 0.8]], [0.5, -1.0], [0.6, 1.2], [0.2, -0.3])
    x, step = np.linspace(-15, 15, 601, retstep=True)  # the trapezoid rule is exact for Gaussians
    grid = np.stack(np.meshgrid(x, x), -1)
    expected = logsumexp(log_prob(d, grid)) + 2 * np.log(step)
    for machine in (d, d.joint()):
        assert_close(ns.log_normalizer(machine).estimate, expected, rtol=1e-12)


@pytest.mark.parametrize("method", [ns.Enumeration(), ns.TransferMatrix()])
def test_the_gradient_in_the_coupling_is_the_mean_of_the_pairs(x64, method):
    def ising(coupling):
        return ns.Ising((2, 3), coupling, 0.3, periodic=False)

    points = np.array(list(itertools.product([-1, 1], repeat=6))).reshape(-1, 2, 3)
    d = ising(0.4)
    pairs = log_prob(ising(1.0), points) - log_prob(ising(0.0), points)
    weights = softmax(log_prob(d, points))
    assert_close(value_and_grad(ising, 0.4, method=method)[1], weights @ pairs, rtol=1e-12)


@pytest.mark.parametrize("periodic, num_edges", [(True, 32), (False, 24)])
def test_nothing_overflows_in_single_precision(periodic, num_edges):
    found, derivative = value_and_grad(lambda k: ns.Ising((4, 4), k, 0.0, periodic), 200.0)
    assert_close(found, 200 * num_edges + np.log(2), rtol=1e-6)
    assert derivative == num_edges


def test_a_posterior_of_the_coupling_in_a_model():
    """The normaliser of a small lattice is a function of the coupling like any other."""
    x = np.array([[1, -1, 1]])

    def model(with_normalizer):
        k = numpyro.sample("k", dist.Normal(0.0, 1.0))
        log_z = ns.log_normalizer(ns.Ising((1, 3), k)).estimate if with_normalizer else None
        numpyro.sample("x", ns.Ising((1, 3), k, log_normalizer=log_z), obs=x)

    # Of the triangle six states of eight have one pair that agrees, as x has.
    k = 0.3
    expected = -(k**2) / 2 - np.log(2 * np.pi) / 2 - k - np.log(6 * np.exp(-k) + 2 * np.exp(3 * k))
    found = jax.jit(lambda k: log_density(model, (True,), {}, {"k": k})[0])(k)
    assert_close(found, expected, rtol=1e-5)
    check_normalizers(model, (True,), {}, {"k": k})
    with pytest.raises(ValueError, match=r"'x' has an unnormalised.*\['k'\].*log_normalizer"):
        check_normalizers(model, (False,), {}, {"k": k})


def test_a_lattice_that_is_too_large_is_told_with_what_would_work():
    d = ns.Ising((16, 16), 0.1)
    with pytest.raises(ValueError, match=r"TransferMatrix takes rows of up to 2\^12 states.*2\^16"):
        ns.log_normalizer(d, method=ns.TransferMatrix())
    with pytest.raises(ValueError, match=r"Enumeration would sum 2\^256 states.* up to 25 sites"):
        ns.log_normalizer(d, method=ns.Enumeration())
    with pytest.raises(ValueError, match=r"No exact method fits this Ising") as error:
        ns.log_normalizer(d)
    for told in ("(16, 16)", "a width of 12", "up to 25 sites", "key to estimate it"):
        assert told in str(error.value)


def test_another_distribution_is_told():
    chain = ns.PairwiseMRF([[0, 1]], [0.5], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="TransferMatrix is for Ising and Potts lattices, not"):
        ns.log_normalizer(chain, method=ns.TransferMatrix())
    for other in (dist.Normal(0, 1), chain.expand((3,)), ns.EnergyDistribution(jnp.sum, 3)):
        with pytest.raises(TypeError, match=f"takes one Ising.*got {type(other).__name__}"):
            ns.log_normalizer(other)


def test_a_method_is_any_function_of_the_distribution_and_a_key():
    def method(distribution, key):
        return distribution, key

    d = ns.Ising((2, 2), 0.1)
    assert ns.log_normalizer(d, key=7, method=method) == (d, 7)
