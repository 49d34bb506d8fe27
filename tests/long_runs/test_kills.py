# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""SIGKILL at any moment: the same call goes on, and ends with the same bits."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray
from long_runs.killed import KERNELS

PROGRAM = Path(__file__).with_name("killed.py")
ROOT = PROGRAM.parents[2]


def start(*args):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(PROGRAM), *map(str, args)], env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_a_killed_run_ends_with_the_same_bits(name, tmp_path, num_kills=4):
    cache = tmp_path / "cache"
    assert start(name, tmp_path / "whole.zarr", cache).wait() == 0
    path = tmp_path / "killed.zarr"
    moments = random.Random(0)
    kills = 0
    for _ in range(60):
        process = start(name, path, cache)
        while not (path / "zarr.json").exists() and process.poll() is None:
            time.sleep(0.01)
        try:
            process.wait(moments.uniform(0.0, 0.6) if kills < num_kills else 600.0)
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            if (path / "zarr.json").exists():
                xarray.open_datatree(path, engine="zarr").load()
    assert process.returncode == 0
    assert kills
    whole, killed = (
        xarray.open_datatree(tmp_path / f"{which}.zarr", engine="zarr").load()
        for which in ("whole", "killed")
    )
    assert set(whole.children) == set(killed.children)
    for group in {"posterior", "sample_stats"} & set(whole.children):
        xarray.testing.assert_equal(whole[group].to_dataset(), killed[group].to_dataset())
