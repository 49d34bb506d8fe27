# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A denoiser of the digits of `examples/digits_deblurring.py`, and how its posteriors are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import random

import numpyro_scores as ns
from examples.digits_deblurring import PROCESS, make_model


def clipped(denoiser, x, sigma):
    """A denoiser of pictures whose pixels are known to lie in [-1, 1]."""
    return jnp.clip(denoiser(x, sigma), -1.0, 1.0)


def train_denoiser(pictures: np.ndarray, num_steps: int, seed: int) -> ns.DiffusionPrior:
    denoiser = ns.nn.MLPDenoiser(
        event_shape=(8, 8),
        rngs=nnx.Rngs(seed),
        hidden_features=128,
        num_layers=3,
        sigma_data=float(pictures.std()),
    )
    fitted = ns.fit(
        denoiser,
        ns.objectives.DenoisingScoreMatching(PROCESS),
        pictures,
        key=random.key(seed),
        optimizer=optax.adamw(optax.cosine_decay_schedule(2e-3, num_steps), weight_decay=0.3),
        num_steps=num_steps,
        ema_decay=0.9995,
    )
    return ns.DiffusionPrior(jax.tree_util.Partial(clipped, fitted.module), PROCESS, (8, 8))


def annealed_kernel(prior: ns.DiffusionPrior) -> ns.AnnealedLangevin:
    # The prior is learned from few pictures: a kernel that follows its score more faithfully than
    # this integrator does, at the smallest noise levels, does worse (docs/limits.md).
    return ns.AnnealedLangevin(make_model(prior), integrator=ns.LeimkuhlerMatthews())
