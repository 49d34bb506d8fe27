# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Five posteriors of handwritten digits with one learned prior, the U-Net of `mnist_unet.py`.

- `inpainting`: the lower part of a digit is missing, and more than one digit fits;
- `deblurring`: neither the width of the blur nor the noise is known;
- `tomography`: sums along rays from five angles;
- `phases`: the intensities of a Fourier transform, which cannot tell a picture from its shifts;
- `pictures`: ten noisy digits whose noise scale is unknown, but one.

`DAPS` finds modes, fast, since no gradient goes through the network, but its draws fit the data too
loosely; Langevin steps of all sites at the smallest noise level then settle each of them. The scale
of the ten pictures is beyond those steps: `AnnealedLangevin` finds it, with the noisy pictures in
the likelihood. All are approximate. The digits were not seen in training. Each row of the figure is
the truth, the data (what is missing is blue), the mean and standard deviation of the draws (black
is 0, white 1), and draws. Printed is how many nats the log likelihood of the draws lies below that
of the truth, which tells whether they fit the data, and, of unknown parameters, draws and truth.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from mnist_unet import learned_prior, load
from numpyro.infer import MCMC, log_likelihood

import numpyro_scores as ns

NUM_SHOWN = 6


class Problem(NamedTuple):
    """
    - **model** - a NumPyro model of the site `x`, with data `y`.
    - **truth** - values of the latent sites that made the data.
    - **show** - a picture of the data.
    - **kernel** - what draws, in place of `DAPS` and Langevin steps from there.
    """

    model: Callable
    truth: dict[str, Any]
    show: Callable[[np.ndarray], np.ndarray]
    kernel: Any = None


def normal(mean, noise):
    return dist.Normal(mean, noise).to_event(jnp.ndim(mean))


def inpainting(prior, digits):
    seen = np.arange(28)[:, None] * np.ones(28) < 13
    operator = ns.inverse.Mask(seen)

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", normal(operator(x), 0.1), obs=y)

    def show(y):
        picture = np.full((28, 28), np.nan)
        picture[seen] = y
        return picture

    return Problem(model, {"x": digits[0]}, show)


def deblurring(prior, digits):
    def model(y=None):
        x = numpyro.sample("x", prior)
        width = numpyro.sample("width", dist.LogNormal(0.5, 0.5))
        noise = numpyro.sample("noise", dist.HalfNormal(0.5))
        blur = ns.inverse.Blur(ns.inverse.gaussian_kernel(width, radius=7), (28, 28))
        numpyro.sample("y", normal(blur(x), noise), obs=y)

    return Problem(model, {"x": digits[1], "width": 2.0, "noise": 0.1}, lambda y: y)


def tomography(prior, digits):
    operator = ns.inverse.Radon((28, 28), np.arange(5) * 36.0, circle=False)

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", normal(operator((x + 1) / 2), 0.3), obs=y)

    return Problem(model, {"x": digits[2]}, lambda y: y)


def phases(prior, digits):
    operator = ns.inverse.PhaseRetrieval((28, 28))

    def model(y=None):
        x = numpyro.sample("x", prior)
        numpyro.sample("y", normal(operator((x + 1) / 2), 0.05), obs=y)

    return Problem(model, {"x": digits[3]}, lambda y: np.log(np.fft.fftshift(np.abs(y)) + 0.01))


def pictures(prior, digits):
    def model(y=None):
        noise = numpyro.sample("noise", dist.HalfNormal(1.0))
        with numpyro.plate("picture", 10):
            x = numpyro.sample("x", prior)
            numpyro.sample("y", dist.Normal(x, noise).to_event(2), obs=y)

    kernel = ns.AnnealedLangevin(model, denoised=False, num_levels=40)
    return Problem(model, {"x": digits[4:14], "noise": 0.7}, lambda y: y[0], kernel)


PROBLEMS = {f.__name__: f for f in (inpainting, deblurring, tomography, phases, pictures)}


