# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Deconvolution of 64 points with unknown precisions of the noise and of the prior, beside CUQIpy's
`HybridGibbs` in the same run:

.. math:: x \sim N(0, (d\, D^T D)^{-1}), \qquad y \sim N(A x, l^{-1} I), \qquad
          d, l \sim \mathrm{Gamma}(1, 10^{-4}),

`A` the periodic convolution with a Gaussian of 10 points, `D` the first differences with zeros
beyond both ends, `x` a sinc and `y` with noise of 0.05: CUQIpy's `Deconvolution1D` with its `GMRF`,
written out here by formula. Without CUQIpy only this package and NumPyro are measured. CUQIpy 1.5.1
asks for an older NumPy than the pinned one, so give it an environment of its own:
`pip install -e . cuqipy==1.5.1 blackjax`.

A plain model takes `x` from coefficients in the singular basis of the data, `U^T A B = diag(s)`
with :math:`B^T D^T D B = I`, by one of three parametrisations of the same posterior:

- partly centred, :math:`w_i \sim N(0, d^{-c_i})`, :math:`x = B\, d^{(c - 1)/2} w`, with `c` near 1
  for coefficients that the data determine and near 0 for the others (Papaspiliopoulos, Roberts &
  Sköld 2003), here :math:`s_i^2 / (1 + s_i^2)`;
- non-centred, `c = 0`;
- whitened, for a linear operator and normal noise alone: given `d` and `l` a coefficient is normal,
  so it is its mean and its standard deviation times a standard normal.

