# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
Open every page of the site in headless Chromium, and the page of a report by `diagnose`: no error
in the console, nothing from a network, no broken link or picture, formulas rendered, no page wider
than its window at 1,200 and 400 pixels, and a search that finds.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

from browser import Browser, find_chromium

ROOT = Path(__file__).resolve().parent.parent
WIDTHS = (1200, 400)

# Pictures that did not load, formulas without a size or with an error, TeX left in the text, links.
LOOK = r"""(() => {
  const images = [...document.images].filter(i => !(i.complete && i.naturalWidth)).map(i => i.src);
  const formulas = [...document.querySelectorAll("math")];
  const bad = formulas.filter(m => {
    if (!m.checkVisibility()) return false;
    const box = m.getBoundingClientRect();
    return !(m instanceof MathMLElement) || !box.width || !box.height || m.querySelector("merror");
  }).map(m => m.getAttribute("alttext"));
  const text = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const raw = [];
  while (text.nextNode()) {
    const parent = text.currentNode.parentElement;
    if (parent.closest("code, pre, math, script, style, svg, .sig")) continue;
    if (/\\(frac|log|sum|sigma|mathbb|nabla|sqrt|lambda)\b|:math:|\$[^$\s]+\$/.test(
      text.currentNode.data)) raw.push(text.currentNode.data.trim().slice(0, 80));
  }
  const links = [...document.querySelectorAll("a[href]")].map(a => a.href);
  return {images, bad, raw, links, formulas: formulas.length};
})()"""

# What sticks out beyond the window, by the first few elements that do.
TOO_WIDE = r"""(() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width + 1) return [];
  return [...document.querySelectorAll("article *, body *")]
    .filter(e => e.getBoundingClientRect().right > width + 1 && e.checkVisibility())
    .slice(-3).map(e => e.outerHTML.slice(0, 80));
})()"""

FOUND = r"""new Promise(done => {
  let tries = 0;
  const look = () => {
    const found = document.querySelectorAll("#search-results li").length;
    if (found || ++tries > 50) done(found); else setTimeout(look, 100);
  };
  look();
})"""


@cache
def ids(page: Path) -> frozenset[str]:
    return frozenset(re.findall(r'\bid="([^"]+)"', page.read_text(encoding="utf-8")))


def broken_links(links: list[str]) -> Iterator[str]:
    for link in sorted(set(links)):
        address, fragment = urldefrag(link)
        if urlparse(address).scheme != "file":
            continue
        target = Path(unquote(urlparse(address).path))
        if not target.is_file():
            yield f"link to a page that is not there: {link}"
        elif fragment and target.suffix == ".html" and unquote(fragment) not in ids(target):
            yield f"link to a place that is not there: {link}"


def faults(browser: Browser, page: Path) -> Iterator[str]:
    browser.set_width(WIDTHS[0])
    browser.open(page.as_uri())
    seen = browser.evaluate(LOOK)
    yield from (f"picture without content: {image}" for image in seen["images"])
    yield from (f"formula not rendered: {formula}" for formula in seen["bad"])
    yield from (f"TeX in the text: {text}" for text in seen["raw"])
    yield from broken_links(seen["links"])
    for width in WIDTHS:
        browser.set_width(width)
        for element in browser.evaluate(TOO_WIDE):
            yield f"at {width} pixels wider than its window: {element}"
    yield from browser.take_errors()


def write_report(folder: Path) -> Path:
    """The page that `diagnose` writes of a short run."""
    import jax
    import jax.numpy as jnp
    from numpyro.infer import MCMC

    import numpyro_scores as ns

    kernel = ns.MALA(potential_fn=lambda x: jnp.sum(x**2) / 2)
    mcmc = MCMC(kernel, num_warmup=100, num_samples=100, num_chains=2, chain_method="vectorized")
    mcmc.run(jax.random.key(0), init_params=jnp.zeros((2, 3)))
    path = folder / "report.html"
    ns.diagnose(mcmc).to_html(path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, nargs="?", default=ROOT / "site")
    parser.add_argument("--report", type=Path, help="a report's page; by default one is made")
    parser.add_argument("--shots", type=Path, help="folder for a screenshot of each page and width")
    parser.add_argument("--only", default="", help="pages whose address has this in it")
    arguments = parser.parse_args()
    program = find_chromium()
    if program is None:
        print("No Chromium on the path or in $CHROMIUM: the pages were not opened.")
        return 0
    site = arguments.site.resolve()
    pages = [page for page in sorted(site.rglob("*.html")) if arguments.only in page.as_posix()]
    if not pages:
        sys.exit(f"There is no page in {site}: `make site` makes them.")
    count = 0
    with tempfile.TemporaryDirectory() as folder, Browser(program) as browser:
        pages.append((arguments.report or write_report(Path(folder))).resolve())
        for page in pages:
            name = page.relative_to(site) if page.is_relative_to(site) else page.name
            for fault in faults(browser, page):
                count += 1
                print(f"{name}: {fault}")
            if arguments.shots:
                arguments.shots.mkdir(parents=True, exist_ok=True)
                for width in WIDTHS:
                    browser.set_width(width, 1400)
                    shot = str(name).replace("/", "_").removesuffix(".html")
                    browser.screenshot(arguments.shots / f"{shot}-{width}.png")
                browser.take_errors()
        browser.open((site / "search.html").as_uri() + "?q=langevin")
        if not browser.evaluate(FOUND):
            count += 1
            print("search.html: finds nothing about langevin")
    print(f"{len(pages)} pages in {program}, {count} faults")
    return int(bool(count))


if __name__ == "__main__":
    sys.exit(main())
