# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""JAX as the tests need it: two CPU devices, compiled programs kept in `.cache/jax`."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# JAX reads it when imported; `JAX_PLATFORMS=cuda pytest` still runs the tests on a GPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

CACHE = Path(__file__).resolve().parents[1] / ".cache"

os.environ.setdefault("MPLBACKEND", "agg")
# Matplotlib and ArviZ write to the home folder unless told otherwise.
os.environ.setdefault("MPLCONFIGDIR", str(CACHE / "matplotlib"))
os.environ.setdefault("XDG_CACHE_HOME", str(CACHE))

# `chain_method="parallel"` needs a device for each chain.
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# JAX locks its cache only where its size is bounded; pytest-xdist's processes share this one.
jax.config.update("jax_compilation_cache_max_size", 2**30)


@pytest.fixture
def x64() -> Iterator[None]:
    """float64 for one test: the exact comparisons need it."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)
