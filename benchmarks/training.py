# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
`fit` beside a hand-written loop of the same maths, compiled, in steady state: the time of a step
and its ratio, once for a network of matrix products and once for one of convolutions, with the
steps by hand in a loop on the device and one by one. And the peak memory of a long training, which
must not grow.

On a GPU, a U-Net for pictures of 28 x 28 in batches of 256, in float32 and in bfloat16, with the
share of the device's peak that the operations of a step come to.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax, random

import numpyro_scores as ns

OBJECTIVE = ns.objectives.DenoisingScoreMatching(ns.VarianceExploding(0.02, 10.0))
OPTIMIZER = optax.adam(1e-3)
EMA_DECAY = 0.999

# Dense operations a second, of vendors' data sheets; float32 products are made in TensorFloat-32.
PEAKS = {
    "H100": {"bfloat16": 989e12, "float32": 495e12},
    "H200": {"bfloat16": 989e12, "float32": 495e12},
    "A100": {"bfloat16": 312e12, "float32": 156e12},
}


class Case(NamedTuple):
    """A training: the network, the shape of a point, the points of a batch and their precision."""

    kind: str
    shape: tuple[int, int]
    batch_size: int = 128
    precision: str | None = None

    def network(self) -> Any:
        if self.kind == "MLPDenoiser":
            return ns.nn.MLPDenoiser(self.shape, rngs=nnx.Rngs(0), num_layers=2)
        return ns.nn.UNetDenoiser(self.shape, rngs=nnx.Rngs(0))

    def data(self) -> jax.Array:
        return random.normal(random.key(0), (2_000, *self.shape))


def make_step(case: Case) -> tuple[Callable, Any]:
    """One step of a training written by hand, and where it starts."""
    graphdef, params = nnx.split(case.network())
    data = case.data()

    def cast(tree):
        if case.precision is None:
            return tree
        return jax.tree.map(lambda x: x.astype(case.precision), tree)

    def loss_fn(params, x, key):
        loss = OBJECTIVE(nnx.merge(graphdef, cast(params)), cast(x), key=key)
        return loss.astype(float)

    def step(t, carry):
        params, average, opt_state, _ = carry
        key_batch, key_loss = random.split(random.fold_in(random.key(0), t))
        x = data[random.randint(key_batch, (case.batch_size,), 0, len(data))]
        loss, grad = jax.value_and_grad(loss_fn)(params, x, key_loss)
        updates, opt_state = OPTIMIZER.update(grad, opt_state, params)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1 - EMA_DECAY)
        return params, average, opt_state, loss

    copy = jax.tree.map(jnp.array, params)
    return step, (copy, params, OPTIMIZER.init(params), jnp.zeros(()))


def by_hand(case: Case, num_steps: int, in_loop: bool) -> Callable[[], float]:
    """Seconds a step, of one run of the compiled loop."""
    step, carry = make_step(case)
    one = jax.jit(step, donate_argnums=1)

    @partial(jax.jit, donate_argnums=0)
    def loop(carry, start, stop):
        return lax.fori_loop(start, stop, step, carry)

    def run(start: int, stop: int) -> None:
        nonlocal carry
        if in_loop:
            carry = loop(carry, start, stop)
        else:
            for t in range(start, stop):
                carry = one(t, carry)
        jax.block_until_ready(carry)

    run(0, 1)

    def measure() -> float:
        start = time.perf_counter()
        run(1, num_steps)
        return (time.perf_counter() - start) / (num_steps - 1)

    return measure


def by_fit(case: Case, num_steps: int) -> float:
    """Seconds a step, without what comes before the end of the first chunk: tracing, compiling."""
    seen = []
    ns.fit(
        case.network(),
        OBJECTIVE,
        case.data(),
        key=random.key(0),
        optimizer=OPTIMIZER,
        num_steps=num_steps,
        batch_size=case.batch_size,
        precision=case.precision,
        ema_decay=EMA_DECAY,
        callbacks=[lambda progress: seen.append((progress.step, time.perf_counter()))],
        progress_bar=False,
    )
    (first, start), (last, stop) = seen[0], seen[-1]
    return (stop - start) / (last - first)


def compare(case: Case, num_steps: int, repeats: int) -> float:
    """Print how `fit` compares with both loops; seconds of a step of `fit`."""
    loops = {"calls": by_hand(case, num_steps, False), "loop": by_hand(case, num_steps, True)}
    times: dict[str, list[float]] = {"fit": [], "loop": [], "calls": []}
    # In turn, so that a machine whose speed drifts changes the ratio little.
    for _ in range(repeats):
        times["fit"].append(by_fit(case, num_steps))
        for name, loop in loops.items():
            times[name].append(loop())
    median = {name: statistics.median(values) for name, values in times.items()}
    for name in loops:
        ratios = [fit / other for fit, other in zip(times["fit"], times[name], strict=True)]
        print(
            f"{case.kind} {case.precision or 'float32'}: fit {1e3 * median['fit']:.3f} ms a step, "
            f"by hand ({name}) {1e3 * median[name]:.3f} ms, median ratio of {repeats} pairs "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )
    return median["fit"]


def on_gpu(num_steps: int, repeats: int) -> None:
    if jax.default_backend() != "gpu":
        print("no GPU at hand: nothing is measured of one")
        return
    device = jax.devices()[0].device_kind
    peaks = next((peaks for name, peaks in PEAKS.items() if name in device), None)
    for precision in (None, "bfloat16"):
        case = Case("UNetDenoiser", (28, 28), 256, precision)
        seconds = compare(case, num_steps, repeats)
        step, carry = make_step(case)
        costs: Any = jax.jit(step).lower(0, carry).compile().cost_analysis()
        flops = costs["flops"]
        share = "" if peaks is None else f", {flops / seconds / peaks[precision or 'float32']:.1%}"
        print(f"{device}: {flops / 1e9:.1f} GFLOP a step{share} of the peak", flush=True)


def memory(data: Any, num_steps: int) -> None:
    peaks = []

    def peak(progress: Any) -> None:
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)

    module = ns.nn.MLPDenoiser((8, 8), rngs=nnx.Rngs(0), hidden_features=64, num_layers=1)
    ns.fit(
        module,
        OBJECTIVE,
        data,
        key=random.key(0),
        num_steps=num_steps,
        batch_size=32,
        callbacks=[peak],
        progress_bar=False,
    )
    early = peaks[len(peaks) // 10]
    print(
        f"peak memory of {num_steps} steps: {early:.0f} MiB after a tenth, {peaks[-1]:.0f} MiB at "
        f"the end, {peaks[-1] / early - 1:+.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-steps", type=int, default=5_000, help="steps of a measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-steps", type=int, default=10_000)
    options = parser.parse_args()
    data = np.random.default_rng(0).normal(size=(2_000, 8, 8)).astype(np.float32)
    memory(data, options.memory_steps)
    compare(Case("MLPDenoiser", (8, 8)), options.num_steps, options.repeats)
    few = max(60, options.num_steps // 20)
    compare(Case("UNetDenoiser", (8, 8)), few, options.repeats)
    on_gpu(few, options.repeats)


if __name__ == "__main__":
    main()
