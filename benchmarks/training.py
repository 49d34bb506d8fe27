# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
`fit` beside a hand-written loop of the same maths, compiled, in steady state: the time of a step
and its ratio, once for a network of matrix products and once for one of convolutions, with the
steps by hand in a loop on the device and one by one. And the peak memory of a long training, which
must not grow.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax, random

import numpyro_scores as ns

OBJECTIVE = ns.objectives.DenoisingScoreMatching(ns.VarianceExploding(0.02, 10.0))
OPTIMIZER = optax.adam(1e-3)
BATCH_SIZE, EMA_DECAY = 128, 0.999


def network(kind: str) -> Any:
    if kind == "MLPDenoiser":
        return ns.nn.MLPDenoiser((8, 8), rngs=nnx.Rngs(0), num_layers=2)
    return ns.nn.UNetDenoiser((8, 8), rngs=nnx.Rngs(0))


def make_step(kind: str, data: Any) -> tuple[Callable, Any]:
    """One step of a training written by hand, and where it starts."""
    graphdef, params = nnx.split(network(kind))

    def loss_fn(params, x, key):
        return OBJECTIVE(nnx.merge(graphdef, params), x, key=key)

    def step(t, carry):
        params, average, opt_state, _ = carry
        key_batch, key_loss = random.split(random.fold_in(random.key(0), t))
        x = data[random.randint(key_batch, (BATCH_SIZE,), 0, len(data))]
        loss, grad = jax.value_and_grad(loss_fn)(params, x, key_loss)
        updates, opt_state = OPTIMIZER.update(grad, opt_state, params)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1 - EMA_DECAY)
        return params, average, opt_state, loss

    copy = jax.tree.map(jnp.array, params)
    return step, (copy, params, OPTIMIZER.init(params), jnp.zeros(()))


def by_hand(kind: str, data: Any, num_steps: int, in_loop: bool) -> Callable[[], float]:
    """Seconds a step, of one run of the compiled loop."""
    step, carry = make_step(kind, data)
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


def by_fit(kind: str, data: Any, num_steps: int) -> float:
    """Seconds a step, without what comes before the end of the first chunk: tracing, compiling."""
    seen = []
    ns.fit(
        network(kind),
        OBJECTIVE,
        data,
        key=random.key(0),
        optimizer=OPTIMIZER,
        num_steps=num_steps,
        batch_size=BATCH_SIZE,
        ema_decay=EMA_DECAY,
        callbacks=[lambda progress: seen.append((progress.step, time.perf_counter()))],
        progress_bar=False,
    )
    (first, start), (last, stop) = seen[0], seen[-1]
    return (stop - start) / (last - first)


def compare(kind: str, data: Any, num_steps: int, repeats: int) -> None:
    loops = {in_loop: by_hand(kind, data, num_steps, in_loop) for in_loop in (True, False)}
    times: dict[str, list[float]] = {"fit": [], "loop": [], "calls": []}
    # In turn, so that a machine whose speed drifts changes the ratio little.
    for _ in range(repeats):
        times["fit"].append(by_fit(kind, data, num_steps))
        times["calls"].append(loops[False]())
        times["loop"].append(loops[True]())
    median = {name: statistics.median(values) for name, values in times.items()}
    for name in ("calls", "loop"):
        print(
            f"{kind}: fit {1e3 * median['fit']:.3f} ms a step, by hand ({name}) "
            f"{1e3 * median[name]:.3f} ms, ratio {median['fit'] / median[name]:.3f}"
        )


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
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory-steps", type=int, default=10_000)
    options = parser.parse_args()
    data = np.random.default_rng(0).normal(size=(2_000, 8, 8)).astype(np.float32)
    memory(data, options.memory_steps)
    compare("MLPDenoiser", jnp.asarray(data), options.num_steps, options.repeats)
    compare("UNetDenoiser", jnp.asarray(data), max(60, options.num_steps // 20), options.repeats)


if __name__ == "__main__":
    main()
