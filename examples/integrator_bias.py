# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The bias of each integrator against its step size, drawn and printed: on a Gaussian, where it is
known exactly, and on the quartic density exp(-x^4 / 4), where many chains measure it.

Steps are compared at equal cost: `h` of a gradient, in units of the inverse of the mean curvature
`L`; SK-ROCK, with five gradients, steps by `5 h`. An underdamped integrator takes the time step
`sqrt(2 h)` and the friction `2 sqrt(L)`.
"""

import argparse
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

import numpyro_scores as ns
from numpyro_scores.integrators import (
    SKROCK,
    Integrator,
    OverdampedIntegrator,
    stationary_variance,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = (0.05, 0.1, 0.2, 0.3, 0.4)  # h L
CURVE = np.geomspace(0.03, 1.999, 400)  # of the Gaussian: all are stable below 2

# Of exp(-x^4 / 4), and the mean of its curvature 3 x^2.
QUARTIC_VARIANCE = 2 * math.gamma(3 / 4) / math.gamma(1 / 4)
QUARTIC_CURVATURE = 3 * QUARTIC_VARIANCE


class Style(NamedTuple):
    integrator: Integrator
    colour: str  # of Okabe & Ito, which the colour-blind can tell apart
    marker: str


INTEGRATORS = {
    "Euler-Maruyama (ULA)": Style(ns.EulerMaruyama(), "#D55E00", "o"),
    "OBABO": Style(ns.OBABO(), "#E69F00", "s"),
    "UBU": Style(ns.UBU(), "#009E73", "D"),
    "SK-ROCK, 5 stages": Style(SKROCK(5), "#CC79A7", "P"),
    "Leimkuhler-Matthews": Style(ns.LeimkuhlerMatthews(), "#0072B2", "^"),
    "BAOAB": Style(ns.BAOAB(), "#000000", "v"),
}


def dynamics(integrator: Integrator, h: Array | float, curvature: float) -> dict[str, Any]:
    """What a step takes besides state, noise and gradient, for a step `h` of a gradient."""
    if isinstance(integrator, OverdampedIntegrator):
        return {"step_size": h * integrator.num_grad_evals}
    return {"step_size": jnp.sqrt(2 * h), "friction": 2 * math.sqrt(curvature)}


@partial(jax.jit, static_argnames="integrator")
def gaussian_error(integrator: Integrator, h: Array) -> Array:
    """Relative error of the variance of a Gaussian of precision 1, for each `h`."""

    def variance(h):
        return stationary_variance(integrator, precision=1.0, **dynamics(integrator, h, 1.0))

    return jax.vmap(variance)(h) - 1


def quartic_draws(seed: int, num_chains: int) -> Array:
    """Exact: `x^4 / 4` has a gamma distribution."""
    rng = np.random.default_rng(seed)
    x = (4 * rng.gamma(0.25, size=num_chains)) ** 0.25 * rng.choice([-1, 1], num_chains)
    return jnp.asarray(x, jnp.float32)


@partial(jax.jit, static_argnames="integrator")
def quartic_error(
    integrator: Integrator, h: Array | float, num_gradients: int, start: Array, key: Array
) -> tuple[Array, Array]:
    """
    Relative error of the variance of the quartic, and its standard error: from `start`, a chain for
    each entry, steps worth `num_gradients` gradients; the last two thirds of the steps count.
    """
    key_noise, key_steps = random.split(key)
    num_steps = num_gradients // integrator.num_grad_evals
    num_skipped = num_steps // 3

    def gradient(x):
        return x**3

    def step(i, carry):
        state, total = carry
        noise = random.normal(random.fold_in(key_steps, i), (integrator.num_noises, len(start)))
        settings = dynamics(integrator, h, QUARTIC_CURVATURE)
        state = integrator.step(state, noise, gradient, **settings)
        return state, total + jnp.where(i >= num_skipped, state.x**2, 0.0)

    noise = random.normal(key_noise, start.shape)
    carry = integrator.init(start, noise, gradient), jnp.zeros_like(start)
    _, total = lax.fori_loop(0, num_steps, step, carry)
    # Independent are the chains, not the steps of one.
    ratio = total / (num_steps - num_skipped) / QUARTIC_VARIANCE
    return jnp.mean(ratio) - 1, jnp.std(ratio) / math.sqrt(len(start))


def measure(num_chains: int, time: float, seed: int) -> dict[str, np.ndarray]:
    """For each integrator, errors and standard errors, shape `(len(STEPS), 2)`; NaN if unstable."""
    keys = random.split(random.key(seed), len(STEPS))
    start = quartic_draws(seed, num_chains)
    return {
        name: np.array(
            [
                quartic_error(
                    style.integrator, step / QUARTIC_CURVATURE, round(time / step), start, key
                )
                for step, key in zip(STEPS, keys, strict=True)
            ]
        )
        for name, style in INTEGRATORS.items()
    }


def draw(exact: dict[str, np.ndarray], measured: dict[str, np.ndarray]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for name, (_, colour, marker) in INTEGRATORS.items():
        error = np.abs(exact[name][len(STEPS) :])
        if error.max() > 1e-3:  # more than rounding
            dashes = (0, (4, 3)) if name == "OBABO" else "-"  # it lies on Euler-Maruyama
            left.plot(CURVE, error, color=colour, linestyle=dashes, linewidth=2.2)

        error, standard_error = measured[name].T
        steps = np.array(STEPS) * (1 + 0.02 * (list(INTEGRATORS).index(name) - 2.5))
        clear = np.abs(error) > 2 * standard_error
        unclear = np.abs(error) <= 2 * standard_error
        options = {"color": colour, "marker": marker, "markersize": 7, "linestyle": "none"}
        right.errorbar(
            steps[clear],
            np.abs(error)[clear],
            2 * standard_error[clear],
            label=name,
            capsize=3,
            **options,
        )
        right.plot(steps[clear], np.abs(error)[clear], color=colour, linewidth=1.2, alpha=0.5)
        limit = (np.abs(error) + 2 * standard_error)[unclear]
        right.errorbar(
            steps[unclear], limit, 0.35 * limit, uplims=True, markerfacecolor="white", **options
        )
    left.set(yscale="log", ylim=(3e-4, 2), ylabel="relative error of the variance, absolute value")
    left.set_title("Gaussian: exact")
    right.set_title(r"$e^{-x^4/4}$: measured, with two standard errors")
    left.text(0.035, 4.2e-4, "Leimkuhler-Matthews and BAOAB: no error", fontsize=9)
    right.text(0.42, 4.2e-4, "open: less than", ha="right", fontsize=9)
    for axes, ticks in ((left, (0.05, 0.1, 0.2, 0.5, 1, 2)), (right, STEPS)):
        axes.set(xscale="log", xlabel="step of a gradient, h L")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def table(exact: dict[str, np.ndarray], measured: dict[str, np.ndarray]) -> str:
    lines = ["| h L of a gradient |" + "".join(f" {h:g} |" for h in STEPS)]
    lines.append("|---|" + "---|" * len(STEPS))
    for name in INTEGRATORS:
        cells = (f"{error:+.1%}" for error in exact[name][: len(STEPS)])
        lines.append(f"| {name}, Gaussian | " + " | ".join(cells) + " |")
        cells = (
            f"{error:+.2%} +- {standard_error:.2%}" if np.isfinite(error) else "unstable"
            for error, standard_error in measured[name]
        )
        lines.append(f"| {name}, quartic | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-chains", type=int, default=100_000)
    parser.add_argument("--time", type=float, default=40.0, help="of a chain, in units of 1 / L")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    h = jnp.concatenate([jnp.array(STEPS), jnp.asarray(CURVE)])
    exact = {name: np.asarray(gaussian_error(s.integrator, h)) for name, s in INTEGRATORS.items()}
    measured = measure(args.num_chains, args.time, args.seed)
    print(f"Relative error of the variance\n\n{table(exact, measured)}")
    draw(exact, measured).savefig(args.output / "integrator_bias.png", dpi=110)
    print(f"\nWrote integrator_bias.png to {args.output}/")


if __name__ == "__main__":
    main()
