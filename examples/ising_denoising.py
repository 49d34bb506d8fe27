# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Denoise a picture of two colours with an Ising prior whose coupling nobody knows.

Each pixel of the picture is flipped with a probability that the model is not told. Pixels have an
Ising prior; how strongly neighbours agree is not told either, and its posterior is doubly
intractable: the normaliser of the prior depends on it. `BlockGibbs` draws the picture and
`ExchangeKernel` the two parameters, in turn.

The first picture has 3 x 3 pixels, where all 512 pictures can be listed and the posterior
is known; the second a photograph of 256 x 256. For each: the probability of every pixel to be
white, the most probable picture (an exact minimum cut), and the posterior of the coupling.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, Gibbs
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
from skimage import data, filters, measure

import numpyro_scores as ns

FLIP = 0.15


def model(y):
    coupling = numpyro.sample("coupling", dist.HalfNormal(0.5))
    flip = numpyro.sample("flip", dist.Uniform(0.0, 0.5))
    prior = ns.Ising(y.shape, coupling, periodic=False, sampler=ns.BlockGibbs)
    # ExchangeKernel draws the coupling, so the kernel of `x` may do without the normaliser.
    x = numpyro.sample("x", prior, infer={"exchange": True})
    white = dist.Bernoulli(jnp.where(jnp.asarray(x) > 0, 1 - flip, flip))
    numpyro.sample("y", white.to_event(2), obs=y)


class Posterior(NamedTuple):
    """What is known of a picture: the probability of white, and draws of the parameters."""

    white: np.ndarray
    coupling: np.ndarray
    flip: np.ndarray


def draw(y: np.ndarray, key, num_warmup: int, num_samples: int, num_chains: int) -> Posterior:
    """By MCMC from the data; the auxiliary draws of the exchange algorithm are by clusters."""
    exchange = ns.ExchangeKernel(
        model, sampler=partial(ns.SwendsenWang, num_steps=5), step_size=0.1, num_steps=3
    )
    kernel = Gibbs(
        [
            (ns.BlockGibbs(model, num_steps=10), ["x"]),
            (exchange, ["coupling"]),
            (ns.MALA(model), ["flip"]),  # no normaliser depends on it
        ]
    )
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=num_chains,
        chain_method="sequential",
    )
    start = {"x": (2 * y - 1).astype(np.int8), "coupling": 0.3, "flip": 0.2}
    chains = {name: np.repeat(np.asarray(x)[None], num_chains, 0) for name, x in start.items()}
    mcmc.run(key, jnp.asarray(y), init_params=chains)
    draws = mcmc.get_samples(group_by_chain=True)
    for name in ("coupling", "flip"):
        r_hat, bulk = split_gelman_rubin(draws[name]), effective_sample_size(draws[name])
        print(f"{name:9s} R-hat {r_hat:.3f}, effective sample size {bulk:.0f}")
    white = np.mean(np.asarray(draws["x"]) > 0, axis=(0, 1))
    return Posterior(white, np.asarray(draws["coupling"]), np.asarray(draws["flip"]))


def enumerate_pictures(y: np.ndarray, num_nodes: int = 200) -> Posterior:
    """
    The same from all pictures and a grid of both parameters; in place of draws of a parameter, its
    grid and the density on it.
    """
    bits = (np.arange(2**y.size)[:, None] >> np.arange(y.size)) & 1
    pictures = (2 * bits - 1).reshape(-1, *y.shape)
    agree = sum(
        np.sum(np.take(pictures, range(1, n), axis) * np.take(pictures, range(n - 1), axis), (1, 2))
        for axis, n in ((1, y.shape[0]), (2, y.shape[1]))
    )
    wrong = np.sum((pictures > 0) != (y > 0), (1, 2))
    coupling = (np.arange(num_nodes) + 0.5) * 2.5 / num_nodes
    flip = (np.arange(num_nodes) + 0.5) * 0.5 / num_nodes
    energy = coupling[:, None] * agree
    log_prior = energy - np.logaddexp.reduce(energy, axis=1, keepdims=True)
    log_prior += -0.5 * (coupling[:, None] / 0.5) ** 2
    log_likelihood = wrong * np.log(flip)[:, None] + (y.size - wrong) * np.log1p(-flip)[:, None]
    joint = np.exp(log_prior)[:, None] * np.exp(log_likelihood)[None]
    joint /= joint.sum()
    white = np.einsum("p,pij->ij", joint.sum((0, 1)), pictures > 0)
    densities = [
        np.stack([grid, joint.sum(axis) / (grid[1] - grid[0])])
        for grid, axis in ((coupling, (1, 2)), (flip, (0, 2)))
    ]
    return Posterior(white, *densities)


