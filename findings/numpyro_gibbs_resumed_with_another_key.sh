#!/usr/bin/env bash
# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

# NumPyro 0.22.0: two runs of MCMC(Gibbs(...)) from one warmup, with different keys, give the same
# draws to the last bit.
#
# MCMC.run after MCMC.warmup puts the new key into the state's rng_key. The kernels within Gibbs keep
# keys of their own in block_states, from the warmup, and draw with these. NUTS alone draws anew.
#
# Seen: correlation of the two runs 1.0 under Gibbs, about 0 under NUTS alone. Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet numpyro==0.22.0 jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, Gibbs


def model():
    numpyro.sample("x", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(0.0, 1.0))


def correlation(kernel):
    mcmc = MCMC(kernel, num_warmup=100, num_samples=500, progress_bar=False)
    mcmc.warmup(jax.random.key(0))
    runs = []
    for seed in (1, 2):
        mcmc.run(jax.random.key(seed))
        runs.append(np.asarray(mcmc.get_samples()["x"]))
    return np.corrcoef(*runs)[0, 1]


of_gibbs = correlation(Gibbs([(NUTS(model), ["x"]), (NUTS(model), ["y"])]))
of_nuts = correlation(NUTS(model))
print(f"numpyro {numpyro.__version__}: correlation {of_gibbs:.3f} with Gibbs, {of_nuts:.3f} with NUTS")
assert abs(of_nuts) < 0.3
assert of_gibbs > 0.999, "the behaviour has changed"
PYTHON
