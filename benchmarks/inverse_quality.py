# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Posterior samplers against exact posteriors: pictures of 8 x 8 pixels of which half are missing,
under a smooth Gaussian prior; and a prior with three modes, two of which fit the data.

Printed are, over all entries, the root mean square error of the posterior mean in posterior
standard deviations, the mean ratio of standard deviations, the mass that the exact posterior has in
the 90% intervals of the draws; the total variation of the weights of the modes; and the log
evidence with its standard error beside the exact one.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from jax.scipy.stats import norm

import numpyro_scores as ns

SIDE, NOISE = 8, 0.2
PROCESS = ns.VarianceExploding(sigma_min=0.02, sigma_max=100.0)
MODES = jnp.array([[4.0, 4.0], [4.0, -4.0], [-4.0, 0.0]]).repeat(4, axis=1)
WEIGHTS = jnp.array([0.5, 0.3, 0.2])


def smooth_covariance() -> np.ndarray:
    places = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), axis=-1).reshape(-1, 2)
    squared = ((places[:, None] - places) ** 2).sum(axis=-1)
    return np.exp(-squared / 8.0) + 0.01 * np.eye(SIDE**2)


COVARIANCE = smooth_covariance()
VALUES, VECTORS = (jnp.asarray(a, jnp.float32) for a in np.linalg.eigh(COVARIANCE))


def denoise_picture(x, sigma):
    return VECTORS @ (VALUES / (VALUES + sigma**2) * (VECTORS.T @ x))


def denoise_modes(x, sigma):
    variance = 1 + sigma**2
    logits = jnp.log(WEIGHTS) + (MODES @ x - jnp.sum(MODES**2, axis=1) / 2) / variance
    mean = jax.nn.softmax(logits) @ MODES
    return mean + (x - mean) / variance


PICTURE = ns.DiffusionPrior(denoise_picture, PROCESS, SIDE**2)
THREE = ns.DiffusionPrior(denoise_modes, PROCESS, 8)


def picture(observed, y):
    x = numpyro.sample("x", PICTURE)
    numpyro.sample("y", dist.Normal(x[observed], NOISE).to_event(1), obs=y)


def three_modes(y):
    x = numpyro.sample("x", THREE)
    numpyro.sample("y", dist.Normal(jnp.mean(x[:4]), 0.3), obs=y)


def on_pictures(sampler, seeds):
    rows = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        observed = np.sort(rng.permutation(SIDE**2)[: SIDE**2 // 2])
        truth = np.linalg.cholesky(COVARIANCE) @ rng.normal(size=SIDE**2)
        y = truth[observed] + NOISE * rng.normal(size=len(observed))
        marginal = COVARIANCE[np.ix_(observed, observed)] + NOISE**2 * np.eye(len(observed))
        gain = np.linalg.solve(marginal, COVARIANCE[observed]).T
        mean = gain @ y
        sd = np.sqrt(np.diag(COVARIANCE - gain @ COVARIANCE[observed]))
        evidence = dist.MultivariateNormal(np.zeros(len(y)), marginal).log_prob(y)
        sampler.run(random.key(seed), jnp.asarray(observed), jnp.asarray(y, jnp.float32))
        x = np.asarray(sampler.get_samples()["x"])
        low, high = np.quantile(x, [0.05, 0.95], axis=0)
        mass = norm.cdf(high, mean, sd) - norm.cdf(low, mean, sd)
        error = np.sqrt(np.mean(((x.mean(axis=0) - mean) / sd) ** 2))
        z = (sampler.log_evidence - evidence) / sampler.log_evidence_error
        rows.append((error, np.mean(x.std(axis=0) / sd), mass.mean(), z, sampler.num_grad_evals))
    error, ratio, coverage, z, cost = np.mean(rows, axis=0)
    print(
        f"  half of the pixels: error of the mean {error:.3f} sd, ratio of sds {ratio:.3f}, "
        f"coverage {coverage:.3f}, log evidence off by {z:.1f} errors, {cost:.0f} evaluations"
    )


def on_modes(sampler, seeds, y=0.9):
    means = jnp.mean(MODES[:, :4], axis=1)
    logits = jnp.log(WEIGHTS) + dist.Normal(means, np.sqrt(1 / 4 + 0.3**2)).log_prob(y)
    exact, evidence = jax.nn.softmax(logits), jax.nn.logsumexp(logits)
    rows = []
    for seed in seeds:
        sampler.run(random.key(seed), jnp.asarray(y))
        x = sampler.get_samples()["x"]
        nearest = jnp.argmax(x @ MODES.T - jnp.sum(MODES**2, axis=1) / 2, axis=1)
        share = jnp.bincount(nearest, length=3) / len(x)
        z = (sampler.log_evidence - evidence) / sampler.log_evidence_error
        rows.append((jnp.sum(jnp.abs(share - exact)) / 2, z, sampler.num_grad_evals))
    variation, z, cost = np.mean(np.asarray(rows), axis=0)
    print(
        f"  three modes: total variation of their weights {variation:.3f}, log evidence off by "
        f"{z:.1f} errors, {cost:.0f} evaluations"
    )


SAMPLERS = {
    "TemperedSMC": partial(ns.TemperedSMC, num_prior_draws=20_000),
    "TwistedDiffusionSampler": ns.TwistedDiffusionSampler,
}


def main() -> None:
    for name, sampler in SAMPLERS.items():
        print(name)
        on_pictures(sampler(picture, progress_bar=False, batch_size=2_000), range(5))
        on_modes(sampler(three_modes, progress_bar=False, batch_size=2_000), range(5))


if __name__ == "__main__":
    main()
