# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How often 90% intervals of exact samplers hold the truth under an energy that was learned from
digits, for digits drawn from that energy: blurred, a quarter of the pixels missing, with noise of
0.1 or with a noise scale drawn from HalfNormal(0.3) that is inferred.

The truths are draws of the prior by the probability flow, after steps of MALA at the smallest noise
level, so that they are of the energy itself. A part of :mod:`benchmarks.noise_energy`.
"""

import time
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import MCMC
from scipy import stats

import numpyro_scores as ns
from examples.digits_deblurring import blur

NOISE, NOISE_SCALE = 0.1, 0.3
NUM_MISSING = 16
NUM_SETTLING = 1_000
UNCERTAIN = 0.1  # least posterior standard deviation of such a pixel


def settled(prior: ns.DiffusionPrior, num: int, key: Array) -> np.ndarray:
    """Draws of the energy at the smallest noise level, one of each of as many chains."""
    key_start, key_chains = random.split(key)
    mcmc = MCMC(
        ns.MALA(lambda: numpyro.sample("x", prior), num_steps=10),
        num_warmup=NUM_SETTLING // 10,
        num_samples=1,
        num_chains=num,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key_chains, init_params={"x": prior.sample(key_start, (num,))})
    return np.asarray(mcmc.get_samples()["x"])


def model_of(prior: ns.DiffusionPrior, centre: np.ndarray, knows_noise: bool) -> Callable:
    """Of a measurement of the pixels `observed`, integers."""

    def model(observed: Array, y: Array | None = None) -> None:
        x = numpyro.sample("x", prior)
        noise: Any = NOISE
        if not knows_noise:
            noise = numpyro.sample("noise", dist.HalfNormal(NOISE_SCALE))
        seen = blur(x + centre).ravel()[observed]
        numpyro.sample("y", dist.Normal(seen, noise).to_event(1), obs=y)

    return model


def report(name: str, ranks: np.ndarray, sds: np.ndarray, of_noise: list[float], cost: str) -> None:
    """
    :param ranks: share of the draws below each pixel of each truth, shape `(num, d)`.
    :param sds: posterior standard deviations, likewise.
    """
    inside = (ranks > 0.05) & (ranks < 0.95)
    share = inside.mean(axis=1)
    error = share.std() / np.sqrt(len(share))
    uncertain = sds > UNCERTAIN
    text = (
        f"  {name}: 90% intervals hold {share.mean():.1%} +- {error:.1%} of the pixels, "
        f"{inside[uncertain].mean():.1%} of the {uncertain.mean():.0%} that are uncertain"
    )
    if of_noise:
        noise = np.asarray(of_noise)
        held = np.mean((noise > 0.05) & (noise < 0.95))
        error = np.sqrt(held * (1 - held) / len(noise))
        p = stats.kstest(noise, "uniform").pvalue
        text += (
            f"; of the noise scale {held:.0%} +- {error:.0%}, its ranks {noise.mean():.2f} on "
            f"average, uniform with p = {p:.2f}"
        )
    print(f"{text}; {cost}", flush=True)


def coverage(
    prior: ns.DiffusionPrior, centre: np.ndarray, num: int, seed: int, num_particles: int = 500
) -> None:
    """Of `num` pictures, with known and with unknown noise, by two samplers."""
    truths = settled(prior, num, random.key(seed))
    for knows_noise in (True, False):
        model = model_of(prior, centre, knows_noise)
        samplers = {
            "NoiseLevelSMC": ns.NoiseLevelSMC(model, num_particles, progress_bar=False),
            "TemperedSMC": ns.TemperedSMC(model, num_particles, progress_bar=False),
        }
        print(f"digits of the prior, noise {'known' if knows_noise else 'unknown'}:")
        for name, sampler in samplers.items():
            rng = np.random.default_rng(seed)
            ranks, sds, of_noise, evals = [], [], [], []
            start = time.process_time()
            for i, truth in enumerate(truths):
                noise = NOISE if knows_noise else abs(rng.normal(scale=NOISE_SCALE))
                observed = np.sort(rng.permutation(truth.size)[NUM_MISSING:])
                y = np.asarray(blur(truth + centre)).ravel()[observed]
                y = y + noise * rng.normal(size=y.shape)
                sampler.run(random.key(i), jnp.asarray(observed), jnp.asarray(y, jnp.float32))
                draws = sampler.get_samples()
                x = np.asarray(draws["x"])
                ranks.append(np.mean(x < truth, axis=0).ravel())
                sds.append(x.std(axis=0).ravel())
                evals.append(sampler.num_grad_evals)
                if not knows_noise:
                    of_noise.append(float(np.mean(np.asarray(draws["noise"]) < noise)))
            seconds = (time.process_time() - start) / num
            cost = f"{np.mean(evals):.0f} evaluations a draw, {seconds:.1f} s of CPU a posterior"
            report(name, np.array(ranks), np.array(sds), of_noise, cost)
