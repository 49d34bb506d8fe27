# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Keyword arguments that kernels share: each shows all that it takes, and takes no other."""

from inspect import signature

import pytest

import numpyro_scores as ns

SHARED = {"step_size", "dense_mass", "inverse_mass_matrix", "adapt_mass_matrix", "init_strategy"}
SHARED |= {"model", "potential_fn"}
ADJUSTED = SHARED | {"adapt_step_size", "target_accept_prob", "segment_integral", "metric"}
TAKES = {
    ns.MALA: ADJUSTED | {"num_steps"},
    ns.MALT: ADJUSTED | {"num_steps", "friction"},
    ns.MAMS: ADJUSTED | {"trajectory_length", "max_num_steps"},
    ns.OverdampedLangevin: SHARED | {"num_steps", "integrator"},
    ns.UnderdampedLangevin: SHARED | {"num_steps", "integrator", "friction"},
    ns.ULA: SHARED | {"num_steps"},
    ns.SKROCK: SHARED | {"num_steps", "num_stages", "eta"},
}


@pytest.mark.parametrize("kernel", TAKES, ids=lambda kernel: kernel.__name__)
def test_a_kernel_shows_what_it_takes_and_refuses_the_rest(kernel):
    parameters = signature(kernel).parameters
    assert set(parameters) == TAKES[kernel]
    for name in ["num_chains", *{"num_steps", "integrator"} - TAKES[kernel]]:
        with pytest.raises(TypeError, match=rf"unexpected keyword.*'{name}'"):
            kernel(lambda: None, **{name: 1})


def test_defaults_are_those_of_the_kernel():
    defaults = {kernel: signature(kernel).parameters for kernel in TAKES}
    targets = [defaults[k]["target_accept_prob"].default for k in (ns.MALA, ns.MALT, ns.MAMS)]
    assert targets == [0.574, 0.8, 0.9]
    assert ns.MALT(lambda: None)._adaptation.target_accept_prob == 0.8
    assert ns.MAMS(lambda: None, target_accept_prob=0.7)._adaptation.target_accept_prob == 0.7
    assert ns.MAMS(lambda: None)._num_steps == defaults[ns.MAMS]["max_num_steps"].default == 512
