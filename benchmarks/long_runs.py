# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Long runs into a Zarr store beside NumPyro's `MCMC`: memory and wall time by the number of draws,
and what a second run on new data compiles. Each line is measured in a process of its own, so that a
peak of memory is its own.

    python -m benchmarks.long_runs --draws 10000 100000 1000000
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import numpyro_scores as ns
from benchmarks._timing import compilations

DIM, NUM_CHAINS, NUM_WARMUP = 100, 4, 500


def gaussian(x):
    return 0.5 * jnp.sum(x**2 * jnp.linspace(1.0, 4.0, DIM))


def drivers(draws: int, which: str, path: Path) -> Any:
    kernel = ns.MALA(potential_fn=gaussian, num_steps=1)
    common: dict[str, Any] = {
        "num_warmup": NUM_WARMUP,
        "num_samples": draws,
        "num_chains": NUM_CHAINS,
        "progress_bar": False,
    }
    if which == "MCMC":
        return MCMC(kernel, chain_method="vectorized", **common)
    return ns.StoredMCMC(kernel, store=path / "run.zarr" if which == "store" else None, **common)


def measured(draws: int, which: str) -> dict[str, float]:
    """Seconds of a run, with what it compiles, and the peak of the process's memory in MiB."""
    start_params = jnp.zeros((NUM_CHAINS, DIM))
    with tempfile.TemporaryDirectory() as folder:
        mcmc = drivers(draws, which, Path(folder))
        before = time.perf_counter()
        mcmc.run(jax.random.key(0), init_params=start_params)
        jax.block_until_ready(mcmc.last_state)
        seconds = time.perf_counter() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak}


def second_run(which: str) -> dict[str, float]:
    """Programs and seconds of a run of NUTS on new data."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0).expand([10]).to_event(1))
        numpyro.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)

    settings: dict[str, Any] = {
        "num_warmup": 20,
        "num_samples": 20,
        "num_chains": 2,
        "progress_bar": False,
    }
    if which == "MCMC":
        mcmc = MCMC(NUTS(model), chain_method="vectorized", jit_model_args=True, **settings)
    else:
        mcmc = ns.StoredMCMC(NUTS(model), **settings)
    data = [jnp.zeros((3, 10)), jnp.ones((3, 10))]
    mcmc.run(jax.random.key(0), data[0])
    before = time.perf_counter()
    with compilations() as names:
        mcmc.run(jax.random.key(1), data[1])
        jax.block_until_ready(mcmc.last_state)
    return {"seconds": time.perf_counter() - before, "programs": len(names)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--most-mcmc", type=int, default=100_000, help="draws that MCMC may hold")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, which = arguments.one
        found = second_run(which) if what == "second" else measured(int(what), which)
        print(json.dumps(found))
        return
    print(f"MALA, {NUM_CHAINS} chains of a Gaussian in {DIM} dimensions: seconds, peak MiB")
    for draws in arguments.draws:
        for which in ("store", "memory", "MCMC"):
            if which != "store" and draws > arguments.most_mcmc:
                continue
            found = _alone(str(draws), which)
            print(f"{draws:>9,} {which:6} {found['seconds']:8.2f} {found['peak']:8.0f}", flush=True)
    print("NUTS, a second run on new data: seconds, programs compiled")
    for which in ("memory", "MCMC"):
        found = _alone("second", which)
        print(f"{which:6} {found['seconds']:8.2f} {found['programs']:4.0f}", flush=True)


def _alone(*args: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.long_runs", "--one", *args]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
