# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Tiny networks of diffusers: what they make of pictures, in torch and here (`tests/data`)."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = Path(__file__).resolve().parents[1] / "data" / "diffusers"
LABELS = {"classes": 2, "timestep_class": 7.0, "identity_class": np.linspace(-1, 1, 20)}
CASES = sorted(path.name for path in DATA.iterdir())
# The same network as a pipeline's folder with names of old versions.
SAME = {"old_pipeline": "resnet"}
CHAINS = [name for name in CASES if "ncsnpp" not in name and name not in SAME]


def slow_but(quick, names):
    """Each compiles programs of its own: the others are for `make test-slow`."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


def expected(name):
    with np.load(DATA / SAME.get(name, name) / "expected.npz") as file:
        return dict(file)


def network_of(model):
    network = model.denoiser.network
    return getattr(network, "network", network)  # the half of it that is no variance


def worst(found, reference):
    """The largest difference, relative to the largest value."""
    return np.abs(np.asarray(found, float) - reference).max() / np.abs(reference).max()


@jax.jit
def output_and_gradient(network, x, t, c):
    def one(x, t, c):
        out, pullback = jax.vjp(lambda x: network(x, t), x)
        return out, pullback(c)[0]

    return jax.vmap(one)(x, t, c)


@pytest.mark.parametrize("name", slow_but({"ddpm"}, CASES))
def test_output_and_gradient_are_those_of_torch(x64, name):
    network = network_of(ns.load_diffusers(DATA / name, label=LABELS.get(name)))
    reference = expected(name)
    for dtype, digits, bound in (("float64", "64", 1e-12), ("float32", "32", 1e-5)):
        x, t, c = (jnp.asarray(reference[key], dtype) for key in ("x", "t", "c"))
        out, grad = output_and_gradient(network, x, t, c)
        assert out.dtype == dtype
        assert worst(out, reference[f"out{digits}"]) < bound
        assert worst(grad, reference[f"grad{digits}"]) < bound


@pytest.mark.parametrize("name", slow_but({"classes"}, CHAINS))
def test_denoised_pictures_and_levels_are_those_of_the_scheduler(x64, name):
    """At its steps; `resnet` predicts the picture, `classes` and `scale_shift` the velocity."""
    model = ns.load_diffusers(DATA / name, label=LABELS.get(name))
    reference = expected(name)
    alphas, every = reference["alphas_cumprod"].astype(float), 20
    if name in ("heads", "timestep_class"):
        every = 1
    steps = np.arange(len(alphas)) * every
    last = {"heads": 49, "timestep_class": 4, "classes": 998}.get(name, 999)
    levels = model.process.noise_level(np.minimum(steps, last) / last)
    # diffusers multiplies in float32: where it has lost alpha or 1 - alpha, there are fewer digits.
    known = 1e-6 / np.minimum(alphas, 1 - alphas)
    np.testing.assert_array_less(np.abs(np.log(levels**2 * alphas / (1 - alphas))), known + 1e-4)

    denoise = jax.jit(jax.vmap(model.denoiser))
    sigma = model.process.noise_level(reference["k"] / last)
    x = jnp.asarray(reference["x"]) * jnp.sqrt(1 + sigma**2)[:, None, None, None]
    clean = denoise(x, sigma)
    for found, wanted in zip(clean, reference["clean"], strict=True):
        assert worst(found, wanted) < 2e-3


def test_a_score_of_a_noise_level_is_a_denoiser_and_bfloat16_is_near_it():
    folder, reference = DATA / "ncsnpp_attention", expected("ncsnpp_attention")
    model = ns.load_diffusers(folder)
    x = jnp.asarray(reference["x"][1])
    evaluate = jax.jit(lambda function, x: function(x, 1.7))
    score = evaluate(model.denoiser.network, x)
    assert worst(evaluate(model.denoiser, x), np.asarray(x + 1.7**2 * score)) < 1e-5
    assert worst(score, reference["out32"][1]) < 1e-5
    assert model.process == ns.VarianceExploding(0.02, 50.0)
    assert model.data_range == (0.0, 1.0)
    assert model.event_shape == (4, 4, 3)

    half = ns.load_diffusers(folder, dtype=jnp.bfloat16)
    half = evaluate(half.denoiser.network, x)
    assert half.dtype == jnp.float32
    assert 1e-4 < worst(half, np.asarray(score)) < 0.05


@pytest.mark.slow
def test_a_folder_is_a_prior():
    model = ns.load_diffusers(DATA / "ddpm")
    assert model.process == ns.DDPM()
    assert model.data_range == (-1.0, 1.0)
    prior = ns.DiffusionPrior(model.denoiser, model.process, model.event_shape)
    x = prior.sample(jax.random.key(0), (2,), sampler=ns.Multistep(num_steps=4))
    assert x.shape == (2, 8, 8, 3)
    assert jnp.isfinite(x).all()


@pytest.mark.slow
def test_the_page_runs_with_a_tiny_folder():
    page = (DATA.parents[2] / "docs" / "pretrained.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```py\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for long, short in (
        ('"ddpm-celebahq-256"', repr(str(DATA / "resnet"))),
        ("AnnealedLangevin(observed)", "AnnealedLangevin(observed, num_levels=3, num_steps=1)"),
    ):
        assert long in block
        block = block.replace(long, short)
    space = {}
    exec(block, space)
    draws = space["mcmc"].get_samples()
    assert draws["x"].shape == (4, 4, 4, 3)
    assert jnp.isfinite(draws["x"]).all()
