# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Check the pages: every link between them resolves, and `api/` names all that is public."""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

from public_names import public_names

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
API = DOCS / "api"

FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: +\"[^\"]*\")?\)|^\[[^\]]+\]: *(\S+)", re.MULTILINE)
ADDRESS = re.compile(r"[a-z][a-z+.-]*:", re.IGNORECASE)


def anchors(page: Path) -> set[str]:
    """The headings of a page, as GitHub turns them into fragments of an address."""
    found: dict[str, int] = {}
    for heading in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        repeats = found[slug] = found.get(slug, -1) + 1
        if repeats:
            found[f"{slug}-{repeats}"] = 0
    return set(found)


def broken_links(page: Path) -> Iterator[str]:
    text = INLINE_CODE.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))
    for inline, reference in LINK.findall(text):
        target = inline or reference
        if ADDRESS.match(target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / unquote(path)).resolve() if path else page
        if not file.exists():
            yield f"{page.relative_to(ROOT)}: no such file: {target}"
        elif fragment and file.suffix == ".md" and fragment not in anchors(file):
            yield f"{page.relative_to(ROOT)}: no such heading: {target}"


def unnamed(names: Iterable[str]) -> Iterator[str]:
    """Public names that no table of `api/` has in code, such as `ns.MALA`."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in API.glob("*.md"))
    named = set(re.findall(r"`(ns\.[\w.]+)`", text))
    for name in names:
        if name not in named:
            yield f"{API.relative_to(ROOT)}/: no page mentions `{name}`"


def main() -> int:
    pages = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
    names = public_names()
    faults = [fault for page in pages for fault in broken_links(page)] + list(unnamed(names))
    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"{len(pages)} pages, {len(names)} names, {len(faults)} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
