# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Effective samples a second and a gradient of the kernels of NumPyro, of BlackJAX and of this package
on targets with known answers, and whether they agree with them; a table a target.

All kernels start at the same points and make the same number of draws with as many chains, mapped
into one program. Between two draws lie twenty gradients; for NUTS and MAMS a trajectory, for
replica exchange twenty on each of its rungs. All adapt a metric in warmup, except BlackJAX's MALA,
which has none. What is timed are compiled draws after warmup: chunks of draws in one `lax.scan`,
at the speed of the median chunk, so that a pause of the machine does not count.

The least ESS is the bulk ESS (ArviZ) of the parameter that has least; a gradient of NUTS is a step
of a trajectory, though in one program all chains wait for the longest. Errors of the means and of
the standard deviations are the largest over the parameters, in ArviZ's standard errors: up to 4 is
agreement. A kernel whose R-hat is above 1.05 has no ESS to speak of. An unadjusted kernel is biased
by its step size, here the default one; the last column says how far off its worst standard
deviation is.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.flatten_util import ravel_pytree
from numpyro.infer import NUTS, BarkerMH

import numpyro_scores as ns
from benchmarks._timing import timed
from benchmarks.others import BlackJAXMALA, Vectorized
from benchmarks.targets import TARGETS, Target, starts

NUM_STEPS = 20
CHUNK = 100
LARGEST_RHAT = 1.05


class Entry(NamedTuple):
    """
    - **make** - a kernel of a target and its potential energy.
    - **exact** - whether there is no bias.
    - **calls** - of `sample`, between two draws.
    """

    make: Callable[[Target, Callable], Any]
    exact: bool = True
    calls: int = 1


def replica_exchange(target: Target, potential_fn: Callable) -> ns.ReplicaExchange:
    ladder = ns.InverseTemperatures(target.ladder)
    return ns.ReplicaExchange(ns.MALA(target.model, num_steps=NUM_STEPS), ladder, adapt_ladder=True)


def unadjusted(kernel: Callable, num_steps: int = NUM_STEPS, **settings: Any) -> Entry:
    def make(target: Target, potential_fn: Callable) -> Any:
        return kernel(target.model, num_steps=num_steps, adapt_mass_matrix=True, **settings)

    return Entry(make, exact=False)


def adjusted(kernel: Callable, **settings: Any) -> Entry:
    return Entry(lambda target, potential_fn: kernel(target.model, **settings))


