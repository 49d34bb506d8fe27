# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Long runs into a Zarr store beside NumPyro's `MCMC`. Each line is measured in a process of its own,
so that a peak of memory is its own.

    python -m benchmarks.long_runs memory   # a million draws beside 10,000
    python -m benchmarks.long_runs time     # 100,000 draws, writing included, and NumPyro's MCMC
    python -m benchmarks.long_runs second   # programs and seconds of a run on new data
    python -m benchmarks.long_runs online   # R-hat and ESS while it runs, and ArviZ's
    python -m benchmarks.long_runs report   # memory of diagnose by the number of draws
    python -m benchmarks.long_runs many     # 1,000 digits at once, and a loop over 8
    python -m benchmarks.long_runs devices  # chains a second of two devices (wants two free cores)
    python -m benchmarks.long_runs kills --kernel MALA   # 20 SIGKILLs
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray
import zarr  # noqa: F401 - as all else, before the clock starts
from numpyro.infer import MCMC, NUTS

import numpyro_scores as ns
from benchmarks._timing import compilations

ROOT = Path(__file__).resolve().parents[1]
DIM, NUM_CHAINS, NUM_WARMUP = 100, 4, 500
QUIET: dict[str, Any] = {"progress_bar": False}


def gaussian(x):
    return 0.5 * jnp.sum(x**2 * jnp.linspace(1.0, 4.0, DIM))


def drivers(draws: int, which: str, path: Path, **settings: Any) -> Any:
    kernel = ns.MALA(potential_fn=gaussian, num_steps=1)
    common: dict[str, Any] = {"num_warmup": NUM_WARMUP, "num_samples": draws, **QUIET}
    common |= {"num_chains": NUM_CHAINS, **settings}
    if which == "MCMC":
        return MCMC(kernel, chain_method="vectorized", **common)
    return ns.StoredMCMC(kernel, store=path / "run.zarr" if which == "store" else None, **common)


def run(mcmc: Any, num_chains: int = NUM_CHAINS) -> float:
    """Seconds of a run, with what it compiles."""
    before = time.perf_counter()
    mcmc.run(jax.random.key(0), init_params=jnp.zeros((num_chains, DIM)))
    jax.block_until_ready(mcmc.last_state)
    return time.perf_counter() - before


def peak() -> float:
    """Of the memory of this process, that of the devices included on a CPU, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def draws(number: str, which: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return {"seconds": run(drivers(int(number), which, Path(folder))), "peak": peak()}


def second(which: str, bar: str) -> dict[str, float]:
    """Programs and seconds of a run of NUTS on new data, after one without a bar."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0).expand([10]).to_event(1))
        numpyro.sample("y", dist.Normal(mu, 1.0).to_event(1), obs=y)

    settings: dict[str, Any] = {"num_warmup": 20, "num_samples": 20, "num_chains": 2, **QUIET}
    if which == "MCMC":
        mcmc: Any = MCMC(NUTS(model), chain_method="vectorized", jit_model_args=True, **settings)
    else:
        mcmc = ns.StoredMCMC(NUTS(model), **settings)
    first, new = jnp.zeros((3, 10)), jnp.ones((3, 10))
    keys = jax.random.split(jax.random.key(0))
    mcmc.run(keys[0], first)
    mcmc.progress_bar = bar == "bar"
    before = time.perf_counter()
    with compilations() as names:
        mcmc.run(keys[1], new)
        jax.block_until_ready(mcmc.last_state)
    return {"seconds": time.perf_counter() - before, "programs": len(names)}


def online(number: str) -> dict[str, float]:
    """The largest relative difference between the numbers of the store and ArviZ's."""
    import arviz

    with tempfile.TemporaryDirectory() as folder:
        mcmc = drivers(int(number), "store", Path(folder))
        run(mcmc)
        found = mcmc.convergence()
        x = xarray.open_datatree(Path(folder) / "run.zarr", engine="zarr")["posterior"].to_dataset()
        # Of float32 ArviZ itself has rounding errors of 5e-6.
        x = x.astype(np.float64)
        r_hat = arviz.rhat(x)["x"].to_numpy()
        ess = arviz.ess(x, method="bulk")["x"].to_numpy()
    return {
        "r_hat": float(np.max(np.abs(found.r_hat / r_hat - 1))),
        "ess": float(np.max(np.abs(found.bulk_ess / ess - 1))),
    }


