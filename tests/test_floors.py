# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""The floors of the package: an import never points up, wherever in a file it stands."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "numpyro_scores"

# The roof, `numpyro_scores/__init__.py`, sees every floor; no floor imports from the roof.
ROOF = 5
FLOORS = {
    "version": 0,
    "_callable_pytrees": 0,
    "_callables": 0,
    "_coordinates": 0,
    "_compile": 0,
    "_hidden_state": 0,
    "_pytrees_by_fields": 0,
    "_resampling": 0,
    "_validation": 0,
    "_words": 0,
    "curvature": 0,
    "denoisers": 0,
    "densities": 0,
    "guidance": 0,
    "integrators": 0,
    "objectives": 0,
    "pretrained": 1,
    "processes": 0,
    "samplers": 0,
    "schedules": 0,
    "nn": 1,
    "training": 2,
    "distributions": 2,
    "handlers": 2,
    "normalizers": 2,
    "infer": 3,
    "inverse": 3,
    "diagnostics": 4,
    "long_runs": 4,
    "testing": 4,
}
LIBRARIES = {
    "diffrax": 0,
    "jax": 0,
    "numpy": 0,
    "flax": 1,
    "optax": 1,
    "orbax": 1,
    "safetensors": 1,
    "torch": 1,
    "tqdm": 1,
    "numpyro": 2,
    "arviz": 4,
    "filelock": 4,
    "matplotlib": 4,
    "scipy": 4,
    "sklearn": 4,
    "xarray": 4,
    "zarr": 4,
}
# Importing these takes seconds: only a function that needs one pays for it.
DEFERRED = {"arviz", "diffrax", "matplotlib", "sklearn", "torch", "xarray", "zarr"}
# A training or a network may import these when it is itself imported, and nothing else may.
HEAVY = DEFERRED | {"flax", "h5py", "optax", "orbax", "safetensors"}
STRANGERS = [{"nn", "distributions"}]


def part_of(module: str) -> str:
    """``numpyro_scores.nn.mlp`` lies in the part ``nn``; the roof is the part ``""``."""
    return module.split(".")[1] if "." in module else ""


def is_deferred(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def imports(
    node: ast.AST, package: list[str], deferred: bool = False
) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute module name, and whether the import waits for a call."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield node.lineno, alias.name, deferred
    elif isinstance(node, ast.ImportFrom):
        parents = package[: len(package) + 1 - node.level] if node.level else []
        module = ".".join(parents + ([node.module] if node.module else []))
        for alias in node.names:
            # What is imported from the package itself may be one of its parts.
            is_part = module == PACKAGE and alias.name in FLOORS
            yield node.lineno, f"{module}.{alias.name}" if is_part else module, deferred
    for child in ast.iter_child_nodes(node):
        yield from imports(child, package, deferred or is_deferred(node))


def violations(path: str, source: str) -> list[str]:
    """What the file at ``path``, relative to the package, imports from above its floor."""
    part = PurePosixPath(path).parts[0].removesuffix(".py")
    part = "" if part == "__init__" else part
    if part and part not in FLOORS:
        return [f"{path}: a new file or folder; give it a floor in {Path(__file__).name}"]
    floor = FLOORS[part] if part else ROOF
    package = [PACKAGE, *PurePosixPath(path).parts[:-1]]

    found = []
    for line, module, deferred in imports(ast.parse(source), package):
        top = module.split(".")[0]
        if top in sys.stdlib_module_names:
            continue
        elif top == PACKAGE:
            other = part_of(module)
            above = (FLOORS.get(other, ROOF) if other else ROOF) > floor
            stranger = any(part != other and {part, other} <= pair for pair in STRANGERS)
            reason = "never imports" if stranger else "lies below" if above else None
        elif top not in LIBRARIES:
            reason = "imports, without a floor in the table of libraries,"
        elif LIBRARIES[top] > floor:
            reason = "lies below"
        elif top in DEFERRED and not (deferred and floor < ROOF):
            reason = "imports, outside of a diagnostic function,"
        else:
            reason = None
        if reason:
            found.append(f"{path}:{line}: {part or 'the roof'} {reason} {module}")
    return found


FILES = sorted(p.relative_to(ROOT / PACKAGE).as_posix() for p in (ROOT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("path", FILES)
def test_imports_do_not_point_up(path):
    assert not violations(path, (ROOT / PACKAGE / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "path, source",
    [
        ("curvature.py", "import numpyro.distributions as dist"),
        ("objectives/implicit.py", "def loss():\n    from flax import nnx"),
        ("objectives/implicit.py", "from ..training import fit"),
        ("objectives/implicit.py", "from .. import nn"),
        ("training.py", "from numpyro_scores.infer import ula"),
        ("training.py", "from numpyro_scores import MALA"),
        ("training.py", "import numpyro_scores"),
        ("nn/mlp.py", "if TYPE_CHECKING:\n    from numpyro_scores.distributions import energy"),
        ("distributions/energy.py", "import numpyro_scores.nn.mlp"),
        ("infer/ula.py", "def f():\n    import arviz"),
        ("diagnostics/figures.py", "import matplotlib.pyplot as plt"),
        ("diagnostics/figures.py", "class A:\n    import arviz as az"),
        ("__init__.py", "import arviz"),
        ("curvature.py", "import pandas"),
        ("attic.py", ""),
    ],
)
def test_an_import_that_points_up_is_found(path, source):
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    "path, source",
    [
        ("curvature.py", "import math\nimport jax.numpy as jnp"),
        ("curvature.py", "from numpyro_scores import _validation"),
        ("objectives/implicit.py", "from ..densities import ExactTrace\nfrom . import base"),
        ("training.py", "import optax\nfrom numpyro_scores.objectives import implicit"),
        ("infer/ula.py", "from numpyro_scores.distributions import energy\nimport numpyro"),
        ("diagnostics/figures.py", "def plot():\n    import matplotlib.pyplot as plt"),
        ("diagnostics/figures.py", "if TYPE_CHECKING:\n    from matplotlib.figure import Figure"),
        ("__init__.py", "from numpyro_scores import infer, nn\nfrom .distributions import energy"),
    ],
)
def test_an_import_that_points_down_passes(path, source):
    assert violations(path, source) == []


def test_what_is_heavy_waits_until_it_is_asked_for():
    """Nothing of our own with the package, no network or plot with any floor but two."""
    rest = "infer, inverse, diagnostics, normalizers, objectives, testing"
    program = (
        f"import sys, {PACKAGE}; names = set(sys.modules)\n"
        f"print(*sorted(name for name in names if name.startswith('{PACKAGE}')))\n"
        f"from {PACKAGE} import {rest}\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    own, heavy = done.stdout.splitlines()
    assert own.split() == [PACKAGE, f"{PACKAGE}.version"]
    assert heavy == ""