def most_probable(y: np.ndarray, coupling: float, flip: float) -> np.ndarray:
    """
    The picture of the highest probability, given both parameters, as a minimum cut between white
    and black (Greig, Porteous & Seheult 1989): an edge that it cuts costs the log density that a
    pair of unequal neighbours, or a pixel unlike its datum, loses.
    """
    unit = 10_000  # capacities are whole numbers
    nodes = np.arange(y.size).reshape(y.shape)
    left = np.concatenate([nodes[:, :-1].ravel(), nodes[:-1].ravel()])
    right = np.concatenate([nodes[:, 1:].ravel(), nodes[1:].ravel()])
    source, sink = y.size, y.size + 1
    is_white = y.ravel() > 0
    white, black = np.flatnonzero(is_white), np.flatnonzero(~is_white)
    start = np.concatenate([left, right, np.full(white.size, source), black])
    end = np.concatenate([right, left, white, np.full(black.size, sink)])
    pair, datum = 2 * coupling, np.log((1 - flip) / flip)
    cost = np.repeat([pair, datum], [2 * left.size, y.size])
    shape = (y.size + 2, y.size + 2)
    capacity = coo_array((np.rint(unit * cost).astype(np.int32), (start, end)), shape).tocsr()
    residual = capacity - maximum_flow(capacity, source, sink).flow
    residual.eliminate_zeros()
    reached = breadth_first_order(residual, source, return_predecessors=False)
    picture = np.zeros(y.size + 2, dtype=np.int8)
    picture[reached] = 1
    return picture[: y.size].reshape(y.shape)


def photograph() -> np.ndarray:
    """The camera man, 256 x 256, of two colours."""
    small = measure.block_reduce(data.camera(), (2, 2), np.mean)
    return (small > filters.threshold_otsu(small)).astype(np.int8)


def noisy(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return picture ^ (rng.random(picture.shape) < FLIP).astype(np.int8)


def show(axes, truth, y, posterior: Posterior, exact: Posterior | None) -> None:
    """A row of panels: the picture, its data, what is known of it, and the coupling."""
    cut = most_probable(y, posterior.coupling.mean(), posterior.flip.mean())
    for axis, (title, picture) in zip(
        axes,
        {
            "truth": truth,
            f"data, {np.mean(truth != y):.0%} flipped": y,
            "probability of white": posterior.white,
            f"most probable, {np.mean(truth != cut):.1%} wrong": cut,
        }.items(),
        strict=False,
    ):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set(title=title, xticks=[], yticks=[])
    axes[4].hist(posterior.coupling.ravel(), bins=30, density=True, color="0.7", label="draws")
    if exact is not None:
        axes[4].plot(*exact.coupling, color="black", label="exact")
        axes[4].legend(frameon=False)
    axes[4].set(title="coupling", yticks=[])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-chains", type=int, default=4)
    parser.add_argument("--num-draws", type=int, default=100, help="draws a chain, of the photo")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    key_small, key_photo = random.split(random.key(args.seed))
    figure, axes = plt.subplots(2, 5, figsize=(13, 5.6), layout="constrained")

    small = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]], dtype=np.int8)
    y = noisy(small, rng)
    print("A picture of 3 x 3 pixels:")
    posterior, exact = draw(y, key_small, 500, 2_000, 4), enumerate_pictures(y)
    print(
        "largest error of a pixel's probability of white "
        f"{np.max(np.abs(posterior.white - exact.white)):.3f}\n"
    )
    show(axes[0], small, y, posterior, exact)

    photo = photograph()
    y = noisy(photo, rng)
    print("A photograph of 256 x 256 pixels:")
    start = time.perf_counter()
    posterior = draw(y, key_photo, 200, args.num_draws, args.num_chains)
    print(
        f"coupling {posterior.coupling.mean():.3f} +- {posterior.coupling.std():.3f}, flipped "
        f"{posterior.flip.mean():.3f} +- {posterior.flip.std():.3f} (truth {FLIP})\n"
        f"wrong pixels: {np.mean((posterior.white > 0.5) != photo):.2%} of the marginal modes, "
        f"{np.mean(y != photo):.2%} of the data; {time.perf_counter() - start:.0f} s"
    )
    show(axes[1], photo, y, posterior, None)
    figure.savefig(args.output / "ising.png", dpi=150)
    print(f"\nWrote ising.png to {args.output}/")


if __name__ == "__main__":
    main()
