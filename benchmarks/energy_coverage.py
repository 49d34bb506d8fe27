# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
How often 90% intervals hold the truth under the energy that `examples/digits_deblurring.py` learns
from digits: blurred digits, a quarter of the pixels missing, with noise of 0.1 (`known`) or with a
noise scale drawn from HalfNormal(0.3) that is inferred (`unknown`); or all pixels with noise of
0.03 (`sharp`).

The truths are draws of the energy itself, `levels`: particles of `level_normalizers`, which go down
its noise levels by its values, others for another seed. Or `flow`: draws by its scores, with steps
of MALA at the smallest noise level; `held-out`: digits that it never saw; `grainy`: these with the
noise of the prior's smallest level, 0.08, as the pictures are that it has learned. If a truth is a
draw of the energy, the rank of its energy among those of the posterior is uniform, as that of each
pixel is.

Each posterior becomes a line of a file of `.cache/digit_energy`: a run that was cut goes on.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import MCMC
from scipy import stats

import numpyro_scores as ns
from benchmarks._digit_energy import FOLDER, digit_normalizers, digit_prior
from benchmarks._rows import Rows
from examples.digits_deblurring import PROCESS, blur, load_pictures

NOISE_SCALE = 0.3
NUM_SETTLING, NUM_DRAWS = 1_000, 500
NUM_CORRECTIONS = 50  # steps of MALA after each anneal
UNCERTAIN = 0.1  # least posterior standard deviation of such a pixel


class Setting(NamedTuple):
    """The standard deviation of the noise, None if it is inferred, and how many pixels are seen."""

    noise: float | None
    num_seen: int


SETTINGS = {"known": Setting(0.1, 48), "unknown": Setting(None, 48), "sharp": Setting(0.03, 64)}


# The truths.


def of_levels(prior: ns.DiffusionPrior, num: int, seed: int) -> np.ndarray:
    found = digit_normalizers(prior.process.sigma_min, seed)
    particles = found.particles.reshape(-1, *prior.event_shape)
    if num > len(particles):
        raise ValueError(f"there are {len(particles)} particles, {num} were wanted")
    return np.asarray(random.permutation(random.key(seed), jnp.asarray(particles)))[:num]


def settled(prior: ns.DiffusionPrior, start: Array | np.ndarray, key: Array) -> np.ndarray:
    """Where chains of MALA at the smallest noise level end, one from each point."""
    mcmc = MCMC(
        ns.MALA(lambda: numpyro.sample("x", prior), num_steps=10),
        num_warmup=NUM_SETTLING // 10,
        num_samples=1,
        num_chains=len(start),
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, init_params={"x": jnp.asarray(start)})
    return np.asarray(mcmc.get_samples()["x"])


def of_flow(prior: ns.DiffusionPrior, num: int, seed: int) -> np.ndarray:
    key_start, key_chains = random.split(random.key(seed))
    return settled(prior, prior.sample(key_start, (num,)), key_chains)


def held_out(prior: ns.DiffusionPrior, num: int, seed: int, has_noise: bool = False) -> np.ndarray:
    pictures = load_pictures(0)[1][:num]
    level = prior.process.sigma_min if has_noise else 0.0
    return pictures + level * np.asarray(random.normal(random.key(seed), pictures.shape))


TRUTHS: dict[str, Callable] = {
    "levels": of_levels,
    "flow": of_flow,
    "held-out": held_out,
    "grainy": partial(held_out, has_noise=True),
}


# The samplers.


def particles(sampler: Any, prior_evals: float = 0.0) -> Callable:
    """
    A function of a key and data, one program for all data: the draws, evaluations a draw, and the
    smallest effective sample size.

    :param prior_evals: evaluations for draws of the prior that the sampler does not count.
    """

    @jax.jit
    def posterior(key: Array, observed: Array, y: Array) -> tuple[dict, Array, Array]:
        sampler.run(key, observed, y)
        evals, ess = sampler.rounds.num_grad_evals, sampler.rounds.ess
        smallest = jnp.min(jnp.where(evals > 0, ess, jnp.inf))
        return sampler.get_samples(), jnp.sum(evals) + prior_evals, smallest

    return posterior


