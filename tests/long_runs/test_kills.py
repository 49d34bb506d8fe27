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
    command = [sys.executable, str(PROGRAM), *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def commit_of(path):
    """What is another one after each commit."""
    return (path / "zarr.json").stat().st_mtime_ns if (path / "zarr.json").exists() else None


def kills_survived(name, folder, num_kills, seed=0):
    """
    How often a run was killed before it ended, with the bits of one that was not; and how often of
    these after a commit of that life.
    """
    cache = folder / "cache"
    assert start(name, folder / "whole.zarr", cache).wait() == 0
    path = folder / "killed.zarr"
    moments = random.Random(seed)
    kills = kills_at_work = 0
    while kills < num_kills:
        process, before = start(name, path, cache), commit_of(path)
        # Imports are over.
        process.stdout.readline()
        if kills % 2:
            # To compile takes seconds, and to draw tenths: half of the kills come at the draws.
            while commit_of(path) == before and process.poll() is None:
                time.sleep(0.002)
        try:
            process.wait(moments.uniform(0.0, 0.4 if kills % 2 else 4.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            kills_at_work += commit_of(path) != before
            if (path / "zarr.json").exists():
                xarray.open_datatree(path, engine="zarr").load()
            continue
        assert process.returncode == 0
        # It has ended: the kills that are left are those of another run.
        check_same(folder)
        shutil.rmtree(path)
    assert start(name, path, cache).wait() == 0
    check_same(folder)
    return kills, kills_at_work


def check_same(folder):
    whole, killed = (
        xarray.open_datatree(folder / f"{which}.zarr", engine="zarr").load()
        for which in ("whole", "killed")
    )
    assert set(whole.children) == set(killed.children)
    assert whole["warmup_posterior"].sizes["draw"] == 40
    for group in set(whole.children) - {"observed_data"}:
        xarray.testing.assert_equal(whole[group].to_dataset(), killed[group].to_dataset())


@pytest.mark.slow
@pytest.mark.parametrize("name", KERNELS)
def test_a_killed_run_ends_with_the_same_bits(name, tmp_path):
    kills, kills_at_work = kills_survived(name, tmp_path, num_kills=4)
    assert kills == 4
    assert kills_at_work >= 2
