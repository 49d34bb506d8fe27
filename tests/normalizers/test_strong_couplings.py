# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""TransferMatrix in single precision, where weights differ by hundreds of nats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
FIELD = RNG.normal(size=(4, 4))


@pytest.mark.parametrize("periodic", [True, False])
def test_ising_with_random_fields(periodic):
    for coupling in (1.0, 5.0, 8.0, 15.0, 30.0, -30.0, 50.0):
        d = ns.Ising((4, 4), coupling, 2 * abs(coupling) * FIELD, periodic)
        found = float(ns.TransferMatrix()(d).estimate)
        expected = float(ns.Enumeration()(d).estimate)
        assert abs(found - expected) < 1e-5 * abs(expected), (coupling, found, expected)


def test_stripes_against_their_couplings():
    """Rows of fields that alternate, and edges between them that would have them agree."""
    field = np.repeat([[60.0], [-60.0]] * 2, 4, axis=1)
    found = ns.TransferMatrix()(ns.Ising((4, 4), 50.0, field, periodic=False)).estimate
    # All edges agree against half of the fields, of either sign.
    expected = 24 * 50.0 + np.log(2)
    assert 0 < float(found) - expected
    others = ns.Enumeration()(ns.Ising((4, 4), 50.0, field, periodic=False)).estimate
    np.testing.assert_allclose(found, others, rtol=1e-6)


def test_potts_with_three_states_and_a_gradient():
    field = 20 * RNG.normal(size=(3, 3, 3))

    def log_z(coupling, method):
        return method(ns.Potts((3, 3), 3, coupling, field)).estimate

    for coupling in (0.3, 25.0, -25.0):
        found = jax.value_and_grad(log_z)(coupling, ns.TransferMatrix())
        expected = jax.value_and_grad(log_z)(coupling, ns.Enumeration())
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_weak_and_strong_couplings_in_one_vectorised_call():
    couplings = jnp.array([0.4, 20.0])
    d = jax.vmap(lambda k: ns.TransferMatrix()(ns.Ising((4, 4), k, FIELD)).estimate)(couplings)
    for coupling, found in zip(couplings, d, strict=True):
        expected = ns.Enumeration()(ns.Ising((4, 4), coupling, FIELD)).estimate
        np.testing.assert_allclose(found, expected, rtol=1e-6)
