# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
A page for each public name, from its docstring; and code that names one becomes a link to it.

The tables in `api/*.md` are written by hand. The page of a name is a child of the first of them
that has it, so that it has its place in the menu.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from public_names import public_names
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

FOLDER = "api/names"
ADDRESS = re.compile(r"(?:numpyro_scores\.)?([A-Za-z_][\w.]*)(?:\(.*\))?", re.DOTALL)
PRINTED = re.compile(
    r"<(?:PjitFunction of <)?(?:function|class|jax.numpy.\w+) '?([\w.]+)'?[^<>]*>+"
)
# Names of functions that are, in a text, most often those of an argument.
ARGUMENTS = {"log_normalizer", "noise_level", "guided", "coverage"}
# What every distribution, kernel or module has from its base class is documented there.
BASES = "Distribution, MCMCKernel, Module, tuple, ABC, Generic, Protocol, object"


def page_text(address: str, value: object) -> str:
    path = address.replace("ns.", "numpyro_scores.", 1)
    title = address.removeprefix("ns.")
    module, _, name = path.rpartition(".")
    lines = [title, "=" * len(title), ""]
    if inspect.isclass(value):
        fields = ", ".join(getattr(value, "_fields", ()))
        lines += [f".. autoclass:: {path}", "   :members:", f"   :inherited-members: {BASES}"]
        lines += [f"   :exclude-members: {fields}"] if fields else []
    elif inspect.isroutine(value):
        lines += [f".. autofunction:: {path}"]
    else:
        lines += [f".. py:data:: {name}", f"   :module: {module}", "", f"   ``{value}``"]
    return "\n".join(lines) + "\n"


def write_pages(app: Sphinx) -> None:
    """Pages that have not changed are left alone, so that they are not read again."""
    folder = Path(app.srcdir, FOLDER)
    folder.mkdir(exist_ok=True)
    pages = {f"{address}.rst": page_text(address, value) for address, value in app.names.items()}
    for path in folder.glob("*.rst"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def children(app: Sphinx) -> dict[str, list[str]]:
    """The addresses that each of the pages `api/*` is the first to name."""
    left = set(app.names)
    found: dict[str, list[str]] = {}
    for path in sorted(Path(app.srcdir, "api").glob("*.md")):
        named = re.findall(r"`(ns\.[\w.]+)`", path.read_text(encoding="utf-8"))
        found[f"api/{path.stem}"] = [name for name in dict.fromkeys(named) if name in left]
        left -= set(named)
    return found


def add_menu(app: Sphinx, docname: str, source: list[str]) -> None:
    if names := app.children.get(docname):
        entries = "\n".join(f"{name.removeprefix('ns.')} <names/{name}>" for name in names)
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


class LinkNames(SphinxPostTransform):
    """`MALA`, `ns.MALA` or `ns.MALA(model)` in a text leads to its page."""

    default_priority = 300

    def run(self, **kwargs) -> None:
        here = self.env.current_document.docname
        for node in list(self.document.findall(nodes.literal)):
            target = self.target(node)
            if target is None or f"{FOLDER}/{target}" == here:
                continue
            link = make_refnode(
                self.app.builder, here, f"{FOLDER}/{target}", None, node.deepcopy(), target
            )
            node.replace_self(link)

    def target(self, node: nodes.Element) -> str | None:
        above = node.parent
        while above is not None:
            if isinstance(above, (nodes.reference, nodes.title)):
                return None
            above = above.parent
        match = ADDRESS.fullmatch(node.astext().strip())
        return self.app.short_names.get(match.group(1)) if match else None


def named(path: str) -> object | None:
    """What is behind a dotted path, imported as far as need be."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            value = getattr(value, part, None)
        return value
    return None


def candidates(node: nodes.Element) -> Iterator[object | None]:
    """What a docstring may mean by a name: seen from anywhere, its module, its class, its bases."""
    target, module, owner = node["reftarget"], node.get("py:module"), node.get("py:class")
    yield named(target)
    yield named(f"{module}.{target}")
    about = named(f"{module}.{owner}")
    for value in inspect.getmro(about) if inspect.isclass(about) else ():
        yield getattr(value, target, None)
        yield named(f"{value.__module__}.{target}")
    # Where a function of a room is defined; private neighbours may be named too.
    for value in vars(sys.modules[module]).values() if module in sys.modules else ():
        if inspect.isroutine(value) or inspect.isclass(value):
            yield getattr(sys.modules.get(value.__module__), target, None)


def resolve(app: Sphinx, env, node: nodes.Element, contnode: nodes.Node) -> nodes.Node | None:
    """
    A name at another address than that of its page leads there. What exists, but has no page (of
    another package, or not public), is code without a link; all else remains an error.
    """
    if node.get("refdomain") != "py":
        return None
    found = next((value for value in candidates(node) if value is not None), None)
    if found is None:
        return None
    for address, value in app.names.items():
        if value is found:
            here = node["refdoc"]
            return make_refnode(app.builder, here, f"{FOLDER}/{address}", None, contnode, address)
    return contnode


def tidy_signature(app, what, name, value, options, arguments, returns):
    """That of `__init__` where a metaclass hides it; defaults that are functions by their names."""
    if arguments is None:  # a property, say
        return None
    if what == "class" and arguments == "(*args, **kwargs)":
        if getattr(value, "_is_protocol", False):
            return "", returns
        signature = inspect.signature(value.__init__)
        plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        arguments = str(signature.replace(parameters=plain[1:], return_annotation=signature.empty))
    return PRINTED.sub(lambda match: match.group(1).rpartition(".")[2], arguments), returns


def collect(app: Sphinx) -> None:
    app.names = public_names()
    app.children = children(app)
    app.short_names = {}
    # A short name that two addresses share is that of the shorter one.
    for address in sorted(app.names, key=lambda address: address.count(".")):
        app.short_names[address] = app.short_names[address.removeprefix("ns.")] = address
        app.short_names.setdefault(address.rpartition(".")[2], address)
    for name in ARGUMENTS:
        del app.short_names[name]
    write_pages(app)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", collect)
    app.connect("source-read", add_menu)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", tidy_signature)
    app.add_post_transform(LinkNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
