# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The pictures of the gallery: which are made anew, and that each stands on its page."""

import sys
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parents[1] / "docs"
SCRIPT = '''"""Words."""
import pathlib, sys
from PIL import Image
shade = 100  # a comment
Image.new("RGBA", (2, 2), (shade, 0, 0, 255)).save(pathlib.Path(sys.argv[2], "a.png"))
'''


def gallery(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    sys.modules.pop("gallery", None)
    import gallery

    return gallery


def shade(picture):
    with Image.open(picture) as image:
        return image.convert("RGB").getpixel((0, 0))[0]


def test_a_picture_is_made_anew_when_the_code_of_its_script_changes(tmp_path, monkeypatch):
    make = gallery(monkeypatch)
    docs, script = tmp_path / "docs", tmp_path / "examples" / "a.py"
    docs.mkdir()
    script.parent.mkdir()
    script.write_text(SCRIPT)
    pictures = {"a.py": "a.png"}
    assert make.stale(docs, pictures) == ["a.py"]
    make.execute(docs, "a.py", "a.png")
    assert shade(docs / "a.png") == 100
    assert make.stale(docs, pictures) == []
    script.write_text(SCRIPT.replace("a comment", "another").replace("Words", "Other words"))
    assert make.stale(docs, pictures) == []
    script.write_text(SCRIPT.replace("100", "200"))
    assert make.stale(docs, pictures) == ["a.py"]
    make.execute(docs, "a.py", "a.png")
    assert shade(docs / "a.png") == 200
    (docs / "a.png").unlink()
    assert make.stale(docs, pictures) == ["a.py"]


def test_every_example_with_a_picture_is_in_the_gallery(monkeypatch):
    pictures = gallery(monkeypatch).PICTURES
    page = (DOCS / "examples.md").read_text(encoding="utf-8")
    examples = (DOCS.parent / "examples").glob("*.py")
    drawing = {path.name for path in examples if "savefig" in path.read_text(encoding="utf-8")}
    assert drawing == set(pictures)
    for name, picture in pictures.items():
        assert f"]({picture})" in page and f"`{name}`" in page and (DOCS / picture).exists()


@pytest.mark.slow
def test_weights_that_lie_beside_an_example_are_of_its_network_as_it_is(monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "examples")
    import mnist_energy
    import mnist_unet

    train, _ = mnist_unet.load(0)
    assert not mnist_unet.learned_prior(train).has_energy
    assert mnist_energy.learned_energy_prior(train).has_energy
