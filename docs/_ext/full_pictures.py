# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""A picture as wide as its page leads to itself in full size."""

from docutils import nodes
from sphinx.application import Sphinx


def widen(app: Sphinx, doctree: nodes.document) -> None:
    """Sphinx links a picture of a given width to its file, unless it leads elsewhere."""
    for image in doctree.findall(nodes.image):
        if not isinstance(image.parent, nodes.reference):
            image["width"] = "100%"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", widen)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
