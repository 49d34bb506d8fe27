# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Two processes draw one run into one store, and the draws are those of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import xarray
from long_runs.helpers import equal, run

PROGRAM = Path(__file__).with_name("together.py")
ROOT = PROGRAM.parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


def two(path, num_samples=60, what="store"):
    """What both processes print."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_NUM_CPU_DEVICES": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), *map(str, (rank, port, path, num_samples, what))],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    out = [process.communicate(timeout=300)[0] for process in processes]
    return [[line for line in lines.splitlines() if not line.startswith("[Gloo]")] for lines in out]


def test_two_processes_draw_what_one_draws(tmp_path):
    path, whole = tmp_path / "run.zarr", run(num_chains=4, keep_warmup=True)
    first, second = two(path, what="warmup")
    assert first == second
    assert first[0].startswith(f"60 {whole.last_state.z['log_tau'].tolist()}")
    found = run(num_chains=4, store=path, keep_warmup=True)
    assert equal(found.get_samples(True, warmup=True), whole.get_samples(True, warmup=True))
    assert equal(found.get_samples(True), whole.get_samples(True))
    assert equal(found.get_extra_fields(True), whole.get_extra_fields(True))


def test_processes_come_and_go(tmp_path):
    """Two, then one, then two again: made by two, the store has files for each."""
    path, whole = tmp_path / "run.zarr", run(num_chains=4)
    two(path, 20)
    run(num_chains=4, num_samples=40, store=path)
    two(path)
    assert equal(run(num_chains=4, store=path).get_samples(True), whole.get_samples(True))
    other = tmp_path / "by_one.zarr"
    run(num_chains=4, num_samples=20, store=other)
    for lines in two(other):
        assert "has 4 of 4 chains in a file" in lines[0] or "could not go on" in lines[0]


def test_one_that_fails_stops_both_in_words(tmp_path):
    path = tmp_path / "run.zarr"
    first, second = two(path, what="full")
    assert "Process 1 of 2 could not go on" in first[0]
    assert "it has 7 draws of each chain" in second[0]
    assert xarray.open_datatree(path, engine="zarr")["posterior"].sizes["draw"] == 7
    assert "cannot write one MemoryStore" in two(path, what="memory")[0][0]


def test_ctrl_c_in_one_stops_both_at_the_same_chunk(tmp_path):
    path, whole = tmp_path / "run.zarr", run(num_chains=4)
    first, second = two(path, what="interrupted")
    # The chunk that was being stored, and the one in flight.
    assert first == second
    assert first[0].startswith("21 ")
    # A second Ctrl-C is an exception in that process, and an error in the other.
    first, second = two(path, what="interrupted twice")
    assert "Process 1 of 2 could not go on" in first[0]
    assert second[0].startswith("KeyboardInterrupt")
    assert xarray.open_datatree(path, engine="zarr")["posterior"].sizes["draw"] == 21
    two(path)
    assert equal(run(num_chains=4, store=path).get_samples(True), whole.get_samples(True))


def test_a_process_that_is_killed_ends_the_other_in_words(tmp_path):
    path, whole = tmp_path / "run.zarr", run(num_chains=4)
    first, second = two(path, what="killed")
    assert second == []
    assert "Another of the 2 processes has ended" in first[0]
    assert xarray.open_datatree(path, engine="zarr")["posterior"].sizes["draw"] == 7
    two(path)
    assert equal(run(num_chains=4, store=path).get_samples(True), whole.get_samples(True))
