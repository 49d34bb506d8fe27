#!/usr/bin/env bash
# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

# flowjax 19.1.2: a second flow of the same kind and shape is no second argument of the same program.
# Coupling flows, masked autoregressive flows and block neural autoregressive flows hold functions
# that were made with them (closures), as leaves of their pytree. Equinox's filter_jit compares these
# by identity: a log density is traced and compiled again for every flow that is built, where for
# two planar flows one program serves. So a loop over folds, seeds or members of an ensemble
# compiles in each round, unless it takes the arrays of one flow and the rest of another
# (equinox.partition and combine).
#
# Seen: structures of the pytrees are equal; traces of two flows 2, 2, 2, and 1 for planar ones; 1
# with the arrays of the second put into the first. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet flowjax==19.1.2 equinox==0.13.8 jax==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import equinox
import jax
import jax.numpy as jnp
from flowjax import flows
from flowjax.distributions import Normal


def built(kind, seed):
    return kind(jax.random.key(seed), base_dist=Normal(jnp.zeros(2)), flow_layers=1)


def traces(*of):
    calls = []

    @equinox.filter_jit
    def log_prob(flow, x):
        calls.append(1)
        return flow.log_prob(x)

    for flow in of:
        log_prob(flow, jnp.ones(2))
    return len(calls)


kinds = {
    "coupling": flows.coupling_flow,
    "masked autoregressive": flows.masked_autoregressive_flow,
    "block neural autoregressive": flows.block_neural_autoregressive_flow,
}
for name, kind in kinds.items():
    first, second = built(kind, 0), built(kind, 1)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    rest = equinox.partition(first, equinox.is_array)[1]
    joined = equinox.combine(equinox.partition(second, equinox.is_array)[0], rest)
    found = traces(first, second), traces(first, joined)
    print(f"{name}: {found[0]} traces, {found[1]} with the arrays alone exchanged")
    assert found == (2, 1), "it has changed"
planar = traces(built(flows.planar_flow, 0), built(flows.planar_flow, 1))
print(f"planar: {planar}")
assert planar == 1, "it has changed"
PYTHON
