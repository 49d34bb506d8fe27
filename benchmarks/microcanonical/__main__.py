# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Gradients until the second moments are right: the table of arXiv 2503.01707, measured again.

Of each chain the running means of the figures of a target (mostly the squares of its parameters)
are compared with the truth,

.. math:: b^2 = \max_k (m_k - \mu_k)^2 / \sigma_k^2,

and what is printed are the gradients a chain after which the median of `b^2` over the chains stays
below 0.01. Warmup is not counted, as in the paper; it takes 2,000 draws of NUTS and of MAMS and
10,000 steps of MCLMC, of BlackJAX's as of ours, or with `--warmup` a share of these. Each target
with each sampler is a piece of its own that ends when the number is known, when the budget of
gradients is spent ("> N") or when time is up ("> N", too), and leaves a file in `results`.

The last number of a line is the bias: with the noise of the mean of all chains taken off,

.. math:: \sqrt{2\, \overline{((m_k - \mu_k)^2 - s_k^2) / \sigma_k^2}},

over all `k`, which of a Gaussian is the relative error of its variances.

`python -m benchmarks.microcanonical --targets gaussian banana --samplers NUTS MAMS`
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from numpyro.infer import NUTS

import numpyro_scores as ns
from benchmarks.microcanonical.blackjax_samplers import BlackJAXMAMS, BlackJAXMCLMC
from benchmarks.microcanonical.closed_form import CLOSED_FORM
from benchmarks.microcanonical.posteriors import MODELS, posterior
from benchmarks.microcanonical.problem import Problem, starts, worst_error
from benchmarks.others import Vectorized

RESULTS = Path(__file__).parent / "results"
LOW_ERROR = 0.01
NUM_WARMUP = 2_000
SMALLEST_NUM_DRAWS = 400
NUM_CHAINS = 32


class Sampler(NamedTuple):
    """
    - **make** - a kernel of many chains, by a potential, the draws of warmup and whether it learns
      a metric.
    - **num_warmup** - draws of warmup.
    - **chunk** - draws of one call of the compiled program.
    - **is_made_by_init** - whether `init` makes all of the warmup.
    """

    make: Callable[[Callable, int, bool], Any]
    num_warmup: int = NUM_WARMUP
    chunk: int = 100
    is_made_by_init: bool = False

    def length(self, share: float) -> int:
        """Draws of a share of the warmup, in chunks."""
        return self.chunk * max(1, round(share * self.num_warmup / self.chunk))


def ours(kernel: Callable, num_warmup: int = NUM_WARMUP, chunk: int = 100, **settings: Any):
    def make(potential: Callable, num_warmup: int, has_metric: bool) -> Any:
        return kernel(potential_fn=potential, adapt_mass_matrix=has_metric, **settings)

    return Sampler(make, num_warmup, chunk)


def theirs(kernel: Callable, num_warmup: int, chunk: int = 100) -> Sampler:
    def make(potential: Callable, num_warmup: int, has_metric: bool) -> Any:
        return Vectorized(kernel(potential, num_warmup, has_metric))

    return Sampler(make, num_warmup, chunk, is_made_by_init=True)


NUM_STEPS = 10_000
SAMPLERS = {
    "NUTS": ours(NUTS),
    "MAMS": ours(ns.MAMS),
    "MAMS-half-pi": ours(ns.MAMS, trajectory_length=np.pi / 2),
    "MAMS-UTurn": ours(ns.MAMS, trajectory_length=ns.UTurnLength()),
    "MAMS-autocorrelation": ours(ns.MAMS, trajectory_length=ns.AutocorrelationLength()),
    "BlackJAX-MAMS": theirs(BlackJAXMAMS, NUM_WARMUP),
    "MCLMC": ours(ns.MCLMC, NUM_STEPS, 500, num_steps=1),
    "MCLMC-0.25%": ours(ns.MCLMC, NUM_STEPS, 500, num_steps=1, desired_bias=0.0025),
    "MCLMC-2%": ours(ns.MCLMC, NUM_STEPS, 500, num_steps=1, desired_bias=0.02),
    "MCLMC-4%": ours(ns.MCLMC, NUM_STEPS, 500, num_steps=1, desired_bias=0.04),
    "BlackJAX-MCLMC": theirs(BlackJAXMCLMC, NUM_STEPS, 500),
}
TABLE = ["NUTS", "MAMS", "BlackJAX-MAMS", "MCLMC", "BlackJAX-MCLMC"]


