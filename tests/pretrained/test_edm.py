# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Tiny networks of the authors of EDM: what their code makes of pictures, and ours."""

import functools
import json
import math
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data.edm_weights import CLASS, weight_of
from safetensors.numpy import save_file

import numpyro_scores as ns
from numpyro_scores.pretrained.edm.loading import CONVERSION

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = Path(__file__).resolve().parents[1] / "data" / "edm"
CASES = sorted(path.name for path in DATA.iterdir())
LABELS = {"adm": CLASS, "skips": CLASS}
# Each compiles programs of its own: the others are for `make test-slow`.
QUICK = {"ddpmpp"}
EACH = [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in CASES]


def expected(name):
    with np.load(DATA / name / "expected.npz") as file:
        return dict(file)


def worst(found, reference):
    """The largest difference, relative to the largest value."""
    return np.abs(np.asarray(found, float) - reference).max() / np.abs(reference).max()


@pytest.fixture
def folder_of(tmp_path):
    """A folder as the recipe of the page leaves it."""

    def make(name, **changed):
        config = json.loads((DATA / name / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps(config | changed))
        shapes = json.loads((DATA / name / "shapes.json").read_text())
        weights = {
            key: np.array(value, np.float32)
            if key.endswith("resample_filter") or key == "u"
            else weight_of(key, value)
            for key, value in shapes.items()
        }
        save_file(weights, tmp_path / "model.safetensors")
        return tmp_path

    return make


def network_of(model):
    network = model.denoiser.network
    return getattr(network, "network", network)  # the half of it that is no variance


@functools.partial(jax.jit, static_argnames="remat")
def output_and_gradient(network, x, t, c, remat=False):
    def one(x, t, c):
        out, pullback = jax.vjp(lambda x: network(x, t), x)
        return out, pullback(c)[0]

    return jax.vmap(one)(x, t, c)


@pytest.mark.parametrize("name", EACH)
def test_output_and_gradient_are_those_of_the_authors(x64, folder_of, name):
    model = ns.load_edm(folder_of(name), label=LABELS.get(name))
    reference = expected(name)
    for dtype, digits, bound in (("float64", "64", 1e-12), ("float32", "32", 1e-5)):
        x, t, c = (jnp.asarray(reference[key], dtype) for key in ("x", "t", "c"))
        out, grad = output_and_gradient(network_of(model), x, t, c)
        assert out.dtype == dtype
        assert worst(out, reference[f"out{digits}"]) < bound
        assert worst(grad, reference[f"grad{digits}"]) < bound
    # The wrapper computes in float32.
    clean = jax.jit(jax.vmap(model.denoiser))(reference["noisy"], reference["sigma"])
    for found, wanted in zip(clean, reference["clean"], strict=True):
        assert worst(found, wanted) < 2e-5


@pytest.mark.slow
def test_without_a_class_where_classes_were_left_out_in_training(folder_of):
    model, reference = ns.load_edm(folder_of("adm")), expected("adm")
    clean = jax.jit(jax.vmap(model.denoiser))(reference["noisy"], reference["sigma"])
    assert worst(clean, reference["clean_without_class"]) < 1e-5
    assert worst(clean, reference["clean"]) > 0.01


def test_processes(folder_of):
    """Of configurations alone, without a network of much size."""
    edm = ns.load_edm(folder_of("ddpmpp"))
    assert edm.process == ns.VarianceExploding(0.002, 80.0)
    assert edm.event_shape == (8, 8, 3)
    assert edm.data_range == (-1.0, 1.0)
    narrow = ns.load_edm(folder_of("ddpmpp", sigma_min=0.01, sigma_max=50))
    assert narrow.process == ns.VarianceExploding(0.01, 50.0)
    assert ns.load_edm(folder_of("skips"), label=0).process == ns.VarianceExploding(0.02, 100.0)
    preserving = ns.load_edm(folder_of("residual_without_fir"))
    assert preserving.process == ns.VariancePreserving(0.1, 15.1, 1e-5)
    improved = ns.load_edm(folder_of("adm_iddpm"))
    u = np.array(json.loads((DATA / "adm_iddpm" / "shapes.json").read_text())["u"])
    np.testing.assert_allclose(improved.process.log_levels, np.log(u[-2::-1]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpmpp", "adm"])
def test_bfloat16_and_rematerialisation(folder_of, name):
    folder, reference = folder_of(name), expected(name)
    plain, half, remat = (
        output_and_gradient(
            ns.load_edm(folder, label=LABELS.get(name), **options).denoiser.network,
            *(reference[key][:1] for key in ("x", "t", "c")),
        )
        for options in ({}, {"dtype": jnp.bfloat16}, {"remat": True})
    )
    for one, other in zip(plain, remat, strict=True):
        assert worst(other, np.asarray(one)) < 1e-5
    for one, other in zip(plain, half, strict=True):
        assert other.dtype == jnp.float32
        assert 1e-4 < worst(other, np.asarray(one)) < 0.1


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"_class_name": "UNet2DModel"}, "read by load_diffusers"),
        ({"_class_name": "EDM2Precond"}, "class 'EDM2Precond'"),
        ({"model_type": "UNet"}, "model_type = 'UNet'"),
        ({"attention_legacy": 1}, "attention_legacy.*load_edm does not handle"),
        ({"encoder_type": "residual"}, "aux_residual.weight of shape .* is missing"),
        ({"embedding_type": "learned"}, "embedding_type = 'learned'"),
        ({"resample_filter": [1, 2, 1]}, "resample_filter = \\(1, 2, 1\\)"),
        ({"resample_filter": [1, 3, 3, 1]}, "resample_filter has shape"),
        ({"img_resolution": 9}, "multiple of 2"),
        ({"img_resolution": 8.5}, "positive whole number"),
        ({"attn_resolutions": 4}, "attn_resolutions must be a list of positive whole numbers"),
        ({"sigma_data": "half"}, "sigma_data must be a positive number"),
        ({"num_blocks": 2}, "model.enc.8x8_block1.norm0.weight"),
        ({"model_channels": 16}, "norm0.weight has shape \\(8,\\)"),
        ({"label_dim": 3}, "wants to know a class: load_edm"),
    ],
)
def test_configurations_that_are_refused(folder_of, fields, message):
    with pytest.raises(ValueError, match=message):
        ns.load_edm(folder_of("ddpmpp", **fields))


