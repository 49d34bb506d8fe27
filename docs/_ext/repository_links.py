# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""Links to Markdown files above the folder of the pages lead to the pages that include them."""

import re

from sphinx.application import Sphinx

INCLUDED = {
    "README.md": "getting_started.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(rf"\]\(((?:\.\./)*)\.\./({'|'.join(map(re.escape, INCLUDED))})(?=[#)])")


def redirect(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = LINK.sub(lambda link: f"]({link[1]}{INCLUDED[link[2]]}", source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", redirect)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
