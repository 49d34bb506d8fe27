# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The planted faults are up to date: `make mutants`, which sees them killed, takes much longer."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MUTANTS = tomllib.loads((ROOT / "tests/mutants.toml").read_text(encoding="utf-8"))["mutant"]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant["name"])
def test_the_fault_can_be_planted_and_its_tests_are_there(mutant):
    source = (ROOT / mutant["file"]).read_text(encoding="utf-8")
    assert source.count(mutant["old"]) == 1
    assert mutant["new"] != mutant["old"] and mutant["tests"]
    for test in mutant["tests"]:
        path, _, name = test.partition("::")
        assert (ROOT / path).exists()
        name = name.partition("[")[0]
        assert not name or f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_slow_cases_are_there():
    lines = (ROOT / "tests/slow_cases.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        if line and not line.startswith("#"):
            path, name = line.partition("[")[0].split("::")
            assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), line
