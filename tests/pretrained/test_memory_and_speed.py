# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a network of a folder needs of memory, and that its gradients are fast in a loop."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

FOLDER = Path(__file__).resolve().parents[1] / "data" / "diffusers" / "ddpm"
X = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))


def load(**options):
    return ns.load_diffusers(FOLDER, sample_size=32, **options).denoiser


def compiled(function, *args, **options):
    """What comes out, and the bytes of what is computed on the way."""
    program = jax.jit(function).lower(*args).compile(options)
    analysis: Any = program.memory_analysis()
    return program(*args), analysis.temp_size_in_bytes


@pytest.mark.slow
def test_a_gradient_that_computes_levels_anew_is_the_same_in_less_memory():
    """With the option that docs/pretrained.md names; XLA for CPUs undoes it otherwise."""

    def value_and_gradient(denoiser, x):
        return jax.value_and_grad(lambda x: jnp.sum(denoiser(x, 0.7) ** 2))(x)

    kept, bytes_kept = compiled(value_and_gradient, load(), X[0])
    option = {"xla_disable_hlo_passes": "cse_barrier_expander"}
    anew, bytes_anew = compiled(value_and_gradient, load(remat=True), X[0], **option)
    for one, other in zip(kept, anew, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * jnp.abs(one).max())
    assert bytes_anew < 0.9 * bytes_kept  # it has few blocks in a level


@pytest.mark.slow
def test_pictures_in_turns_are_those_at_once_in_less_memory():
    def denoised(denoiser, x, batch_size):
        return jax.lax.map(lambda x: denoiser(x, 0.7), x, batch_size=batch_size)

    at_once, bytes_at_once = compiled(lambda d, x: denoised(d, x, 4), load(), X)
    in_turns, bytes_in_turns = compiled(lambda d, x: denoised(d, x, 1), load(), X)
    np.testing.assert_allclose(in_turns, at_once, rtol=1e-4, atol=1e-5)
    assert bytes_in_turns < 0.6 * bytes_at_once


def test_no_convolution_of_a_gradient_has_its_axes_in_another_order():
    """XLA would compile it to naive code in a loop on a CPU."""

    def loss(denoiser, x):
        return jnp.sum(jax.vmap(denoiser, (0, None))(x, 0.7) ** 2)

    program = jax.jit(jax.grad(loss, (0, 1), allow_int=True)).lower(load(), X).as_text()
    orders = re.findall(r"dim_numbers = (\S.*?->\[.*?\])", program)
    assert len(orders) > 10 and set(orders) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