def problem_of(name: str) -> Problem:
    return CLOSED_FORM[name]() if name in CLOSED_FORM else posterior(name)


class Seen(NamedTuple):
    """
    What is known after some draws.

    - **errors** - medians over the chains of `b^2` after each draw.
    - **num_grads** - a chain, of all these draws.
    - **means** - of each chain, shape `(num_chains, k)`.
    - **state** - where the chains stand.
    """

    errors: np.ndarray
    num_grads: float
    means: np.ndarray
    state: Any

    @property
    def crossing(self) -> int:
        """After so many draws the error stays small."""
        above = np.flatnonzero(~(self.errors < LOW_ERROR))
        return int(above[-1]) + 1 if above.size else 0

    def is_known(self, beyond: float) -> bool:
        """Whether so much more has been seen below it."""
        num_draws = len(self.errors)
        return num_draws >= SMALLEST_NUM_DRAWS and num_draws > beyond * self.crossing


def program(kernel: Any, figures: Callable, length: int) -> Callable:
    """From a state to the next: figures on the way, shape `(length, num_chains, k)`, gradients."""

    def draw(state, _):
        state = kernel.sample(state, (), {})
        num_grads = jnp.asarray(getattr(state, "num_grad_evals", getattr(state, "num_steps", 0)))
        return state, (jax.vmap(figures)(state.z), jnp.mean(num_grads.astype(float)))

    return jax.jit(lambda state: lax.scan(draw, state, length=length))