def anneals(model: Callable, num_draws: int, num_corrections: int = 0) -> Callable:
    """Likewise, of independent draws."""
    mcmc = MCMC(
        ns.AnnealedLangevin(model, num_corrections=num_corrections),
        num_warmup=0,
        num_samples=1,
        num_chains=num_draws,
        chain_method="vectorized",
        progress_bar=False,
    )

    @jax.jit
    def posterior(key: Array, observed: Array, y: Array) -> tuple[dict, Array, Array]:
        mcmc.run(key, observed, y, extra_fields=("num_grad_evals",))
        evals = jnp.mean(mcmc.get_extra_fields()["num_grad_evals"])
        return mcmc.get_samples(), evals, jnp.asarray(num_draws)

    return posterior


# Of a model and a number of draws. TemperedSMC starts from twice as many draws of the prior.
SAMPLERS: dict[str, Callable] = {
    "NoiseLevelSMC": lambda model, num: particles(
        ns.NoiseLevelSMC(model, num, num_levels=50, progress_bar=False)
    ),
    "TemperedSMC": lambda model, num: particles(
        ns.TemperedSMC(model, num, progress_bar=False), prior_evals=2 * 40
    ),
    "TwistedDiffusionSampler": lambda model, num: particles(
        ns.TwistedDiffusionSampler(model, num, progress_bar=False)
    ),
    "AnnealedLangevin": anneals,
    "AnnealedLangevin-corrected": partial(anneals, num_corrections=NUM_CORRECTIONS),
}


def model_of(prior: ns.DiffusionPrior, known: float | None) -> Callable:
    """Of a measurement of the pixels `observed`, integers."""

    def model(observed: Array, y: Array | None = None) -> None:
        x = numpyro.sample("x", prior)
        noise: Any = known
        if noise is None:
            noise = numpyro.sample("noise", dist.HalfNormal(NOISE_SCALE))
        seen = blur(x).ravel()[observed]
        numpyro.sample("y", dist.Normal(seen, noise).to_event(1), obs=y)

    return model


class Data(NamedTuple):
    """A truth, its noise scale, the pixels that are seen and their values."""

    x: np.ndarray
    noise: float
    observed: np.ndarray
    y: np.ndarray


def measured(setting: Setting, truths: np.ndarray, seed: int) -> Iterator[Data]:
    rng = np.random.default_rng(seed)
    for x in truths:
        noise = abs(rng.normal(scale=NOISE_SCALE))
        noise = noise if setting.noise is None else setting.noise
        observed = np.sort(rng.permutation(x.size)[: setting.num_seen])
        y = np.asarray(blur(x)).ravel()[observed]
        yield Data(x, noise, observed, (y + noise * rng.normal(size=y.shape)).astype(np.float32))


def row(posterior: Callable, energy: Callable, data: Data, key: Array) -> dict[str, Any]:
    """The shares of the draws below the truth, and the cost."""
    start = time.process_time()
    draws, evals, ess = jax.device_get(posterior(key, data.observed, data.y))
    seconds = time.process_time() - start
    x = draws["x"]
    found = {
        "ranks": np.mean(x < data.x, axis=0).ravel().round(4).tolist(),
        "sds": x.std(axis=0).ravel().round(4).tolist(),
        "energy_rank": float(np.mean(energy(x) < energy(data.x[None]))),
        "draws": len(x),
        "evals": float(evals),
        "ess": float(ess),
        "seconds": seconds,
        "noise": data.noise,
    }
    if "noise" in draws:
        found["noise_rank"] = float(np.mean(draws["noise"] < data.noise))
        found["noise_mean"] = float(np.mean(draws["noise"]))
    return found


def uniformity(ranks: np.ndarray) -> str:
    p = stats.kstest(ranks, "uniform").pvalue
    error = np.sqrt(1 / 12 / len(ranks))
    return f"{ranks.mean():.3f} +- {error:.3f} on average, uniform with p = {p:.2g}"


