#!/usr/bin/env bash
# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

# NumPyro 0.22.0: a start of shape () for a site of eight numbers, by init_to_value or by init_params,
# makes NUTS sample another model: one number that stands for all eight. The prior of each of the
# eight counts for it, no warning is given, and R-hat is 1.
#
# The start is put in the place of the value as it is, and the log density of the site broadcasts it.
# So does a likelihood that works elementwise. The draws have no axis of the site: their shape is all
# that tells.
#
# Seen: theta_i ~ N(0, 1) in a plate of 8, y_i ~ N(theta_i, 1), y = 1, ..., 8. Draws of shape (4000,)
# of N(2.25, 0.25^2), which is the posterior under theta_1 = ... = theta_8. From a start of shape (8,)
# means are y_i / 2 and standard deviations 0.71, as they should be. Fails when it changes.
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
from numpyro.diagnostics import gelman_rubin
from numpyro.infer import MCMC, NUTS, init_to_value

Y = np.arange(1.0, 9.0)


def model():
    with numpyro.plate("groups", 8):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=Y)


def draws(start=None, **settings):
    mcmc = MCMC(NUTS(model, **settings), num_warmup=500, num_samples=4000, progress_bar=False)
    mcmc.run(jax.random.key(0), init_params=start)
    return np.asarray(mcmc.get_samples()["theta"])


def by_value(shape):
    return draws(init_strategy=init_to_value(values={"theta": np.zeros(shape)}))


for name, x in (
    ("init_to_value", by_value(())),
    ("init_params", draws({"theta": np.zeros(())})),
):
    halves = gelman_rubin(x.reshape(2, -1))
    print(
        f"numpyro {numpyro.__version__}, {name} of shape (): draws {x.shape}, "
        f"{x.mean():.2f} +- {x.std():.2f}, R-hat {halves:.3f}"
    )
    assert x.shape == (4000,), "the behaviour has changed"
    assert abs(x.mean() - Y.sum() / 16) < 0.03 and abs(x.std() - 0.25) < 0.03
    assert halves < 1.01
right = by_value(8)
print(f"of shape (8,): {right.mean(0).round(2)} +- {right.std(0).round(2)}")
assert np.allclose(right.mean(0), Y / 2, atol=0.06)
assert np.allclose(right.std(0), 0.5**0.5, atol=0.04)
PYTHON
