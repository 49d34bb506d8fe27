# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Deblur a digit with a learned prior and an unknown noise scale, and see whether to believe it.

An energy of every noise level is trained on 1,500 of scikit-learn's handwritten digits (8 x 8
pixels in [-1, 1]) and becomes the prior of a NumPyro model. One of the 297 digits that it never saw
is blurred, loses a quarter of its pixels and gets noise whose scale the model is not told. The
posterior of picture and noise scale comes from NumPyro's NUTS, which is exact for this prior, and
is compared with the truth and with the best linear estimate (Wiener filter), which *is* told the
noise scale.
"""

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from flax import nnx
from jax import random
from numpyro.infer import MCMC, NUTS, init_to_sample, log_likelihood
from sklearn.datasets import load_digits

import numpyro_scores as ns

NOISE = 0.1
NUM_HELD_OUT = 297
PROCESS = ns.VarianceExploding(sigma_min=0.08, sigma_max=10.0)


class Problem(NamedTuple):
    """A picture to be found and what was measured of it, all of shape (8, 8)."""

    truth: np.ndarray
    observed: np.ndarray
    y: np.ndarray


def load_pictures(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The digits to train on and those held out, in a random order."""
    pictures = (load_digits().images / 8.0 - 1.0).astype(np.float32)
    pictures = np.random.default_rng(seed).permutation(pictures)
    return pictures[NUM_HELD_OUT:], pictures[:NUM_HELD_OUT]


def blur(x):
    """Weights 1-2-1 along each axis, with zeros (grey) around the picture."""
    weights = jnp.array([0.25, 0.5, 0.25])
    return jax.scipy.signal.convolve2d(x, jnp.outer(weights, weights), mode="same")


def measure(truth: np.ndarray, rng: np.random.Generator) -> Problem:
    """Blur a picture, add noise and lose a quarter of the pixels."""
    observed = rng.permutation(truth.size).reshape(truth.shape) >= truth.size // 4
    y = np.asarray(blur(truth)) + NOISE * rng.standard_normal(truth.shape)
    return Problem(truth, observed, y.astype(np.float32))


def about(mean, energy, x, sigma):
    """An energy of pictures, by that of what they have beside their mean."""
    return energy(x - mean, sigma)


def make_energy(pictures: np.ndarray, seed: int) -> ns.nn.MLPNoiseEnergy:
    """Of what pictures have beside their mean."""
    return ns.nn.MLPNoiseEnergy(
        event_shape=(8, 8),
        rngs=nnx.Rngs(seed),
        hidden_features=128,
        num_layers=3,
        sigma_data=float((pictures - pictures.mean(axis=0)).std()),
    )


def train_energy(pictures: np.ndarray, num_steps: int, seed: int) -> Any:
    rate = optax.warmup_cosine_decay_schedule(0.0, 6e-3, num_steps // 20, num_steps)
    fitted = ns.fit(
        make_energy(pictures, seed),
        # One noise a point: with so few pictures more of them in a batch do more than pairs.
        ns.objectives.DualScoreMatching(PROCESS, antithetic=False),
        pictures - pictures.mean(axis=0),
        key=random.key(seed),
        optimizer=optax.adamw(rate, weight_decay=0.15),
        num_steps=num_steps,
        ema_decay=0.9995,
    )
    return fitted.module


def prior_of(energy: Any, pictures: np.ndarray, process: Any = PROCESS) -> ns.DiffusionPrior:
    about_their_mean = jax.tree_util.Partial(about, pictures.mean(axis=0), energy)
    return ns.DiffusionPrior(about_their_mean, process, (8, 8))


def train_prior(pictures: np.ndarray, num_steps: int, seed: int) -> ns.DiffusionPrior:
    return prior_of(train_energy(pictures, num_steps, seed), pictures)


def make_model(prior: ns.DiffusionPrior):
    def model(observed, y=None):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.HalfNormal(0.5))
        likelihood = dist.Normal(blur(x), noise).mask(observed).to_event(2)
        numpyro.sample("y", likelihood, obs=y)

    return model


def make_kernel(prior: ns.DiffusionPrior) -> NUTS:
    # From draws of the prior: pixels between -2 and 2, where chains start otherwise, are no digit.
    return NUTS(make_model(prior), init_strategy=init_to_sample)


