# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""SIGKILL at any moment: the same call goes on, and ends with the same bits."""

import os
import random
import shutil
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


def kills_survived(name, folder, num_kills, seed=0):
    """How often a run was killed before it ended, with the bits of one that was not."""
    cache = folder / "cache"
    assert start(name, folder / "whole.zarr", cache).wait() == 0
    path = folder / "killed.zarr"
    moments = random.Random(seed)
    kills = 0
    while kills < num_kills:
        process = start(name, path, cache)
        while not (path / "zarr.json").exists() and process.poll() is None:
            time.sleep(0.01)
        try:
            # A second life starts with seconds of imports: half of the kills come at its work.
            process.wait(moments.uniform(0.0, 6.0 if kills % 2 else 0.6))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            if (path / "zarr.json").exists():
                xarray.open_datatree(path, engine="zarr").load()
            continue
        assert process.returncode == 0
        # It has ended: the kills that are left are those of another run.
        check_same(folder)
        shutil.rmtree(path)
    assert start(name, path, cache).wait() == 0
    check_same(folder)
    return kills


def check_same(folder):
    whole, killed = (
        xarray.open_datatree(folder / f"{which}.zarr", engine="zarr").load()
        for which in ("whole", "killed")
    )
    assert set(whole.children) == set(killed.children)
    for group in {"posterior", "sample_stats"} & set(whole.children):
        xarray.testing.assert_equal(whole[group].to_dataset(), killed[group].to_dataset())


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_a_killed_run_ends_with_the_same_bits(name, tmp_path):
    assert kills_survived(name, tmp_path, num_kills=4)
