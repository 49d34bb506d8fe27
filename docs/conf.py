# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""How Sphinx makes the site of the pages in this folder: `make site`."""

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS / "_ext")]

from numpyro_scores import __version__  # noqa: E402

project = "numpyro-scores"
author = "Contributors to the numpyro-scores project"
copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "api_pages",
    "full_pictures",
    "mathml",
    "repository_links",
]
exclude_patterns = ["_build", "_ext", "_static"]
nitpicky = True

# The pages are read on GitHub, too: formulas between dollars, headings as targets of links.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

default_role = "code"
autodoc_default_options = {"member-order": "bysource"}
autodoc_inherit_docstrings = False
autodoc_typehints = "none"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
toc_object_entries = False

html_theme = "furo"
html_title = "numpyro-scores"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_use_index = False
html_show_sphinx = False
# A summary would be fetched, which a browser refuses for pages that are opened from a disk.
html_show_search_summary = False
