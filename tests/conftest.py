# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""JAX as the tests need it: two CPU devices, compiled programs kept in `.cache/jax`."""

import gc
import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest

# JAX reads it when imported; `JAX_PLATFORMS=cuda pytest` still runs the tests on a GPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The threads of LAPACK and those of XLA wait for each other on busy cores (docs/limits.md).
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Most of the time of the tests is that in which XLA compiles. Its older emitters of fused loops
# compile in a third of the time of the newer ones, and run as fast. XLA ends the process for a flag
# that it does not know, as that of jaxlib 0.12. To cut a program into parts is for idle cores.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    )

import jax

CACHE = Path(__file__).resolve().parents[1] / ".cache"
SLOW_CASES = Path(__file__).resolve().parent / "slow_cases.txt"

os.environ.setdefault("MPLBACKEND", "agg")
# Matplotlib and ArviZ write to the home folder unless told otherwise.
os.environ.setdefault("MPLCONFIGDIR", str(CACHE / "matplotlib"))
os.environ.setdefault("XDG_CACHE_HOME", str(CACHE))

# `chain_method="parallel"` needs a device for each chain.
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
# What a kernel's `init` compiles anew at each run is found here again, and so are the programs of
# single operations, by another process.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
# To keep a bound, JAX reads the age of all entries each time that it writes one, and the processes
# of pytest-xdist wait for each other meanwhile: at a thousand entries that is a tenth of a second.
# So there is none during a run; what is too much goes before it.
jax.config.update("jax_compilation_cache_max_size", -1)
MAX_CACHE_BYTES = 2**30


# Tracing makes many objects that live on in caches: to look through all of them for garbage each
# 700 objects takes some percent of the time.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    entries = []
    for path in (CACHE / "jax").glob("*"):
        with suppress(FileNotFoundError):  # another run may be at it
            found = path.stat()
            entries.append((found.st_mtime, found.st_size, path))
    kept = 0
    for _, size, path in sorted(entries, reverse=True):  # the newest first
        kept += size
        if kept > MAX_CACHE_BYTES:
            path.unlink(missing_ok=True)


# JAX's dispatch of NumPy arguments may meet a program of the other precision once both have been in
# use (jax 0.10 to 0.12: "Executable expected parameter 0 of size ..."). So the float64 tests come
# last, and each change of precision forgets what was compiled.


@pytest.hookimpl(tryfirst=True)  # before `-m "not slow"` leaves items out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_wants_x64)
    lines = SLOW_CASES.read_text(encoding="utf-8").splitlines()
    slow = {line for line in lines if not line.startswith("#")}
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)
    # Of the whole suite each has to be there: a case that got another name would be quick again.
    unknown = slow - {item.nodeid for item in items}
    if unknown and config.args == config.getini("testpaths"):
        raise pytest.UsageError(f"No test has these names of {SLOW_CASES.name}: {sorted(unknown)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if jax.config.read("jax_enable_x64") != _wants_x64(item):
        jax.config.update("jax_enable_x64", _wants_x64(item))
        jax.clear_caches()


def _wants_x64(item: pytest.Item) -> bool:
    return "x64" in getattr(item, "fixturenames", ())


@pytest.fixture
def x64() -> None:
    """float64 for one test: the exact comparisons need it."""
    assert jax.config.read("jax_enable_x64")


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Little optimisation, where what takes time is to compile."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