def report(number: str) -> dict[str, float]:
    """What diagnose adds to the peak of memory, and the size of the draws."""
    with tempfile.TemporaryDirectory() as folder:
        mcmc = drivers(int(number), "store", Path(folder))
        run(mcmc)
        before = peak()
        start = time.perf_counter()
        ns.diagnose(mcmc)
        seconds = time.perf_counter() - start
    size = int(number) * NUM_CHAINS * DIM * 4 / 2**20
    return {"seconds": seconds, "draws": size, "before": before, "peak": peak()}


def devices(number: str) -> dict[str, float]:
    """Seconds of 64 chains on so many devices of one core each, after compiling."""
    mesh = jax.make_mesh((int(number),), ("chains",))
    mcmc = drivers(20_000, "memory", Path(), num_chains=64, mesh=mesh, chunk_size=2_000)
    run(mcmc, 64)
    return {"seconds": run(mcmc, 64)}


def many(which: str, number: str) -> dict[str, float]:
    """Posteriors of digits that are blurred, with an unknown noise scale, of 100 draws each."""
    from benchmarks._digit_posteriors import kernel_for, measurements, trained_energy
    from examples.digits_deblurring import load_pictures

    pictures, held_out = load_pictures(0)
    mean, n = pictures.mean(axis=0), int(number)
    kernel = kernel_for(trained_energy(pictures - mean, 500), mean)
    observed, y = measurements(held_out, n)
    settings: dict[str, Any] = {"num_warmup": 100, "num_samples": 100, **QUIET}
    key = jax.random.key(0)
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    with compilations() as names:
        if which != "run_many":
            # With the bar, and data as arguments, NumPyro compiles once, and steps from Python.
            settings["progress_bar"] = which == "loop with bar"
            mcmc: Any = MCMC(kernel, jit_model_args=True, **settings)
            for own in zip(jax.random.split(key, n), observed, y, strict=True):
                mcmc.run(*own)
                mcmc.get_samples()["noise"].block_until_ready()
        else:
            mcmc = ns.StoredMCMC(kernel, chain_batch_size=250, **settings)
            mcmc.run_many(key, observed, y)
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        # Those that draw; of NumPyro's, all.
        "programs": len([name for name in names if "chunk" in name or which != "run_many"]),
        "before": before,
        "peak": peak(),
    }


def kills(name: str, number: str) -> dict[str, float]:
    sys.path.insert(0, str(ROOT / "tests"))
    from long_runs.test_kills import kills_survived  # ty: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as folder:
        found = kills_survived(name, Path(folder), int(number), seed=1)
        return dict(zip(("kills", "after a commit"), found, strict=True))


MEASURES = {f.__name__: f for f in (draws, second, online, report, devices, many, kills)}


def lines_of(what: str, kernel: str) -> list[tuple[str, ...]]:
    """What is measured, a process each."""
    many_loops = [("many", which, "8") for which in ("loop", "loop with bar")]
    lines: dict[str, list[tuple[str, ...]]] = {
        "memory": [("draws", n, "store") for n in ("10000", "1000000")],
        "time": [("draws", "100000", which) for _ in range(3) for which in ("MCMC", "store")],
        "second": [("second", w, bar) for w in ("MCMC", "StoredMCMC") for bar in ("no bar", "bar")],
        "online": [("online", "2000")],
        "report": [("report", n) for n in ("10000", "100000", "400000")],
        "devices": [("devices", n) for _ in range(2) for n in ("1", "2")],
        "many": [("many", "run_many", "1000"), *many_loops],
        "kills": [("kills", kernel, "20")],
    }
    return lines[what]


def measured_alone(*args: str) -> dict[str, float]:
    """In a process of its own."""
    command = [sys.executable, "-m", "benchmarks.long_runs", "one", "--args", *args]
    flags = "--xla_force_host_platform_device_count=2 --xla_cpu_multi_thread_eigen=false"
    environment = os.environ | ({"XLA_FLAGS": flags} if args[0] == "devices" else {})
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whats = ["memory", "time", "second", "online", "report", "many", "devices", "kills"]
    parser.add_argument("what", nargs="*", default=whats[:6], choices=[*whats, "one"])
    parser.add_argument("--kernel", default="MALA", help="whose runs are killed")
    parser.add_argument("--args", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.args:
        print(json.dumps(MEASURES[arguments.args[0]](*arguments.args[1:])))
        return
    for what in arguments.what:
        for line in lines_of(what, arguments.kernel):
            found = measured_alone(*line)
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
            print(f"{' '.join(line):32} {numbers}", flush=True)


if __name__ == "__main__":
    main()