def test_files_that_are_refused(folder_of, tmp_path):
    folder = folder_of("ddpmpp")
    with pytest.raises(ValueError, match="takes no class"):
        ns.load_edm(folder, label=1)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="truncated, damaged or something else"):
        ns.load_edm(folder)
    shutil.move(weights, folder / "network.pkl")
    for path in (folder, folder / "network.pkl"):
        with pytest.raises(FileNotFoundError, match=r"network.pkl, a pickle(.|\n)*init_kwargs"):
            ns.load_edm(path)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        ns.load_edm(folder / "nowhere")


def test_the_recipe_is_on_the_page():
    page = (DATA.parents[2] / "docs" / "pretrained.md").read_text(encoding="utf-8")
    assert CONVERSION in page


def test_levels_of_improved_ddpm_are_those_of_its_cosine(x64):
    """With nothing cut off, u^2 = 1 / alpha_bar - 1 up to the last step's own signal."""
    from numpyro_scores.pretrained.edm.loading import improved_ddpm_levels

    u = improved_ddpm_levels(50, 1e-30, 0.008)[:-1]  # the last has no signal
    alpha_bar = np.sin(math.pi / 2 * np.arange(1, 51) / (50 * 1.008)) ** 2
    exact = np.sqrt(alpha_bar[-1] / alpha_bar - 1)[::-1][1:]
    np.testing.assert_allclose(u, exact, rtol=1e-9)