KERNELS = {
    "NumPyro `NUTS`": adjusted(NUTS),
    "NumPyro `BarkerMH`": Entry(
        lambda target, potential_fn: Vectorized(BarkerMH(potential_fn=potential_fn)),
        calls=NUM_STEPS,
    ),
    "BlackJAX `mala`": Entry(
        lambda target, potential_fn: Vectorized(BlackJAXMALA(potential_fn, NUM_STEPS))
    ),
    "`ULA`": unadjusted(ns.ULA),
    "`OverdampedLangevin`, `LeimkuhlerMatthews`": unadjusted(
        ns.OverdampedLangevin, integrator=ns.LeimkuhlerMatthews()
    ),
    "`SKROCK`": unadjusted(ns.SKROCK, num_steps=NUM_STEPS // 5),
    "`UnderdampedLangevin`": unadjusted(ns.UnderdampedLangevin),
    "`MALA`": adjusted(ns.MALA, num_steps=NUM_STEPS),
    "`MALA`, dense metric": adjusted(ns.MALA, num_steps=NUM_STEPS, dense_mass=True),
    "`MALT`": adjusted(ns.MALT, num_steps=NUM_STEPS),
    "`MAMS`": adjusted(ns.MAMS),
    "`MCLMC`": unadjusted(ns.MCLMC, num_steps=NUM_STEPS // 2),
    "`ReplicaExchange` of `MALA`": Entry(replica_exchange),
}
OURS, OURS_DENSE, THEIRS = "`MALA`", "`MALA`, dense metric", "BlackJAX `mala`"


class Run(NamedTuple):
    """
    - **draws** - after warmup, flat, shape `(num_chains, num_draws, d)`.
    - **num_grads** - of all these draws.
    - **diverging** - the share of them that diverged.
    - **seconds** - for these draws, at the median speed.
    - **advance**, **state** - the compiled program for one chunk, and where it stands.
    """

    draws: np.ndarray
    num_grads: int
    diverging: float
    seconds: float
    advance: Callable
    state: Any


def chunk_of(kernel: Any, calls: int) -> Callable:
    """From a state of many chains to the next: draws on the way, gradients, divergences."""

    def call(state, _):
        state = kernel.sample(state, (), {})
        leapfrogs = getattr(state, "num_steps", np.array(1))
        num_grads = getattr(state, "num_grad_evals", leapfrogs)
        return state, (num_grads, getattr(state, "diverging", np.array(False)))

    def draw(state, _):
        state, (num_grads, diverging) = lax.scan(call, state, length=calls)
        x = jax.vmap(lambda z: ravel_pytree(z)[0])(state.z)
        # A kernel that counts no chains counts for all of them.
        num_grads = jnp.broadcast_to(num_grads.T, (len(x), calls)).sum()
        return state, (x, num_grads, jnp.mean(diverging))

    return jax.jit(lambda state: lax.scan(draw, state, length=CHUNK))


def run(kernel: Any, calls: int, z: Any, num_chains: int, num_warmup: int, num_draws: int) -> Run:
    def init(keys, z):
        return kernel.init(keys, calls * num_warmup, z, (), {})

    # Under jit, what `init` computes op by op is compiled in one go.
    state = jax.jit(init)(random.split(random.key(1), num_chains), z)
    advance = chunk_of(kernel, calls)
    for _ in range(num_warmup // CHUNK):
        state, _ = advance(state)
    seconds, chunks = [], []
    for _ in range(num_draws // CHUNK):
        elapsed, (state, chunk) = timed(advance, state)
        seconds.append(elapsed)
        chunks.append(chunk)
    x, num_grads, diverging = (np.concatenate(leaves) for leaves in zip(*chunks, strict=True))
    return Run(
        draws=x.swapaxes(0, 1).astype(float),
        num_grads=int(num_grads.sum()),
        diverging=float(diverging.mean()),
        seconds=len(seconds) * statistics.median(seconds),
        advance=advance,
        state=state,
    )


class Judgement(NamedTuple):
    """The worst parameter's bulk ESS, R-hat, and error in standard errors."""

    ess: float
    rhat: float
    mean_error: float
    sd_error: float
    sd_ratio: float


def judge(draws: np.ndarray, target: Target) -> Judgement:
    import arviz as az  # takes seconds, so not before the arguments are known to be right

    def of_each(f, **kwargs):
        return np.array([f(draws[..., k], **kwargs) for k in range(draws.shape[-1])])

    mean, sd = draws.mean(axis=(0, 1)), draws.std(axis=(0, 1))
    ratio = sd / target.sd
    return Judgement(
        ess=of_each(az.ess, method="bulk").min(),
        rhat=of_each(az.rhat).max(),
        mean_error=np.max(np.abs(mean - target.mean) / of_each(az.mcse, method="mean")),
        sd_error=np.max(np.abs(sd - target.sd) / of_each(az.mcse, method="sd")),
        sd_ratio=ratio[np.argmax(np.abs(np.log(ratio)))],
    )


def row(name: str, entry: Entry, done: Run, found: Judgement) -> str:
    per_gradient = 1e3 * found.ess / done.num_grads
    numbers = f"{found.ess / done.seconds:,.0f} | {per_gradient:.3g}"
    agreement = f"{found.mean_error:.1f} | {found.sd_error:.1f} | {found.sd_ratio - 1:+.1%}"
    if not found.rhat < LARGEST_RHAT:
        numbers, agreement = "does not mix |", "| |"
    elif not entry.exact:
        agreement += ", biased"
    rhat = f"{found.rhat:.3f}" if found.rhat < 100 else "over 100"
    if done.diverging > 0:
        rhat += f", {done.diverging:.1%} diverging"
    return f"| {name} | {numbers} | {rhat} | {agreement} |"


def alternately(first: Run, second: Run, repeats: int) -> tuple[float, float]:
    """Seconds of a draw of each, the median of runs in turn."""
    seconds = [(timed(r.advance, r.state)[0] for r in (first, second)) for _ in range(repeats)]
    a, b = (statistics.median(s) / CHUNK for s in zip(*seconds, strict=True))
    return a, b


def compare(target: Target, args: argparse.Namespace) -> None:
    print(f"\n### {target.name}\n")
    print("| kernel | ESS/s | ESS/1,000 gradients | R-hat | mean, s.e. | sd, s.e. | worst sd |")
    print("|---|---|---|---|---|---|---|", flush=True)
    runs, ess = {}, {}
    potential_fn, z = starts(target, random.key(0), args.num_chains)
    sizes = args.num_chains, args.num_warmup, args.num_draws
    for name in args.kernels:
        entry = KERNELS[name]
        done = run(entry.make(target, potential_fn), entry.calls, z, *sizes)
        found = judge(done.draws, target)
        runs[name], ess[name] = done, found.ess
        print(row(name, entry, done, found), flush=True)
    print()
    for name in (OURS, OURS_DENSE):
        if not {name, THEIRS} <= set(runs):
            continue
        ours, theirs = alternately(runs[name], runs[THEIRS], args.repeats)
        print(
            f"{name} against {THEIRS}, in turn: time of a step "
            f"{1e6 * ours / args.num_chains / NUM_STEPS:.2f} / "
            f"{1e6 * theirs / args.num_chains / NUM_STEPS:.2f} us a chain = {ours / theirs:.2f}; "
            f"least ESS/s {ess[name] / ours / (ess[THEIRS] / theirs):.2f} times",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--num-chains", type=int, default=16)
    parser.add_argument("--num-warmup", type=int, default=1_000, help="draws, in hundreds")
    parser.add_argument("--num-draws", type=int, default=1_000, help="a chain, in hundreds")
    parser.add_argument("--repeats", type=int, default=11, help="of the comparison in turn")
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws")
    args = parser.parse_args()
    if args.quick:
        args.num_warmup, args.num_draws, args.repeats = 200, 200, 3
    start = time.perf_counter()
    for name in args.targets:
        compare(TARGETS[name](), args)
    print(f"\n{time.perf_counter() - start:.0f} s, {args.num_chains} chains", flush=True)


if __name__ == "__main__":
    main()
