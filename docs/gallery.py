# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
Execute the examples and take over their pictures: those whose code has changed since the picture
here was made, or all. What made each picture is kept in `gallery.json`. It knows the scripts, not
the library that they call: after a change there, ask for `--all`.
"""

import argparse
import ast
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
PICTURES = {
    "digits_deblurring.py": "posterior.png",
    "galaxy_scene.py": "galaxy_scene.png",
    "integrator_bias.py": "integrator_bias.png",
    "likelihood_and_samples.py": "likelihood_and_samples.png",
    "mode_collapse.py": "mode_collapse.png",
    "sample_quality.py": "sample_quality.png",
    "rbm_digits.py": "rbm.png",
    "two_moons.py": "two_moons.png",
    "ising_denoising.py": "ising.png",
    "mnist_posteriors.py": "mnist_posteriors.png",
    "mnist_energy_posteriors.py": "mnist_energy_posteriors.png",
    "mnist_unet.py": "mnist.png",
}


def digest(script: Path) -> str:
    """Of its code, without comments and docstrings: words do not change a picture."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        has_body = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if has_body and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def stale(docs: Path, pictures: dict[str, str]) -> list[str]:
    """The scripts whose picture is missing or was made by other code."""
    known = docs / "gallery.json"
    made_by = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    return [
        name
        for name, picture in pictures.items()
        if not (docs / picture).exists()
        or made_by.get(picture) != digest(docs.parent / "examples" / name)
    ]


def execute(docs: Path, name: str, picture: str) -> None:
    """Run a script with its defaults, then keep its picture and note its code."""
    script = docs.parent / "examples" / name
    code = digest(script)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, script, "--output", folder], check=True, cwd=docs.parent)
        with Image.open(Path(folder, picture)) as drawn:
            # A third of the size: what was drawn needs no more colours than a palette has.
            drawn.convert("RGB").quantize(256).save(docs / picture, optimize=True)
    known = docs / "gallery.json"
    made_by = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    known.write_text(json.dumps({**made_by, picture: code}, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="only these")
    parser.add_argument("--all", action="store_true", help="those that have not changed, too")
    parser.add_argument("--list", action="store_true", help="say which would run, and run none")
    arguments = parser.parse_args()
    if unknown := set(arguments.scripts) - set(PICTURES):
        parser.error(f"no example with a picture: {', '.join(sorted(unknown))}")
    chosen = {name: PICTURES[name] for name in arguments.scripts or PICTURES}
    wanted = list(chosen) if arguments.all else stale(DOCS, chosen)
    for name in wanted:
        print(name, flush=True)
        if not arguments.list:
            execute(DOCS, name, chosen[name])
    print(f"{len(wanted)} of {len(chosen)} pictures {'to make' if arguments.list else 'made'}")


if __name__ == "__main__":
    main()
