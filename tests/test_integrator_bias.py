# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The example `examples/integrator_bias.py`: what it measures, and that it draws."""

import runpy
import sys
from pathlib import Path

import pytest
from jax import random

import numpyro_scores as ns

PATH = Path(__file__).resolve().parents[1] / "examples" / "integrator_bias.py"


pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(PATH))


@pytest.mark.parametrize(
    "integrator, sign",
    [(ns.EulerMaruyama(), 1), (ns.UBU(), -1), (ns.BAOAB(), 0)],
    ids=lambda value: type(value).__name__,
)
def test_the_measured_bias_on_the_quartic_has_its_sign(example, integrator, sign):
    start = example["quartic_draws"](0, 20_000)
    h = 0.2 / example["QUARTIC_CURVATURE"]
    error, standard_error = example["quartic_error"](integrator, h, 100, start, random.key(1))
    assert standard_error < 3e-3
    if sign:
        assert sign * error > 3 * standard_error
    else:
        assert abs(error + 0.004) < 4 * standard_error


def test_it_writes_the_picture_and_prints_every_integrator(tmp_path, monkeypatch, capsys):
    output = tmp_path / "made when missing"
    arguments = ["--output", str(output), "--num-chains", "50", "--time", "3"]
    monkeypatch.setattr(sys, "argv", [str(PATH), *arguments])
    example = runpy.run_path(str(PATH), run_name="__main__")
    assert (output / "integrator_bias.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert all(f"| {name}, quartic |" in printed for name in example["INTEGRATORS"])
    assert "| Euler-Maruyama (ULA), Gaussian | +2.6% | +5.3% |" in printed