def draws_of(
    name: str, prior: Any, digits: Any, y: Any, key: Any, num_draws: int, num_steps: int
) -> dict[str, np.ndarray]:
    """One draw of each chain: of the problem's own kernel, or settled ones of `DAPS`."""

    def last(kernel, key, num_draws, init_params=None):
        mcmc = MCMC(
            kernel,
            num_warmup=0,
            num_samples=1,
            num_chains=num_draws,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key, y=y, init_params=init_params)
        return mcmc

    problem = PROBLEMS[name](prior, digits)
    if problem.kernel is not None and num_steps:
        mcmc = last(problem.kernel, key, 1 + num_draws // 4)  # of ten pictures each
    else:
        mcmc = last(ns.DAPS(problem.model), key, num_draws)
    if problem.kernel is None and num_steps:
        # Langevin steps need the score of the smallest noise level, not the value of the density.
        local = PROBLEMS[name](ns.ScoreDistribution(prior.score, prior.event_shape), digits)
        kernel = ns.UnderdampedLangevin(local.model, num_steps=num_steps)
        mcmc = last(kernel, random.fold_in(key, 1), num_draws, mcmc.last_state.z)
    return {site: np.asarray(x) for site, x in mcmc.get_samples().items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--num-steps", type=int, default=500, help="Langevin steps; with 0 all draws are by DAPS"
    )
    args = parser.parse_args()
    train, (pictures, _) = load(0)  # those of the weights
    prior = learned_prior(train)

    def draw(name: str, y: Any, key: Any) -> dict[str, np.ndarray]:
        return draws_of(name, prior, pictures, y, key, args.num_draws, args.num_steps)

    figure = gallery(args, prior, pictures, draw)
    figure.savefig(args.output / "mnist_posteriors.png", dpi=80)
    print(f"\nWrote mnist_posteriors.png to {args.output}/")


def arguments(words: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=words, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-draws", type=int, default=8)
    return parser


def gallery(args: Any, prior: Any, pictures: np.ndarray, draw: Callable) -> Any:
    """A figure with a row of each problem, of `draw(name, y, key)`: values of all latent sites."""
    args.output.mkdir(parents=True, exist_ok=True)
    names = args.problems
    figure, axes = plt.subplots(
        len(names), 4 + NUM_SHOWN, figsize=(15, 1.6 * len(names)), squeeze=False
    )
    for row, name in zip(axes, names, strict=True):
        problem = PROBLEMS[name](prior, pictures)
        key_data, key_draws = random.split(random.key(args.seed))
        data = numpyro.handlers.substitute(
            numpyro.handlers.seed(problem.model, key_data), data=problem.truth
        )
        y = numpyro.handlers.trace(data).get_trace()["y"]["value"]
        start = time.process_time()
        draws = draw(name, y, key_draws)
        report(name, problem, y, draws, time.process_time() - start)
        show(row, name, problem, np.asarray(y), draws["x"])
    figure.tight_layout(pad=0.3)
    return figure


def misfit(problem: Problem, y: Any, draws: dict[str, np.ndarray]) -> np.ndarray:
    """The log likelihood of the truth less that of each draw."""
    truth = {site: np.asarray(value)[None] for site, value in problem.truth.items()}
    of_truth, of_draws = (
        np.asarray(log_likelihood(problem.model, values, y=y)["y"]) for values in (truth, draws)
    )
    return of_truth.sum() - of_draws.reshape(len(of_draws), -1).sum(axis=1)


def report(
    name: str, problem: Problem, y: Any, draws: dict[str, np.ndarray], seconds: float
) -> None:
    error = np.sqrt(np.mean((draws["x"].mean(0) - problem.truth["x"]) ** 2))
    below = misfit(problem, y, draws)
    found = "".join(
        f", {site} {draws[site].mean():.3f} +- {draws[site].std():.3f} (truth {truth})"
        for site, truth in problem.truth.items()
        if site != "x"
    )
    print(
        f"{name:11} error of the mean {error:.3f}, "
        f"{np.median(below):.0f} nats below the truth (from {below.min():.0f} to "
        f"{below.max():.0f}){found}; {seconds:.0f} s of CPU",
        flush=True,
    )


def show(row: Any, name: str, problem: Problem, y: np.ndarray, x: np.ndarray) -> None:
    truth = problem.truth["x"]
    if truth.ndim == 3:  # the first of several pictures
        truth, x = truth[0], x[:, 0]
    panels = {
        name: truth,
        "data": problem.show(y),
        "mean": x.mean(0),
        "standard deviation": x.std(0),
    }
    for axis, (title, picture) in zip(row, panels.items(), strict=False):
        low, high = {"data": (None, None), "standard deviation": (0, 1)}.get(title, (-1, 1))
        aspect = "auto" if title == "data" else None
        axis.imshow(picture, cmap="gray", vmin=low, vmax=high, aspect=aspect)
        axis.set_title(title, fontsize=9)
    for axis, picture in zip(row[4:], x, strict=False):
        axis.imshow(picture, cmap="gray", vmin=-1, vmax=1)
        axis.set_title("draw", fontsize=9)
    for axis in row[4 + len(x) :]:
        axis.set_visible(False)
    for axis in row:
        axis.set(xticks=[], yticks=[], facecolor="tab:blue")  # shows where a pixel is missing


if __name__ == "__main__":
    main()
