# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Models and settings that twisted diffusion cannot do are refused in words."""

from functools import partial

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest
from infer.smc.twists import PRIOR, PROCESS, denoise, linear
from jax import random

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


def no_diffusion(y):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(x, 1), obs=y)


def noise_of_the_value(y):
    x = numpyro.sample("x", PRIOR)
    noise = numpyro.sample("noise", dist.LogNormal(x[0], 1.0))
    numpyro.sample("y", dist.Normal(x[1], noise), obs=y)


def prior_with_a_latent_mean(y):
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    denoiser = partial(lambda mean, x, sigma: mean + denoise(x - mean, sigma), mean)
    x = numpyro.sample("x", ns.DiffusionPrior(denoiser, PROCESS, 3))
    numpyro.sample("y", dist.Normal(x[1], 1.0), obs=y)


def half_line(y):
    """The data exclude the mean of the prior."""
    x = numpyro.sample("x", PRIOR)
    numpyro.factor("positive", jnp.where(x[0] > 1, y, -jnp.inf))


def improper(y):
    x = numpyro.sample("x", PRIOR)
    shift = numpyro.sample("shift", dist.ImproperUniform(dist.constraints.real, (), ()))
    numpyro.sample("y", dist.Normal(x[0] + shift, 1.0), obs=y)


def in_other_units(y):
    x = numpyro.sample("x", dist.TransformedDistribution(PRIOR, dist.transforms.ExpTransform()))
    u = numpyro.sample("u", PRIOR)
    numpyro.sample("y", dist.Normal(x[0] + u[0], 1.0), obs=y)


@pytest.mark.parametrize(
    "model, settings, message",
    [
        (in_other_units, {}, r"\['x'\] are of a TransformedDistribution of one"),
        (
            half_line,
            {},
            r"denoised values is zero .* at all 10 particles of the largest .* Tempered",
        ),
        (improper, {}, "cannot be drawn from: use a proper prior, or give TemperedSMC draws"),
        (noise_of_the_value, {}, r"'noise' depends on \['x'\]. AnnealedLangevin"),
        (prior_with_a_latent_mean, {}, r"'x' depends on \['mean'\]. AnnealedLangevin"),
        (no_diffusion, {}, r"the latent sites \['x'\] have none. Use a DiffusionPrior"),
        (linear, {"num_levels": 1}, "num_levels must be from 2 to 999, got 1"),
        (linear, {"churn": 0.0}, "churn must be a finite positive number, got 0.0"),
    ],
)
def test_errors_in_words(model, settings, message):
    with pytest.raises(ValueError, match=message):
        ns.TwistedDiffusionSampler(model, 10, progress_bar=False, **settings).run(
            random.key(0), 0.0
        )
