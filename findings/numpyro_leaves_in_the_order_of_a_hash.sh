#!/usr/bin/env bash
# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

# NumPyro 0.22.0: the order of the leaves of a distribution as a pytree depends on PYTHONHASHSEED, so
# that jax.tree.leaves(Normal(loc, scale)) is (loc, scale) in one process and (scale, loc) in another.
#
# Distribution.gather_pytree_data_fields collects the names of the fields in a set. Within a process
# the order is one; leaves that are stored by number (a checkpoint, an optimizer's state from
# jax.tree.leaves) and read by another process can come back permuted, without an error where the
# shapes agree. Names of fields are the same in all.
#
# Seen: both orders among the hash seeds 0 to 19. Fails when there is one order only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2
export JAX_PLATFORMS=cpu
for seed in $(seq 0 19); do
    PYTHONHASHSEED=$seed "$folder/venv/bin/python" -c '
import jax
import numpyro.distributions as dist

print(*jax.tree.leaves(dist.Normal(1.0, 2.0)))'
done | sort | uniq -c | tee "$folder/orders"
[[ $(wc -l <"$folder/orders") == 2 ]] || { echo "the behaviour has changed" >&2; exit 1; }
