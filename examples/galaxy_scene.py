# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Morphology, flux and position of a galaxy from one blurred and noisy picture, with a diffusion model
in the format of diffusers as prior; and what comes of a score that is given to NUTS as the gradient
of a constant log density.

The same scene is asked twice: with a Gaussian prior, whose density is known, so that it is known
what is right, and with the learned one. Printed are posterior standard deviations of each site: of
the score with its value (`ScoreDistribution`, whose differences MALT integrates), of the score with
a constant, and of the Gaussian itself under NUTS. `galaxy_prior.py` made the folder of the model;
`galaxy_mode.py` finds the start and the metric of all chains but those of the constant.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from galaxy_mode import Laplace, laplace
from galaxy_prior import FOLDER, SIZE, make_galaxies
from jax import Array, random
from numpyro.diagnostics import split_gelman_rubin
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS, init_to_value

import numpyro_scores as ns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.05  # of the noise beneath which the prior is not asked
MARGIN = 4  # pixels of sky around the galaxy
NOISE, BLUR = 1.0, 1.2  # of a pixel; standard deviation of the point spread function in pixels
FLUX, POSITION = 400.0, np.array([1.3, -0.8])
LOG_FLUX, SPREAD = np.log(300.0), 2.0  # of the prior: mean, with unit standard deviation; pixels
SHAPE, SITES = (SIZE, SIZE, 1), ("morphology", "flux", "position")
BLUE, ORANGE, BLACK = "#0072B2", "#D55E00", "#000000"  # of Okabe & Ito


class Run(NamedTuple):
    """
    - **draws** - of each site, all chains after one another.
    - **r_hat** - of all sites and pixels, the largest.
    - **seconds** - compilation included.
    """

    draws: dict[str, np.ndarray]
    r_hat: float
    seconds: float


def render(x: Any, flux: Any, position: Any) -> Array:
    """The picture of a galaxy of pixels `x` in [-1, 1] that is moved, blurred and scaled."""
    light = jnp.pad((x[..., 0] + 1) / 2, MARGIN)
    light = flux * light / jnp.sum(light)
    f_y, f_x = jnp.fft.fftfreq(light.shape[0])[:, None], jnp.fft.rfftfreq(light.shape[1])
    blur = jnp.exp(-2 * (jnp.pi * BLUR) ** 2 * (f_x**2 + f_y**2))
    move = jnp.exp(-2j * jnp.pi * (f_y * position[0] + f_x * position[1]))
    return jnp.fft.irfft2(jnp.fft.rfft2(light) * blur * move, light.shape)


def scene(morphology: Callable[[], Any], y: np.ndarray | None = None) -> None:
    """
    :param morphology: samples the site of this name.
    """
    x = morphology()
    flux = numpyro.sample("flux", dist.LogNormal(LOG_FLUX, 1.0))
    position = numpyro.sample("position", dist.Normal(0.0, SPREAD).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(render(x, flux, position), NOISE).to_event(2), obs=y)


def with_value(score: Callable, reference: Array) -> Any:
    """The site of a score whose log density is its line integral."""
    return numpyro.sample("morphology", ns.ScoreDistribution(score, SHAPE, reference=reference))


def with_constant(score: Callable) -> Any:
    """The site of a score whose log density is a constant: the gradient is right, the value not."""
    x = numpyro.sample("morphology", dist.ImproperUniform(constraints.real, (), SHAPE))
    line = jnp.vdot(jax.lax.stop_gradient(score(x)), x)
    numpyro.factor("prior", line - jax.lax.stop_gradient(line))
    return x


def exactly(gaussian: dist.MultivariateNormal) -> Any:
    """The site of a density that is known."""
    flat = dist.TransformedDistribution(
        gaussian, dist.transforms.ReshapeTransform(SHAPE, (SIZE**2,))
    )
    return numpyro.sample("morphology", flat)


