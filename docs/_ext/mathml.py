# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
Formulas as MathML, which browsers render by themselves, without a script or a network. The font is
STIX Two Math, as the package ziamath brings it: not every machine has one made for formulas.
"""

import html
import re
from importlib.resources import files

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.util import logging

logger = logging.getLogger(__name__)

# What the converter does not know it passes on as text that begins with a backslash.
UNKNOWN = re.compile(r">\\+[A-Za-z]+")

SPACE = '<mspace width="0.17em"/>'

# A function's name and what follows: nothing, brackets or its argument; not the base of an index.
FUNCTION = re.compile(
    r"(?<!<msub>)(?<!<msup>)(?<!<munder>)(?<!<msubsup>)(?<!<munderover>)"
    r"<m([io])>([A-Za-z]{2,})</m\1>(?=(</|<mo stretchy)?)"
)


# Between a factor and a function with its argument.
BEFORE = re.compile(r"(</m(?:i|n|sup|sub|frac)>)(?=<mi>[A-Za-z]{2,}</mi><m(?:space|o stretchy))")


def spaced(name: re.Match[str]) -> str:
    """As TeX sets it, with a thin space before an argument without brackets."""
    space = "" if name[3] else SPACE
    return f"<mi>{name[2]}</mi>{space}"


def render(node: nodes.Node, display: str) -> str:
    latex = node.astext().strip()
    try:
        mathml = convert(latex.replace(r"\arg", r"\operatorname{arg}"), display=display)
    except Exception as error:
        logger.warning("formula %r: %s", latex, error, location=node, type="mathml")
        return f"<code>{html.escape(latex)}</code>"
    if UNKNOWN.search(html.unescape(mathml)):
        logger.warning("formula %r has an unknown command", latex, location=node, type="mathml")
    mathml = BEFORE.sub(rf"\1{SPACE}", FUNCTION.sub(spaced, mathml))
    return mathml.replace("<math ", f'<math alttext="{html.escape(latex)}" ', 1)


def visit_inline(self, node: nodes.Element) -> None:
    self.body.append(f'<span class="math">{render(node, "inline")}</span>')
    raise nodes.SkipNode


def visit_block(self, node: nodes.Element) -> None:
    self.body.append(f'<div class="math">{render(node, "block")}</div>')
    raise nodes.SkipNode


def add_font(app: Sphinx, config: Config) -> None:
    config.html_static_path.append(str(files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf"))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("config-inited", add_font)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
