# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The Python code of `README.md` and of the pages in `docs/` runs as it stands: all blocks of a page
one after the other, in one namespace and an empty folder. The pages' own `assert`s are tests too.

Only the README trains on pictures and draws many chains. Its program runs as it is printed, but
`fit` makes 100 steps and `MCMC` 2 chains of 4 draws, whatever they are asked for. What takes time
then is compilation, so XLA is asked for little optimisation.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpyro.infer
import pytest

import numpyro_scores as ns

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONG = {"README.md"}
# Most of the others compile for a long time, and test what other tests test.
QUICK = {"README.md", "docs/limits/not_a_gradient.md"}

# A fence may be indented, as in a list; its end has the same indent.
BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def python_blocks(page: Path) -> Iterator[tuple[int, str]]:
    """The number of lines before a block, and its code."""
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        indent, code = block.groups()
        yield text.count("\n", 0, block.start(2)), re.sub(f"^{indent}", "", code, flags=re.M)


@pytest.fixture
def short_runs(monkeypatch):
    fit, init = ns.fit, numpyro.infer.MCMC.__init__

    def short_fit(*args, num_steps, **kwargs):
        return fit(*args, num_steps=min(num_steps, 100), **kwargs)

    def short_init(self, *args, num_warmup, num_samples, num_chains=1, **kwargs):
        num_warmup, num_samples = min(num_warmup, 4), min(num_samples, 4)
        lengths = {"num_warmup": num_warmup, "num_samples": num_samples}
        init(self, *args, **lengths, num_chains=min(num_chains, 2), **kwargs)

    monkeypatch.setattr(ns, "fit", short_fit)
    monkeypatch.setattr(numpyro.infer.MCMC, "__init__", short_init)


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize(
    "page",
    [
        page if name(page) in QUICK else pytest.param(page, marks=pytest.mark.slow)
        for page in PAGES
        if any(python_blocks(page))
    ],
    ids=name,
)
def test_the_code_of_a_page_runs(page, request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name(page) in LONG:
        request.getfixturevalue("short_runs")
    namespace = {"__name__": page.stem}
    for lines_before, code in python_blocks(page):
        # A traceback then shows the line of the page.
        exec(compile("\n" * lines_before + code, str(page), "exec"), namespace)


def test_the_blocks_of_a_page_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\n```sh\nls\n```\n\n- a list\n\n  ```python\n"
        "  if x:\n      x = 2\n  ```\n\n```python\nassert x == 2\n```\n"
    )
    assert list(python_blocks(page)) == [
        (1, "x = 1\n"),
        (11, "if x:\n    x = 2\n"),
        (16, "assert x == 2\n"),
    ]


def test_the_code_of_the_pages_keeps_to_public_addresses():
    for page in PAGES:
        for _, code in python_blocks(page):
            assert not re.search(r"numpyro_scores\.", code), (name(page), code)
            assert not re.search(r"\bns(\.\w+)*\._[a-z]", code), (name(page), code)


def test_the_pages_that_show_code_have_some():
    with_code = {name(page) for page in PAGES if any(python_blocks(page))}
    shown = [*(ROOT / "docs/tasks").glob("*.md"), *(ROOT / "docs/extending").glob("*.md")]
    assert {"README.md", "docs/extending.md", "docs/training.md", *map(name, shown)} <= with_code