def draw(
    kernel: Any, y: np.ndarray, key: Array, num_warmup: int, num_chains: int, start: Any = None
) -> Run:
    begin = time.perf_counter()
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=250,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(key, y=y, init_params=start)
    chains = {name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()}
    r_hat = max(float(np.max(split_gelman_rubin(chain))) for chain in chains.values())
    draws = {name: v.reshape(-1, *v.shape[2:]) for name, v in chains.items()}
    return Run(draws, r_hat, time.perf_counter() - begin)


def with_gaussian(galaxies: np.ndarray, y: np.ndarray, key: Array) -> dict[str, Run]:
    """A Gaussian of the mean and the covariance of the galaxies, with noise."""
    flat = galaxies.reshape(len(galaxies), -1).astype(float)
    covariance = np.cov(flat.T) + LEVEL**2 * np.eye(SIZE**2)
    mean, precision = jnp.asarray(flat.mean(0)), jnp.asarray(np.linalg.inv(covariance))
    gaussian = dist.MultivariateNormal(mean, covariance)

    def score(x):
        return (precision @ (mean - x.ravel())).reshape(SHAPE)

    start = start_of(mean.reshape(SHAPE), y)
    about = about_mode(score, start, y)
    exact = NUTS(partial(scene, partial(exactly, gaussian)), **about.metric())
    key_exact, key = random.split(key)
    key_start, key_exact = random.split(key_exact)
    found = draw(exact, y, key_exact, 150, 4, about.draws(key_start, 4))
    return {"exact": found, **of_score(score, start, about, y, key)}


def with_network(mean: np.ndarray, y: np.ndarray, key: Array) -> dict[str, Run]:
    """The diffusion model of the folder, at one noise level."""
    model = ns.load_diffusers(FOLDER)
    score = ns.DiffusionPrior(model.denoiser, model.process, model.event_shape).at(LEVEL).score
    start = start_of(mean, y)
    return of_score(score, start, about_mode(score, start, y), y, key)


def of_score(
    score: Callable, start: dict[str, Any], about: Laplace, y: np.ndarray, key: Array
) -> dict[str, Run]:
    """The score with its value, and with a constant."""
    key_start, key_value, key_constant = random.split(key, 3)
    value = ns.MALT(
        partial(scene, partial(with_value, score, start["morphology"])),
        num_steps=6,
        target_accept_prob=0.65,
        **about.metric(),
        segment_integral=ns.SegmentIntegral(num_nodes=5),
    )
    constant = partial(scene, partial(with_constant, score))
    constant = NUTS(constant, init_strategy=init_to_value(values=start), max_tree_depth=6)
    return {
        "value": draw(value, y, key_value, 150, 8, about.draws(key_start, 8)),
        "constant": draw(constant, y, key_constant, 200, 4),
    }


def about_mode(score: Callable, start: dict[str, Any], y: np.ndarray) -> Laplace:
    """The posterior as a Gaussian. The flux is unconstrained by its logarithm."""

    def residuals(z):
        return (render(z["morphology"], jnp.exp(z["flux"]), z["position"]) - y).ravel() / NOISE

    def prior_score(z):
        return {
            "morphology": score(z["morphology"]),
            "flux": LOG_FLUX - z["flux"],
            "position": -z["position"] / SPREAD**2,
        }

    return laplace(residuals, prior_score, start | {"flux": jnp.log(start["flux"])})


def start_of(mean: Any, y: np.ndarray) -> dict[str, Any]:
    """Where chains start: the mean galaxy, and moments of the brighter pixels of the data."""
    bright = np.where(y > 3 * NOISE, y, 0)
    places = np.arange(len(y)) - (len(y) - 1) / 2
    position = np.array([bright.sum(1) @ places, bright.sum(0) @ places]) / bright.sum()
    return {
        "morphology": jnp.asarray(mean),
        "flux": jnp.asarray(bright.sum()),
        "position": jnp.asarray(position),
    }


def widths(run: Run) -> list[float]:
    """Standard deviations of the flux, of both positions and, the root mean square, of pixels."""
    x, flux, position = (run.draws[name] for name in SITES)
    return [flux.std(), *position.std(0), np.sqrt(x.var(0).mean()), x.mean((1, 2, 3)).std()]


