# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a family is as a prior: an inverse problem, many times, with points that are known."""

import time
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random

import numpyro_scores as ns
from benchmarks.families.data import Data
from benchmarks.families.learned import Learned

NUM_PARTICLES = 128
MAX_SECONDS = 40  # of CPU, after which no other problem is begun


class Posteriors(NamedTuple):
    """
    - **error** - root mean square error of the posterior mean, over the entries not seen.
    - **coverage** - share of these entries in their 90% intervals.
    - **coverage_error** - its standard error, by the differences between problems.
    - **seconds_a_draw** - of CPU, without compilation and without the draws of the prior.
    - **number** - of problems.
    """

    error: float
    coverage: float
    coverage_error: float
    seconds_a_draw: float
    number: int


def posteriors(learned: Learned, data: Data, pool: Array, key: Array, number: int) -> Posteriors:
    """
    By sequential Monte Carlo from draws of the prior, the same for all families.

    :param pool: twice `NUM_PARTICLES` draws of the prior.
    :param number: of problems, fewer where they take long.
    """
    seen, hidden = np.flatnonzero(data.problem.seen), np.flatnonzero(~data.problem.seen)
    is_latent = isinstance(learned.prior, ns.GeneratorPrior)
    model = latent_model(learned, data, seen) if is_latent else point_model(learned, data, seen)
    smc = ns.TemperedSMC(model, NUM_PARTICLES, num_steps=4, progress_bar=False)
    given = None if is_latent else {"x": pool}
    truths = data.held_out[-number:]
    key_noise, *keys = random.split(key, 1 + number)
    noise = np.asarray(random.normal(key_noise, (number, len(seen))))
    smc.run(keys[0], truths[0, seen], prior_draws=given)  # compiles
    start = time.process_time()
    errors, inside = [], []
    for truth, eps, key in zip(truths, noise, keys, strict=True):
        if time.process_time() - start > MAX_SECONDS:
            break
        y = truth[seen] + data.problem.noise * eps
        smc.run(key, y, prior_draws=given)
        draws = np.asarray(smc.get_samples()["x"])[:, hidden]
        if is_latent:
            # What is not seen has the observation noise of the model besides.
            rng = np.random.default_rng(len(errors))
            draws = draws + learned.noise * rng.standard_normal(draws.shape)
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        inside.append(np.mean((low <= truth[hidden]) & (truth[hidden] <= high)))
        errors.append(np.mean((draws.mean(axis=0) - truth[hidden]) ** 2))
    elapsed = time.process_time() - start
    return Posteriors(
        float(np.sqrt(np.mean(errors))),
        float(np.mean(inside)),
        float(np.std(inside) / np.sqrt(len(inside))),
        elapsed / (len(inside) * NUM_PARTICLES),
        len(inside),
    )


def point_model(learned: Learned, data: Data, seen: np.ndarray):
    def model(y: Array) -> None:
        x = jnp.asarray(numpyro.sample("x", learned.prior))
        numpyro.sample("y", dist.Normal(x[seen], data.problem.noise).to_event(1), obs=y)

    return model


def latent_model(learned: Learned, data: Data, seen: np.ndarray):
    # The observation noise of the decoder is in what is seen, too.
    noise = float(np.hypot(data.problem.noise, learned.noise))

    def model(y: Array) -> None:
        x = jnp.asarray(learned.prior("x"))
        numpyro.sample("y", dist.Normal(x[seen], noise).to_event(1), obs=y)

    return model