def ranks_of(rows: list[dict[str, Any]], name: str) -> np.ndarray:
    """
    Ranks of the truths among the draws, each at random between its neighbours, so that those of a
    draw like the others are uniform however few these are.
    """
    shares = np.array([row[name] for row in rows])
    num = np.array([row.get("draws", NUM_DRAWS) for row in rows])
    num = num.reshape(-1, *[1] * (shares.ndim - 1))
    return (shares * num + np.random.default_rng(0).random(shares.shape)) / (num + 1)


def report(name: str, rows: list[dict[str, Any]]) -> None:
    ranks, sds = ranks_of(rows, "ranks"), np.array([row["sds"] for row in rows])
    inside = (ranks > 0.05) & (ranks < 0.95)
    share, uncertain = inside.mean(axis=1), sds > UNCERTAIN
    lines = [
        f"{name}, {len(rows)} pictures: 90% intervals hold {share.mean():.1%} +- "
        f"{share.std() / np.sqrt(len(share)):.1%} of the pixels, {inside[uncertain].mean():.1%} of "
        f"the {uncertain.mean():.0%} that are uncertain",
        f"ranks of the energy {uniformity(ranks_of(rows, 'energy_rank'))}",
    ]
    if "noise_rank" in rows[0]:
        noise = ranks_of(rows, "noise_rank")
        held = np.mean((noise > 0.05) & (noise < 0.95))
        error = np.sqrt(held * (1 - held) / len(noise))
        lines += [f"of the noise scale {held:.0%} +- {error:.0%}, its ranks {uniformity(noise)}"]
    evals, ess, seconds = ([row[key] for row in rows] for key in ("evals", "ess", "seconds"))
    lines += [
        f"{np.mean(evals):.0f} evaluations a draw, {np.median(seconds):.1f} s of CPU a posterior, "
        f"smallest effective sample size {np.median(ess):.0f} (median), {np.min(ess):.0f} (all)"
    ]
    print("\n    ".join(lines), flush=True)


class Options(NamedTuple):
    """How many pictures, of which seed, draws of each, smallest noise level, file of the rows."""

    num_pictures: int
    seed: int
    num_draws: int
    level: float
    file: str


def coverage(setting: str, truths: str, sampler: str, options: Options) -> None:
    num, seed, num_draws, level, file = options
    prior, rows = digit_prior(level), Rows(FOLDER / file)
    # Particles cannot be more than there are, and 100 are the first of all that are drawn.
    x = TRUTHS[truths](prior, max(num, 100), seed)[:num]
    posterior = SAMPLERS[sampler](model_of(prior, SETTINGS[setting].noise), num_draws)
    energy = jax.jit(lambda x: -prior.log_prob(x))
    kernel = sampler if num_draws == NUM_DRAWS else f"{sampler}({num_draws})"
    found = []
    for i, data in enumerate(measured(SETTINGS[setting], x, seed)):
        name = f"{setting} {truths} {kernel} {seed} {i} at {level}"
        key = random.key(1_000 * seed + i)
        found.append(rows.get(name, partial(row, posterior, energy, data, key)))
    report(f"{setting}, {truths}, {kernel}, seed {seed}, noise level {level}", found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--truths", nargs="+", choices=TRUTHS, default=["levels"])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS)[:2])
    parser.add_argument("--num-pictures", type=int, default=100)
    parser.add_argument("--num-draws", type=int, default=NUM_DRAWS, help="of each posterior")
    parser.add_argument("--seed", type=int, default=0, help="of the truths and their data")
    parser.add_argument(
        "--level", type=float, default=PROCESS.sigma_min, help="smallest noise level of the prior"
    )
    parser.add_argument("--file", default="coverage.jsonl", help="of the rows")
    args = parser.parse_args()
    options = Options(args.num_pictures, args.seed, args.num_draws, args.level, args.file)
    for setting in args.settings:
        for truths in args.truths:
            for sampler in args.samplers:
                coverage(setting, truths, sampler, options)


if __name__ == "__main__":
    main()