def table(runs: dict[str, dict[str, Run]]) -> str:
    names = ("flux", "y", "x", "a pixel", "mean of all pixels", "R-hat", "seconds")
    lines = ["| sd of | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for prior, found in runs.items():
        for name, run in found.items():
            cells = [f"{v:.3g}" for v in widths(run)]
            cells += [f"{run.r_hat:.2f}", f"{run.seconds:.0f}"]
            lines.append(f"| {prior}, {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def plot(runs: dict[str, dict[str, Run]], truth: np.ndarray, y: np.ndarray) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 6.0), layout="constrained")
    parts: Any = figure.subfigures(2, 1)
    above, below = parts
    learned, gaussian = runs["diffusion model"], runs["Gaussian"]
    right, constant = (learned[name].draws["morphology"][..., 0] for name in ("value", "constant"))
    largest = max(right.std(0).max(), constant.std(0).max())
    pictures = {
        "data": (y, None),
        "truth": (truth[..., 0], (-1, 1)),
        "mean": (right.mean(0), (-1, 1)),
        "a draw": (right[-1], (-1, 1)),
        "sd": (right.std(0), (0, largest)),
        "sd, constant log density": (constant.std(0), (0, largest)),
    }
    for axes, (title, (picture, limits)) in zip(
        above.subplots(1, 6), pictures.items(), strict=True
    ):
        low, high = limits or (None, None)
        axes.imshow(picture, cmap="magma", vmin=low, vmax=high)
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()

    scatter, flux_gaussian, flux_learned, place = below.subplots(1, 4)
    exact = gaussian["exact"].draws["morphology"].std(0).ravel()
    for name, colour in (("constant", ORANGE), ("value", BLUE)):
        found = gaussian[name].draws["morphology"].std(0).ravel()
        scatter.plot(exact, found, ".", color=colour, markersize=3)
    ends = [exact.min(), exact.max()]
    scatter.plot(ends, ends, color=BLACK, linewidth=1)
    scatter.set(xscale="log", yscale="log", xlabel="exact", ylabel="found")
    scatter.set_title("Gaussian prior: sd of each pixel", fontsize=10)
    for axes, prior, site, title in (
        (flux_gaussian, gaussian, "flux", "Gaussian prior: flux"),
        (flux_learned, learned, "flux", "diffusion model: flux"),
        (place, learned, "position", "diffusion model: position"),
    ):
        for name, colour in (("constant", ORANGE), ("value", BLUE), ("exact", BLACK)):
            if name in prior:
                values = prior[name].draws[site].reshape(len(prior[name].draws[site]), -1)[:, 0]
                axes.hist(values, 40, density=True, histtype="step", color=colour, label=name)
        axes.axvline(FLUX if site == "flux" else POSITION[0], color="grey", linewidth=0.8)
        axes.set_yticks([])
        axes.set_title(title, fontsize=10)
    labels = {
        "constant": "NUTS, score and a constant log density",
        "value": "MALT, score and its integral",
        "exact": "NUTS, the density itself",
    }
    handles, names = flux_gaussian.get_legend_handles_labels()
    below.legend(
        handles,
        [labels[name] for name in names],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    galaxies = make_galaxies(np.random.default_rng(args.seed + 1_000), 4_000)
    truth, others = galaxies[0], galaxies[1:]
    rng = np.random.default_rng(args.seed)
    y = np.asarray(render(jnp.asarray(truth), jnp.asarray(FLUX), jnp.asarray(POSITION)))
    y = (y + NOISE * rng.standard_normal(y.shape)).astype(np.float32)
    key_gaussian, key_network = random.split(random.key(args.seed))
    runs = {
        "Gaussian": with_gaussian(others, y, key_gaussian),
        "diffusion model": with_network(others.mean(0), y, key_network),
    }
    print(table(runs))
    plot(runs, truth, y).savefig(args.output / "galaxy_scene.png", dpi=110)
    print(f"\nWrote galaxy_scene.png to {args.output}/")


if __name__ == "__main__":
    main()