def watch(sampler: Sampler, problem: Problem, args: argparse.Namespace) -> Seen:
    """Draws until the number is known, or the budget or the CPU time is spent."""
    begin, budget, seconds = time.process_time(), args.budget, args.seconds
    num_warmup = sampler.length(args.warmup)
    kernel = sampler.make(problem.potential, num_warmup, problem.has_variances)
    z = starts(problem, args.num_chains)
    keys = random.split(random.key(1), args.num_chains)
    state = jax.jit(lambda keys, z: kernel.init(keys, num_warmup, z, (), {}))(keys, z)
    advance = program(kernel, problem.figures, sampler.chunk)
    total, num_draws, num_grads, errors = 0.0, 0, 0.0, []
    for _ in range(0 if sampler.is_made_by_init else num_warmup // sampler.chunk):
        state, (_, grads) = advance(state)
        num_grads += float(jnp.sum(grads))
        if time.process_time() - begin > seconds:
            break  # what it has cost is then all that is known
    else:
        num_grads = 0.0
    seen = None
    while seen is None or not (seen.is_known(args.beyond) or num_grads > budget):
        state, (figures, grads) = advance(state)
        sums = total + np.cumsum(np.asarray(figures, float), axis=0)
        counts = num_draws + 1 + np.arange(len(sums))
        errors.append(np.median(worst_error(sums / counts[:, None, None], problem), axis=1))
        total, num_draws = sums[-1], int(counts[-1])
        num_grads += float(jnp.sum(grads))
        seen = Seen(np.concatenate(errors), num_grads, total / num_draws, state)
        if time.process_time() - begin > seconds:
            break
    return seen


def bias(means: np.ndarray, problem: Problem) -> float:
    noise = means.var(axis=0, ddof=1) / len(means)
    squares = ((means.mean(axis=0) - problem.mean) ** 2 - noise) / problem.variance
    return float(np.sign(squares.mean()) * np.sqrt(2 * abs(squares.mean())))


def measure(target: str, name: str, args: argparse.Namespace) -> dict[str, Any]:
    problem, begin = problem_of(target), time.process_time()
    seen = watch(SAMPLERS[name], problem, args)
    per_draw = seen.num_grads / len(seen.errors)
    noise = np.mean(seen.means.var(axis=0, ddof=1) / args.num_chains / problem.variance)
    is_reached = seen.errors[-1] < LOW_ERROR
    result = {
        "target": target,
        "sampler": name,
        "chains": args.num_chains,
        "draws of warmup": SAMPLERS[name].length(args.warmup),
        "reached": bool(is_reached),
        "gradients": round(per_draw * seen.crossing if is_reached else seen.num_grads),
        "gradients a draw": round(per_draw, 2),
        "final error": round(float(seen.errors[-1]), 5),
        "bias": round(bias(seen.means, problem), 4),
        "noise of it": round(float(np.sqrt(2 * noise)), 4),
        "CPU seconds": round(time.process_time() - begin, 1),
    }
    if hasattr(seen.state, "variance_error"):
        result["variance_error"] = round(float(jnp.median(seen.state.variance_error)), 5)
    return result


def gradients_of(result: dict[str, Any]) -> str:
    chains = "" if result["chains"] == NUM_CHAINS else f" ({result['chains']} chains)"
    return f"{'' if result['reached'] else '> '}{result['gradients']:,}{chains}"


def line(result: dict[str, Any]) -> str:
    return (
        f"| {result['target']} | {result['sampler']} | {gradients_of(result)} | "
        f"{result['gradients a draw']} | "
        f"{result['final error']:.2g} | {result['bias']:+.2%} ± {result['noise of it']:.2%} | "
        f"{result['CPU seconds']:.0f} |"
    )


HEAD = (
    "| target | sampler | gradients | a draw | last error | bias | CPU s |\n"
    "|---|---|---|---|---|---|---|"
)


def known(targets: list[str], samplers: list[str]) -> Iterator[str]:
    """A line for each target, of the gradients that are in `results`, and those of the paper."""
    yield "| target | " + " | ".join(f"`{name}`" for name in samplers) + " | paper: NUTS, MAMS |"
    yield "|---" * (len(samplers) + 2) + "|"
    for target in targets:
        cells = []
        for name in samplers:
            path = RESULTS / f"{target}-{name}.json"
            result = json.loads(path.read_text()) if path.exists() else None
            cells.append(gradients_of(result) if result else "")
        published = CLOSED_FORM[target]().published if target in CLOSED_FORM else None
        paper = ", ".join(f"{number:,.0f}" for number in published) if published else "other data"
        yield f"| {target} | {' | '.join(cells)} | {paper} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    targets = [*CLOSED_FORM, *MODELS]
    parser.add_argument("--targets", nargs="+", choices=targets, default=targets)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=TABLE)
    parser.add_argument("--num-chains", type=int, default=NUM_CHAINS)
    parser.add_argument("--budget", type=float, default=5e6, help="gradients a chain")
    parser.add_argument("--seconds", type=float, default=240, help="of CPU time, a piece")
    parser.add_argument("--warmup", type=float, default=1.0, help="share of the usual length")
    parser.add_argument("--beyond", type=float, default=1.3, help="draws over those needed")
    parser.add_argument("--known", action="store_true", help="print what is in `results`")
    args = parser.parse_args()
    if args.known:
        print("\n".join(known(args.targets, args.samplers)))
        return
    print(HEAD, flush=True)
    RESULTS.mkdir(exist_ok=True)
    for target in args.targets:
        for name in args.samplers:
            result = measure(target, name, args)
            path = RESULTS / f"{target}-{name}.json"
            path.write_text(json.dumps(result, indent=1) + "\n")
            print(line(result), flush=True)


if __name__ == "__main__":
    main()
