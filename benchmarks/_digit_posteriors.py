# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Blurred digits with a noise scale that the model is not told; a small energy is their prior."""

from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from flax import nnx
from jax import random

import numpyro_scores as ns
from examples.digits_deblurring import blur, measure


def trained_energy(pictures: np.ndarray, num_steps: int) -> ns.DiffusionPrior:
    """Of pictures with mean zero."""
    process = ns.VarianceExploding(sigma_min=0.08, sigma_max=10.0)
    energy = ns.nn.MLPNoiseEnergy(
        pictures.shape[1:],
        rngs=nnx.Rngs(0),
        hidden_features=64,
        num_layers=2,
        sigma_data=float(pictures.std()),
    )
    fitted = ns.fit(
        energy,
        ns.objectives.DualScoreMatching(process),
        pictures,
        key=random.key(0),
        optimizer=optax.adam(optax.cosine_decay_schedule(2e-3, num_steps)),
        num_steps=num_steps,
        batch_size=256,
        progress_bar=False,
    )
    return ns.DiffusionPrior(fitted.module, process, pictures.shape[1:])


def kernel_for(prior: ns.DiffusionPrior, mean: np.ndarray) -> ns.MALA:
    def model(observed, y=None):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.HalfNormal(0.5))
        likelihood = dist.Normal(blur(x + mean), noise).mask(observed).to_event(2)
        numpyro.sample("y", likelihood, obs=y)

    return ns.MALA(model, num_steps=5)


def measurements(pictures: np.ndarray, number: int) -> Any:
    """Observed pixels and values, each picture several times if there are not as many."""
    rng = np.random.default_rng(0)
    problems = [measure(pictures[i % len(pictures)], rng) for i in range(number)]
    return tuple(np.stack([getattr(p, name) for p in problems]) for name in ("observed", "y"))