The bulk ESS (ArviZ) of the logarithms of both precisions is that of draws after warmup, the least
of the two counts; their means and standard deviations, exact by a grid, are compared in ArviZ's
standard errors, and the posterior mean of `x` in exact standard deviations (root mean square).
Warmup and compilation are timed apart. `HybridGibbs` runs one chain, the others eight in a program.
Draws of `TemperedSMC` are no chain: their effective number is the posterior variance over the mean
squared error of the mean of a run.
"""

import argparse
import contextlib
import importlib
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.infer import NUTS

import numpyro_scores as ns
from benchmarks.deconvolution_problem import (
    BASIS,
    DATA,
    DIM,
    KERNEL,
    MATRIX,
    NOISE,
    RATE,
    ROTATED,
    SINGULAR,
    Exact,
    exact_posterior,
)
from benchmarks.efficiency import run

AGREEMENT = 4  # standard errors

BLUR = ns.inverse.Blur(jnp.asarray(KERNEL), DIM)
B, S, U_Y, Y = (jnp.asarray(a) for a in (BASIS, SINGULAR, ROTATED, DATA))


def precisions() -> tuple[Array, Array]:
    gamma = dist.Gamma(1.0, RATE)
    return jnp.asarray(numpyro.sample("d", gamma)), jnp.asarray(numpyro.sample("l", gamma))


def partly_centred(share: Any) -> Callable:
    """A model in which `w` has the standard deviation `d ** (-share / 2)`."""

    def model() -> None:
        d, precision = precisions()
        w = numpyro.sample("w", dist.Normal(0, d ** (-share / 2)).expand([DIM]).to_event(1))
        x = numpyro.deterministic("x", B @ (w * d ** ((share - 1) / 2)))
        numpyro.sample("y", dist.Normal(BLUR(x), precision**-0.5).to_event(1), obs=Y)

    return model


def whitened() -> None:
    d, precision = precisions()
    w = numpyro.sample("w", dist.Normal(0, 1).expand([DIM]).to_event(1))
    variance = 1 / (d + precision * S**2)
    mean = precision * S * U_Y * variance
    numpyro.deterministic("x", B @ (mean + jnp.sqrt(variance) * w))
    marginal = dist.Normal(0, jnp.sqrt(S**2 / d + 1 / precision)).to_event(1)
    numpyro.sample("y", marginal, obs=U_Y)


MODELS = {
    "non-centred": partly_centred(0.0),
    "partly centred": partly_centred(S**2 / (1 + S**2)),
    "whitened": whitened,
}
KERNELS = {
    "`MALT`": lambda model: ns.MALT(model, num_steps=20),
    "`MALA`": lambda model: ns.MALA(model, num_steps=20),
    "NumPyro `NUTS`": NUTS,
}


def signals(model: Callable, draws: np.ndarray) -> Array:
    """The signal of each draw of `(log d, log l, w)`."""

    def signal(z):
        values = {"d": jnp.exp(z[0]), "l": jnp.exp(z[1]), "w": z[2:]}
        found = numpyro.handlers.trace(numpyro.handlers.substitute(model, data=values))
        return found.get_trace()["x"]["value"]

    return jax.jit(jax.vmap(signal))(draws.reshape(-1, draws.shape[-1]))


class Found(NamedTuple):
    """The least ESS a second, and the largest error of a moment in standard errors."""

    speed: float
    error: float


def row(name: str, logs: np.ndarray, x: Any, seconds: float, warmup: float, exact: Exact) -> Found:
    """
    Print a line of the table.

    :param logs: draws of both logarithms, shape `(num_chains, num_draws, 2)`.
    :param x: draws of the signal, shape `(n, 64)`.
    """
    import arviz as az  # takes seconds, so not before the arguments are known to be right

    def of_each(f, **kwargs):
        return np.array([f(logs[..., k], **kwargs) for k in range(2)])

    ess = of_each(az.ess, method="bulk")
    mean, sd = logs.mean(axis=(0, 1)), logs.std(axis=(0, 1))
    errors = np.abs([mean - exact.mean, sd - exact.sd]) / [
        of_each(az.mcse, method="mean"),
        of_each(az.mcse, method="sd"),
    ]
    x_error = np.sqrt(np.mean(((np.mean(x, axis=0) - exact.x_mean) / exact.x_sd) ** 2))
    moments = " | ".join(f"{m:.2f} +- {s:.2f}" for m, s in zip(mean, sd, strict=True))
    print(
        f"| {name} | {logs.shape[0]} x {logs.shape[1]:,} | {seconds:.1f} | {warmup:.0f} | "
        f"{ess[0]:,.0f} | {ess[1]:,.0f} | {ess.min() / seconds:,.1f} | {moments} | "
        f"{errors.max():.1f} | {x_error:.3f} |",
        flush=True,
    )
    return Found(ess.min() / seconds, errors.max())


def ours(name: str, model: Callable, kernel: Callable, args: Any, exact: Exact) -> Found:
    key_d, key_l, key_w = random.split(random.key(0), 3)
    num_chains = args.num_chains
    z = {
        "d": 5 + random.normal(key_d, (num_chains,)),
        "l": 5 + random.normal(key_l, (num_chains,)),
        "w": random.normal(key_w, (num_chains, DIM)),
    }
    start = time.perf_counter()
    done = run(kernel(model), 1, z, num_chains, args.num_warmup, args.num_draws)
    warmup = time.perf_counter() - start - done.seconds
    x = signals(model, done.draws)
    return row(name, done.draws[..., :2], x, done.seconds, warmup, exact)


def hybrid_gibbs(args: Any, exact: Exact) -> Found:
    cuqi = importlib.import_module("cuqi")
    law, sampler = cuqi.distribution, cuqi.sampler
    np.random.seed(0)  # the generator that it uses
    problem = cuqi.testproblem.Deconvolution1D(dim=DIM, phantom="sinc", noise_std=NOISE)
    forward, data, _ = problem.get_components()
    np.testing.assert_allclose(forward.get_matrix().toarray(), MATRIX, atol=1e-12)
    np.testing.assert_allclose(np.asarray(data), DATA, atol=1e-12)
    d, precision = law.Gamma(1, RATE, name="d"), law.Gamma(1, RATE, name="precision")
    x = law.GMRF(np.zeros(DIM), lambda d: d, name="x")
    y = law.Gaussian(forward, lambda precision: 1 / precision, name="y")
    joint = law.JointDistribution(d, precision, x, y)(y=data)
    strategy = {
        "x": sampler.LinearRTO(maxit=60),
        "d": sampler.Conjugate(),
        "precision": sampler.Conjugate(),
    }
    gibbs = sampler.HybridGibbs(joint, strategy)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        start = time.perf_counter()
        gibbs.warmup(200)
        warm = time.perf_counter()
        gibbs.sample(args.num_sweeps)
        seconds = time.perf_counter() - warm
    kept = {name: s.samples[:, -args.num_sweeps :] for name, s in gibbs.get_samples().items()}
    logs = np.log(np.stack([kept["d"], kept["precision"]], axis=-1))
    return row("CUQIpy `HybridGibbs`", logs, kept["x"].T, seconds, warm - start, exact)


def tempered(args: Any, exact: Exact) -> None:
    smc = ns.TemperedSMC(MODELS["partly centred"], num_particles=2_000, progress_bar=False)
    start = time.perf_counter()
    smc.run(random.key(0))
    first = time.perf_counter() - start
    start = time.perf_counter()
    errors, z = [], []
    for seed in range(1, 1 + args.num_runs):
        smc.run(random.key(seed))
        samples = smc.get_samples()
        logs = np.stack([np.log(samples[name]) for name in "dl"], axis=-1)
        errors.append(logs.mean(axis=0) - exact.mean)
        z.append((smc.log_evidence - exact.log_evidence) / smc.log_evidence_error)
    seconds = (time.perf_counter() - start) / args.num_runs
    effective = exact.sd**2 / np.mean(np.square(errors), axis=0)
    print(
        f"\n`TemperedSMC`, partly centred, {args.num_runs} runs of 2,000 particles: {seconds:.2f} "
        f"s a run ({first:.0f} s the first), effective number of log d {effective[0]:,.0f}, of "
        f"log l {effective[1]:,.0f}: {effective.min() / seconds:,.0f} a second; log evidence "
        f"{smc.log_evidence:.2f} +- {smc.log_evidence_error:.2f} (exact {exact.log_evidence:.2f}), "
        f"root mean square error {np.sqrt(np.mean(np.square(z))):.1f} standard errors"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-chains", type=int, default=8)
    parser.add_argument("--num-warmup", type=int, default=1_000, help="draws, in hundreds")
    parser.add_argument("--num-draws", type=int, default=4_000, help="a chain, in hundreds")
    parser.add_argument("--num-sweeps", type=int, default=4_000, help="of HybridGibbs")
    parser.add_argument("--num-runs", type=int, default=20, help="of TemperedSMC")
    args = parser.parse_args()
    exact = exact_posterior()
    moments = [f"{m:.3f} +- {s:.3f}" for m, s in zip(exact.mean, exact.sd, strict=True)]
    print(f"exact: log d {moments[0]}, log l {moments[1]}\n")
    print(
        "| | chains x draws | s | warmup, s | ESS log d | ESS log l | least ESS/s | log d | log l "
        "| error, s.e. | x, sd |\n|---|---|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    try:
        theirs = hybrid_gibbs(args, exact)
    except ImportError:
        theirs = None
    found = {}
    for parametrisation, model in MODELS.items():
        for kernel_name, kernel in KERNELS.items():
            name = f"{kernel_name}, {parametrisation}"
            found[name] = ours(name, model, kernel, args, exact)
    tempered(args, exact)
    if theirs is None:
        print("\nCUQIpy cannot be imported: nothing to compare with (see the docstring).")
    else:
        print(f"\nESS a second over that of `HybridGibbs`, where the error is below {AGREEMENT}:")
        for name, result in found.items():
            if result.error < AGREEMENT:
                print(f"  {name}: {result.speed / theirs.speed:,.0f}")


if __name__ == "__main__":
    main()