def wiener(problem: Problem, pictures: np.ndarray) -> np.ndarray:
    """The best linear estimate for data with the mean and covariance of `pictures`."""
    flat = pictures.reshape(len(pictures), -1).astype(float)
    mean, covariance = flat.mean(axis=0), np.cov(flat.T)
    basis = np.eye(mean.size, dtype=np.float32).reshape(-1, *problem.truth.shape)
    columns = np.asarray(jax.vmap(blur)(basis)).reshape(mean.size, mean.size)
    keep = problem.observed.ravel()
    forward = columns.T[keep]
    gain = covariance @ forward.T
    innovation = problem.y.ravel()[keep] - forward @ mean
    inner = forward @ gain + NOISE**2 * np.eye(len(forward))
    return (mean + gain @ np.linalg.solve(inner, innovation)).reshape(problem.truth.shape)


def rmse(estimate: Any, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.asarray(estimate) - truth) ** 2)))


def misfit(prior: ns.DiffusionPrior, problem: Problem, draws: Any) -> np.ndarray:
    """The log likelihood of the truth less that of each draw: do these fit the data?"""
    truth = {"x": problem.truth[None], "noise": np.array([NOISE])}
    of_truth, of_draws = (
        log_likelihood(make_model(prior), values, problem.observed, y=problem.y)["y"]
        for values in (truth, draws)
    )
    return np.asarray(of_truth - of_draws)


def writable_folder(text: str) -> Path:
    """Make the output folder now: a long run must not end with nowhere to write."""
    folder = Path(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"cannot write to the output folder {text!r} ({error.strerror}); choose another one"
        ) from error
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=writable_folder, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--digit", type=int, default=0, help="which held-out digit (0 to 296)")
    parser.add_argument("--num-steps", type=int, default=4_000, help="training steps")
    parser.add_argument("--num-chains", type=int, default=16)
    parser.add_argument("--num-warmup", type=int, default=200, help="of each chain")
    parser.add_argument("--num-draws", type=int, default=50, help="posterior draws a chain")
    args = parser.parse_args()
    if not 0 <= args.digit < NUM_HELD_OUT:
        parser.error(f"--digit must be from 0 to {NUM_HELD_OUT - 1}, got {args.digit}")
    import arviz as az  # takes seconds, so not before the arguments are known to be right

    seconds = {}
    start = time.perf_counter()
    pictures, held_out = load_pictures(args.seed)
    prior = train_prior(pictures, args.num_steps, args.seed)
    seconds["train the prior"] = time.perf_counter() - start

    start = time.perf_counter()
    problem = measure(held_out[args.digit], np.random.default_rng(args.seed))
    mcmc = MCMC(
        make_kernel(prior),
        num_warmup=args.num_warmup,
        num_samples=args.num_draws,
        num_chains=args.num_chains,
        chain_method="vectorized",
    )
    mcmc.run(random.key(args.seed), problem.observed, y=problem.y)
    draws = np.asarray(mcmc.get_samples(group_by_chain=True)["x"])
    below = misfit(prior, problem, mcmc.get_samples())
    seconds["draw the posterior"] = time.perf_counter() - start

    start = time.perf_counter()
    data = ns.to_inference_data(mcmc)
    table: Any = az.summary(data)
    pixels = table.index.str.startswith("x[")
    worst = table[pixels].astype({"r_hat": float}).nlargest(4, "r_hat").index
    print("\nThe noise scale (truth 0.1) and the four pixels that agree least among the chains:\n")
    print(table.loc[["noise", *worst]].to_string())
    data.to_netcdf(str(args.output / "posterior.nc"))
    shown = np.where(problem.observed, problem.y, np.nan)
    figure = ns.diagnostics.plot_posterior_images(
        draws, truth=problem.truth, data=shown, value_range=(-1.0, 1.0)
    )
    figure.savefig(args.output / "posterior.png", dpi=150)
    ns.diagnostics.plot_trace_rank(data, ["noise"]).savefig(args.output / "noise.png", dpi=100)
    seconds["diagnose and write"] = time.perf_counter() - start

    mean, linear = draws.mean(axis=(0, 1)), wiener(problem, pictures)
    low, high = np.quantile(draws, [0.05, 0.95], axis=(0, 1))
    inside = np.mean((low <= problem.truth) & (problem.truth <= high))
    print(
        f"\nError of the posterior mean {rmse(mean, problem.truth):.3f}, of the Wiener filter "
        f"{rmse(linear, problem.truth):.3f} (root mean square, pixels in [-1, 1])."
        f"\nThe 90% intervals hold {inside:.0%} of the pixels. The log likelihood of draws is "
        f"{np.median(below):.1f} nats below the truth's (median). Diverging draws: "
        f"{int(mcmc.get_extra_fields()['diverging'].sum())} of {draws.shape[0] * draws.shape[1]}.\n"
    )
    for phase, elapsed in seconds.items():
        print(f"{phase:20s} {elapsed:6.1f} s")
    print(f"\nWrote posterior.nc, posterior.png and noise.png to {args.output}/")


if __name__ == "__main__":
    main()
