# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
A run that goes on where it was stopped, however that was: start it, stop it with Ctrl-C or
`kill -9`, start it again. It ends with status 0 when all draws are there, with 75 ("try again")
before.

    python examples/resumed_run.py run.zarr
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import NUTS

import numpyro_scores as ns

EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools(errors, effects=None):
    """Eight schools (Rubin 1981), in the parametrisation without a funnel."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(errors)):
        deviation = numpyro.sample("deviation", dist.Normal(0.0, 1.0))
        effect = numpyro.deterministic("effect", mean + spread * deviation)
        numpyro.sample("effects", dist.Normal(effect, errors), obs=effects)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", help="a folder, made if it is not there")
    parser.add_argument("--draws", type=int, default=20_000, help="of each of four chains")
    arguments = parser.parse_args()
    mcmc = ns.StoredMCMC(
        NUTS(schools),
        num_warmup=1_000,
        num_samples=arguments.draws,
        num_chains=4,
        store=arguments.store,
    )
    mcmc.run(jax.random.key(0), ERRORS, EFFECTS)
    print(f"{mcmc.num_draws:,} of {arguments.draws:,} draws of each chain are in {arguments.store}")
    if mcmc.num_draws < arguments.draws:
        return 75
    mcmc.print_summary()
    return 0


if __name__ == "__main__":
    sys.exit(main())
