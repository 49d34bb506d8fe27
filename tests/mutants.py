# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Plant the faults of `mutants.toml` one at a time, and see that the tests notice each.

A fault goes into a temporary copy of the package and of the benchmarks, on which the tests that it
names then run:

* killed: a test failed, or was still running at the time limit;
* survived: the tests passed, so they do not test what they seem to;
* stale: the text to replace is not there exactly once;
* broken: the tests could not run, for instance because the fault is a syntax error.

The exit code is 0 if every mutant was killed, 1 otherwise.
"""

import argparse
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpyro_scores", "benchmarks")
MUTANTS = Path(__file__).with_suffix(".toml")
TIME_LIMIT = 600.0  # seconds for the tests of one mutant
OUTCOMES = {0: "survived", 1: "killed"}  # by pytest's exit code
WRONG_COPY = 64
# What the package and its tests import takes half the time of a mutant: each is a fork of a process
# that has imported it all, but the package itself.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["arviz", "flax.nnx", "matplotlib.pyplot", "numpyro", "optax", "pytest", "scipy.stats"]
)


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    tests: list[str]


@contextmanager
def package_copy() -> Generator[Path, None, None]:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        for name in PACKAGES:
            shutil.copytree(
                ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__")
            )
        yield Path(folder)


def run_tests(
    folder: Path, tests: list[str], *options: str, time_limit: float | None = None
) -> tuple[int | None, str]:
    """Pytest's exit code (``None`` after ``time_limit`` seconds) and output, run on the copy."""
    log = folder / "output"
    process = FORKS.Process(target=_pytest, args=(folder, log, [*options, *tests]))
    process.start()
    process.join(time_limit)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)  # its own group: the tests' processes go too
        process.join()
        return None, ""
    return process.exitcode, log.read_text(encoding="utf-8", errors="replace")


def _pytest(folder: Path, log: Path, arguments: list[str]) -> None:
    os.setsid()
    with log.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.chdir(ROOT)
    # The processes that tests start import the copy too; the safe path leaves out this folder.
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONSAFEPATH": "1"}
    sys.path.insert(0, str(folder))
    for name in PACKAGES:
        home = next(iter(importlib.import_module(name).__path__))
        if not Path(home).is_relative_to(folder):
            print(f"The tests would not import the copy in {folder}, but {home}.")
            raise SystemExit(WRONG_COPY)
    import pytest

    cache = f"cache_dir={folder / 'cache'}"  # not the one that remembers the last failures
    raise SystemExit(int(pytest.main(["-x", "-q", "-o", cache, *arguments])))


def check_unmutated(mutants: list[Mutant], jobs: int) -> None:
    """A test that fails anyway, or that runs on another copy, would kill every mutant."""
    with package_copy() as folder:
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        code, output = run_tests(folder, tests, "-n", str(jobs))
        if code:
            sys.exit(f"{output}\nThese tests must pass before any fault is planted.")


def outcome(mutant: Mutant) -> tuple[str, str]:
    """One of the words at the top of this file, and what explains it."""
    with package_copy() as folder:
        path = folder / mutant.file
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        if (count := source.count(mutant.old)) != 1:
            return "stale", f"{mutant.file} has {count} times {mutant.old!r}"
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
        code, output = run_tests(folder, mutant.tests, time_limit=TIME_LIMIT)
    if code is None:
        return "killed", f"still running after {TIME_LIMIT:.0f} s"
    word = OUTCOMES.get(code, "broken")
    if word == "killed":
        return word, ""
    return word, output if word == "broken" else " ".join(mutant.tests)


def load(names: list[str]) -> list[Mutant]:
    mutants = [Mutant(**entry) for entry in tomllib.loads(MUTANTS.read_text()).get("mutant", [])]
    known = [mutant.name for mutant in mutants]
    if not mutants:
        sys.exit(f"No mutants are listed in {MUTANTS.name}, so nothing was tested.")
    if repeated := {name for name in known if known.count(name) > 1}:
        sys.exit(f"Names must be unique in {MUTANTS.name}; repeated: {', '.join(repeated)}.")
    if unknown := set(names) - set(known):
        sys.exit(f"No mutant is called {', '.join(unknown)}; there are: {', '.join(known)}.")
    return [mutant for mutant in mutants if not names or mutant.name in names]


def main() -> int:
    # As tests/conftest.py, which comes too late for what is imported before.
    for name, value in {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}.items():
        os.environ.setdefault(name, value)
    os.environ["MPLBACKEND"] = "agg"
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="repeatable")
    parser.add_argument("--jobs", type=int, default=1, help="mutants at a time")
    options = parser.parse_args()
    mutants = load(options.only)
    check_unmutated(mutants, options.jobs)

    words = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for mutant, (word, reason) in zip(mutants, pool.map(outcome, mutants), strict=True):
            print(f"{word:9}{mutant.name}{reason and ': ' + reason}", flush=True)
            words.append(word)
    print(", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words)))
    return int(any(word != "killed" for word in words))


if __name__ == "__main__":
    sys.exit(main())
