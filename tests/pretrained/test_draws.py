# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Draws of one exact denoiser on the same levels: by schedulers of diffusers, and ours."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_scores as ns
from numpyro_scores.samplers import TimeSpacing

CHAIN = ns.DDPM()
EQUAL = TimeSpacing()
MEANS, WIDTHS = jnp.array([[1.0, 0.5], [-1.0, 0.0]]), jnp.array([0.3, 0.1])


def denoise(x, sigma):
    variance = WIDTHS**2 + sigma**2
    odds = jax.nn.softmax(-((x - MEANS) ** 2).sum(-1) / (2 * variance) - jnp.log(variance))
    return odds @ (MEANS + (WIDTHS**2 / variance)[:, None] * (x - MEANS))


@pytest.fixture(scope="module")
def draws():
    with np.load(Path(__file__).resolve().parents[1] / "data" / "draws.npz") as file:
        return dict(file)


def ours(sampler, draws, first):
    """Nine steps of a sampler from a step of the chain to its first, with the noise of the file."""
    process = CHAIN
    sigma_from = process.noise_level(first / 999)
    levels = EQUAL(process, process.sigma_min, 10, sigma_from)
    x = jnp.asarray(draws["start"]) * sigma_from
    if isinstance(sampler, ns.Multistep):
        key = jax.random.key(0)
        draw = lambda x: sampler(  # noqa: E731
            denoise, process, x, process.sigma_min, key=key, sigma_from=sigma_from
        )
        return jax.vmap(draw)(x)
    for i, z in enumerate(jnp.asarray(draws["noise"])):
        x = jax.vmap(lambda x, z, i=i: sampler.step(denoise, x, levels[i], levels[i + 1], z[None]))(
            x, z
        )
    return x


@pytest.mark.parametrize(
    "name, sampler, first",
    [
        ("DDIM", ns.DDIM(9), 900),
        ("DDIM_half", ns.DDIM(9, eta=0.5), 900),
        ("DDPM", ns.Ancestral(9), 900),
        ("Euler", ns.DDIM(9), 999),
        ("EulerAncestral", ns.Ancestral(9), 999),
        ("Heun", ns.Heun(9), 999),
        ("DPM1", ns.Multistep(9, EQUAL, order=1), 999),
        ("DPM2", ns.Multistep(9, EQUAL, order=2), 999),
    ],
)
def test_the_same_method_draws_the_same(x64, draws, name, sampler, first):
    np.testing.assert_allclose(ours(sampler, draws, first), draws[name], rtol=0, atol=1e-5)


def test_other_methods_do_not(x64, draws):
    """2M of midpoints, and 3M, whose term of second order is half of that of the polynomial."""
    second = ours(ns.Multistep(9, EQUAL, order=2), draws, 999)
    assert np.abs(second - draws["DPM2_midpoint"]).max() > 1e-3
    third = ours(ns.Multistep(9, EQUAL, order=3), draws, 999)
    assert np.abs(third - draws["DPM3"]).max() > 1e-3
