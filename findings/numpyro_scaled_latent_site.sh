#!/usr/bin/env bash
# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

# NumPyro 0.22.0: handlers.scale around a latent site with a constrained support raises the Jacobian
# of its transform to the same power. What NUTS draws is then the power of the density in the
# unconstrained space, not p(s)^3.
#
# The Jacobian is a factor that is added while the site is substituted, under the handlers of the
# model, scale among them. For sites on the real line, whose transform is the identity, nothing is
# changed.
#
# Seen: s ~ HalfNormal(1) under scale=3: E[s] = 0.921, where p(s)^3 has 0.461; the exponential
# x^2 exp(-3 x^2 / 2) that the scaled Jacobian makes has 0.921. Fails when it changes.
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
from numpyro.infer import MCMC, NUTS


def model():
    with numpyro.handlers.scale(scale=3.0):
        numpyro.sample("s", dist.HalfNormal(1.0))


s = (np.arange(200_000) + 0.5) / 20_000
mean = {
    "p(s)^3": np.sum(s * np.exp(-1.5 * s**2)) / np.sum(np.exp(-1.5 * s**2)),
    "p(s)^3 s^2": np.sum(s**3 * np.exp(-1.5 * s**2)) / np.sum(s**2 * np.exp(-1.5 * s**2)),
}
mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=8000, progress_bar=False)
mcmc.run(jax.random.key(0))
found = float(mcmc.get_samples()["s"].mean())
print(f"numpyro {numpyro.__version__}: E[s] = {found:.3f}; by quadrature {mean}")
assert abs(found - mean["p(s)^3 s^2"]) < 0.03, "the behaviour has changed"
assert abs(found - mean["p(s)^3"]) > 0.3
PYTHON
