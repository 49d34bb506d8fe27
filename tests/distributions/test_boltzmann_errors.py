# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Bad arguments of lattices, random fields and Boltzmann machines, each told clearly."""

from functools import partial

import jax
import numpy as np
import pytest

import numpyro_scores as ns
from numpyro_scores.distributions import Spin

pytestmark = pytest.mark.usefixtures("quick_compilation")

FIELDS = np.zeros((4, 2))


def field(edges, fields=FIELDS, num_states=2, num_couplings=None, **kwargs):
    couplings = np.ones(len(edges) if num_couplings is None else num_couplings)
    return ns.PairwiseMRF(edges, couplings, fields, num_states, **kwargs)


def rbm(weights=(3, 2), visible_bias=3, hidden_bias=2, **kwargs):
    return ns.BernoulliRBM(np.ones(weights), np.ones(visible_bias), np.ones(hidden_bias), **kwargs)


def gaussian_rbm(mean=0.0, scale=1.0, **kwargs):
    return ns.GaussianBernoulliRBM(np.ones((3, 2)), mean, scale, np.ones(2), **kwargs)


ising = partial(ns.Ising, (4, 4), 0.1)
potts = partial(ns.Potts, (4, 4))

EDGES = [
    (lambda: field([[0, 1], [1, 4]]), r"edges\[1\] = \[1, 4\] joins a node that is not there"),
    (lambda: field([[0, 1], [1, 4]]), "fields has 4 rows, so the nodes are 0 to 3"),
    (lambda: field([[-1, 1]]), "joins a node that is not there"),
    (lambda: field([[0, 1], [2, 2]]), r"edges\[1\] = \[2, 2\] joins a node to itself"),
    (lambda: field([[0, 1], [1, 2], [1, 0]]), r"edges\[2\] = \[1, 0\] is given twice"),
    (lambda: field([0, 1]), r"shape \(num_edges, 2\), got int64 of shape \(2,\)"),
    (lambda: field([[0.0, 1.0]]), r"integers of shape \(num_edges, 2\), got float64"),
    (lambda: jax.jit(field)(np.array([[0, 1]])), "known when the model is compiled"),
    (lambda: field([[0, 1]], num_couplings=2), r"shape \(1,\) or \(1, 2, 2\), got shape \(2,\)"),
    (lambda: field([[0, 1]], np.zeros(4)), r"\(number of nodes, 2\), got shape \(4,\)"),
    (lambda: field([[0, 1]], num_states=3), r"\(number of nodes, 3\), got shape \(4, 2\)"),
    (lambda: field([[0, 1]], num_states=1), "num_states must be from 2 to 128.*got 1"),
]
LATTICES = [
    (lambda: ns.Ising((4,), 0.1), r"shape must be \(rows, columns\), got \(4,\)"),
    (lambda: ns.Ising(4, 0.1), r"shape must be \(rows, columns\), got 4"),
    (lambda: ns.Ising((4, 0), 0.1), "must be a positive integer, got 0"),
    (lambda: ns.Ising((4, 4), [0.1, 0.2]), r"coupling must have shape \(\), got shape \(2,\)"),
    (lambda: ising(np.ones(4)), r"field must have shape \(\) or \(4, 4\), got shape \(4,\)"),
    (lambda: ising(0.0, "torus"), "periodic must be True or False, got 'torus'"),
    (lambda: potts(3, 0.1, np.ones(2)), r"shape \(3,\) or \(4, 4, 3\), got shape \(2,\)"),
    (lambda: potts(129, 0.1), "num_states must be from 2 to 128"),
    (lambda: potts(2.5, 0.1), "num_states must be a positive integer, got 2.5"),
    (lambda: ising().conditional(2, np.ones((4, 4))), "has the blocks 0 to 1, got 2"),
    (lambda: ising().conditional(0, np.ones(16)), r"a point of shape \(4, 4\).*got shape \(16,\)"),
    (lambda: ising().conditional(0, (np.ones((4, 2)),)), "has 2 blocks, got a tuple of 1"),
    (lambda: Spin(0.3).sample(None), "needs a random key, got None"),
]
MACHINES = [
    (lambda: rbm(3), r"shape \(num_visible, num_hidden\), got shape \(3,\)"),
    (lambda: rbm(visible_bias=2), r"visible_bias must have shape \(3,\), got shape \(2,\)"),
    (lambda: rbm(hidden_bias=3), r"hidden_bias must have shape \(2,\), got shape \(3,\)"),
    (lambda: gaussian_rbm(np.ones(2)), r"visible_mean must have shape \(3,\) or \(\), got"),
    (lambda: gaussian_rbm(0.0, [1.0, 0.0, 1.0]), "visible_scale must be a finite positive"),
    (lambda: rbm().conditional(), "Give one side"),
    (lambda: rbm().conditional(visible=np.ones(3), hidden=np.ones(2)), "Give one side"),
    (lambda: rbm().conditional(hidden=np.ones(3)), r"shape \(..., 2\), got shape \(3,\)"),
]


@pytest.mark.parametrize("make, message", EDGES + LATTICES + MACHINES)
def test_a_bad_argument_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


EVERY = [ising, partial(potts, 3, 0.1), partial(field, [[0, 1]]), rbm, gaussian_rbm]


@pytest.mark.parametrize("make", EVERY)
def test_a_log_normalizer_is_subtracted_and_is_one_number(make):
    x = np.ones(make().event_shape)
    difference = make(log_normalizer=1.5).log_prob(x) - make().log_prob(x)
    np.testing.assert_allclose(difference, -1.5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"log_normalizer must have shape \(\), got shape \(2,\)"):
        make(log_normalizer=np.ones(2))


@pytest.mark.parametrize("make, state", list(zip(EVERY[:4], [0, 3, -1, 2], strict=True)))
def test_a_state_outside_of_the_support_is_told(make, state):
    d = make(validate_args=True)
    with pytest.warns(UserWarning, match="Out-of-support values"):
        d.log_prob(np.full(d.event_shape, state))
