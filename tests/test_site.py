# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The site is made without a warning, and is right in a browser. Both need what tests do not."""

import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
pytestmark = pytest.mark.slow


def run(*arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=DOCS.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_site_is_made_without_a_warning_and_opens_in_a_browser(tmp_path):
    for package in ("sphinx", "myst_parser", "furo", "ziamath"):
        pytest.importorskip(package, reason="`make site` installs it")
    site = tmp_path / "site"
    run("-m", "sphinx", "-W", "-q", "-b", "html", "-d", tmp_path / "doctrees", DOCS, site)
    # Without a Chromium it says so and succeeds.
    run(DOCS / "check_site.py", site)


def test_the_check_sees_what_is_wrong_with_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(DOCS)
    browser = pytest.importorskip("browser")
    if browser.find_chromium() is None:
        pytest.skip("no Chromium on the path or in $CHROMIUM")
    check_site = pytest.importorskip("check_site")
    good, bad = tmp_path / "search.html", tmp_path / "bad.html"
    good.write_text("<ul id='search-results'><li>langevin</li></ul><math><mi>x</mi></math>")
    bad.write_text(
        "<body><img src='none.png'><a href='none.html'>a</a><a href='#none'>b</a>"
        "<p>$x$</p><math><merror>x</merror></math><p style='width: 600px'>wide</p>"
        "<script>console.error('of the console'); undefined.of()</script>"
        "<script src='http://example.org/x.js'></script></body>"
    )
    monkeypatch.setattr(sys, "argv", ["check_site.py", str(tmp_path), "--report", str(good)])
    assert check_site.main() == 1
    found = capsys.readouterr().out
    assert not [line for line in found.splitlines() if line.startswith("search.html")]
    for fault in (
        "bad.html: picture without content",
        "bad.html: link to a page that is not there",
        "bad.html: link to a place that is not there",
        "bad.html: TeX in the text: $x$",
        "bad.html: formula not rendered",
        "bad.html: at 400 pixels wider",
        "bad.html: of the console",
        "bad.html: TypeError",
        "bad.html: asks a network for http://example.org/x.js",
    ):
        assert fault in found
