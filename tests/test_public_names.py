# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The public names: those of `public_names.txt`, so that one that goes missing is noticed."""

import ast
import importlib
import inspect
import pickle
from pathlib import Path

import pytest

import numpyro_scores as ns

LISTED = Path(__file__).with_suffix(".txt").with_stem("public_names")


def names_of(module):
    """What it promises: its `__all__`, or else what it defines."""
    defined = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    ]
    return getattr(module, "__all__", defined)


def public_names():
    modules = sorted(name for name in dir(ns) if inspect.ismodule(getattr(ns, name)))
    modules = [name for name in modules if name in ns._MODULES]
    return sorted(
        [f"ns.{name}" for name in {*ns.__all__, *modules}]
        + [f"ns.{m}.{name}" for m in modules for name in names_of(getattr(ns, m))]
    )


def test_the_public_names_are_those_listed():
    listed, found = set(LISTED.read_text(encoding="utf-8").split()), set(public_names())
    assert found == listed, (
        f"gone: {sorted(listed - found)}; new: {sorted(found - listed)}. If both are meant (and in "
        f"the changelog), change {LISTED.name} alike."
    )


def test_the_lists_of_the_package_agree():
    """What type checkers read, what is imported on demand, and what is promised."""
    tree = ast.parse(inspect.getsource(ns))
    (checking,) = (node for node in tree.body if isinstance(node, ast.If))
    read = {
        (node.module.removeprefix("numpyro_scores").lstrip("."), alias.name)
        for node in checking.body
        for alias in node.names
    }
    on_demand = {(home, name) for name, home in ns._HOME_OF.items()}
    modules = {("", name) for name in ns._MODULES & set(ns.__all__)}
    assert read == on_demand | modules
    assert {name for _, name in read} == set(ns.__all__) - {"__version__"}
    assert set(ns.__all__) <= set(dir(ns))


def test_a_name_is_what_its_home_has():
    for name, home in ns._HOME_OF.items():
        value = getattr(importlib.import_module(f"numpyro_scores.{home}"), name)
        assert getattr(ns, name) is value
        assert pickle.loads(pickle.dumps(value)) is value


def test_an_unknown_name_is_told_as_usual():
    with pytest.raises(AttributeError, match="module 'numpyro_scores' has no attribute 'MLAA'"):
        getattr(ns, "MLAA")  # noqa: B009
    with pytest.raises(ImportError, match="cannot import name 'MLAA'"):
        from numpyro_scores import MLAA  # noqa: F401
