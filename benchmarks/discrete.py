# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Discrete models, each beside what it is measured by, in one run on one core:

- `BlockGibbs` on the 64 x 64 Ising torus: spin updates a second, over the same maths in a bare
  jitted `lax.scan`, and over hamon's block sampling, if that is installed;
- `SwendsenWang` at the critical coupling: effective samples of |m| a second, over `BlockGibbs`;
- persistent contrastive divergence of an RBM with 64 visible and 64 hidden units on the digits by
  `fit`: epochs a second, beside scikit-learn's, and the pseudo-likelihood after 50 epochs. `fit`
  compiles at every call: its time is the slope between a short and a long run.
"""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jax import Array, lax, random
from numpyro.diagnostics import effective_sample_size
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM

import numpyro_scores as ns
from benchmarks import hamon_sweeps
from benchmarks._timing import timed

SIDE = 64
CRITICAL = float(np.log(1 + np.sqrt(2)) / 2)
BATCH = 128
EPOCHS = 50


def ising(coupling: float) -> None:
    numpyro.sample("x", ns.Ising((SIDE, SIDE), coupling))


def chains(kernel: Any, num_chains: int, impl: str | None = None) -> tuple[Any, Any]:
    """A compiled draw of vectorized chains, and a state to start from."""
    state = kernel.init(random.split(random.key(0, impl=impl), num_chains), 0, None, (), {})
    return jax.jit(lambda state: kernel.sample(state, (), {})), state


@partial(jax.jit, static_argnums=2)
def bare(key: Array, blocks: tuple[Array, Array], num_sweeps: int) -> tuple[Array, Array]:
    """Checkerboard sweeps of lattices whose colours are packed, as arrays of half the columns."""
    odd = (jnp.arange(SIDE) % 2 == 1)[:, None]

    def update(other: Array, key: Array, shift: int) -> Array:
        beside = jnp.where(odd, jnp.roll(other, -shift, -1), jnp.roll(other, shift, -1))
        field = other + jnp.roll(other, 1, -2) + jnp.roll(other, -1, -2) + beside
        up = random.uniform(key, other.shape) < jax.nn.sigmoid(2 * CRITICAL * field)
        return jnp.where(up, 1.0, -1.0)

    def sweep(blocks: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        key_black, key_white = random.split(key)
        black = update(blocks[1], key_black, 1)
        return (black, update(black, key_white, -1)), None

    return lax.scan(sweep, blocks, random.split(key, num_sweeps))[0]


def bonds(spins: Array) -> float:
    """Mean product of neighbours."""
    s = np.asarray(spins, float)
    return float(np.mean([np.mean(s * np.roll(s, 1, axis)) for axis in (-1, -2)]))


def spin_updates() -> None:
    if not hamon_sweeps.is_there():
        print("NOT COMPARED WITH HAMON: it is not installed (pip install hamon, Python 3.12+)")
    for impl in ("threefry2x32", "rbg"):
        for num_chains, num_sweeps in ((1, 1_000), (64, 200)):
            compare_sweeps(impl, num_chains, num_sweeps)


def compare_sweeps(impl: str, num_chains: int, num_sweeps: int, repeats: int = 7) -> None:
    kernel = ns.BlockGibbs(partial(ising, CRITICAL), num_steps=num_sweeps)
    draw, state = chains(kernel, num_chains, impl)
    key = random.key(0, impl=impl)
    blocks = (jnp.ones((num_chains, SIDE, SIDE // 2)),) * 2
    rows = {
        "BlockGibbs": partial(draw, state),
        "a bare scan": partial(bare, key, blocks, num_sweeps),
    }
    if hamon_sweeps.is_there():
        theirs = hamon_sweeps.sweeps(SIDE, CRITICAL, num_chains, num_sweeps)
        rows["hamon"] = partial(theirs, key)
        if num_chains > 1:  # the same law, from other starts
            found = bonds(theirs(key)), bonds(draw(draw(state)).z["x"])
            print(f"mean product of neighbours: hamon {found[0]:.3f}, BlockGibbs {found[1]:.3f}")
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for repeat in range(repeats + 1):
        for name, run in rows.items():
            elapsed, _ = timed(run)
            if repeat:  # the first compiles
                seconds[name].append(elapsed)
    updates = num_chains * num_sweeps * SIDE**2 / 1e6
    medians = {name: float(np.median(s)) for name, s in seconds.items()}
    speeds = ", ".join(f"{name} {updates / median:.1f}" for name, median in medians.items())
    times = ", ".join(
        f"{median / medians['BlockGibbs']:.2f} times that of {name}"
        for name, median in medians.items()
        if name != "BlockGibbs"
    )
    print(
        f"{num_chains:2} chains, {impl:12}: million spin updates/s: {speeds}; speed {times}",
        flush=True,
    )


def critical_samples(name: str, kernel: Any, num_draws: int, num_chains: int = 16) -> float:
    """Effective samples of |m| a second, of draws after the first tenth."""

    @jax.jit
    def run(state):
        def draw(state, _):
            state = kernel.sample(state, (), {})
            return state, jnp.abs(jnp.mean(state.z["x"].astype(float), (-1, -2)))

        return lax.scan(draw, state, length=num_draws)

    _, state = chains(kernel, num_chains)
    timed(run, state)
    seconds, (_, m) = timed(run, state)
    m = np.asarray(m)[num_draws // 10 :].T
    ess = effective_sample_size(m[:, :, None])[0]
    print(
        f"{name}: {ess / (0.9 * seconds):.1f} effective samples of |m| a second "
        f"({ess:.0f} of {m.size} draws), mean |m| {m.mean():.4f}",
        flush=True,
    )
    return ess / (0.9 * seconds)


def machine() -> None:
    x = (load_digits().data >= 8).astype(np.float32)[: 14 * BATCH]
    mean = x.mean(0).clip(1e-3, 1 - 1e-3)
    start = ns.BernoulliRBM(
        0.01 * random.normal(random.key(0), (64, 64)), np.log(mean / (1 - mean)), np.zeros(64)
    )

    def ours(epochs: int = EPOCHS) -> Any:
        return ns.fit(
            start,
            ns.objectives.PersistentContrastiveDivergence(num_chains=BATCH),
            x,
            key=random.key(1),
            optimizer=optax.sgd(0.05),
            num_steps=epochs * len(x) // BATCH,
            batch_size=BATCH,
            ema_decay=0.0,
            progress_bar=False,
        ).module

    def theirs() -> Any:
        settings = {"learning_rate": 0.05, "batch_size": BATCH, "random_state": 0}
        return BernoulliRBM(64, n_iter=EPOCHS, **settings).fit(x.astype(float))

    rates: dict[str, list[float]] = {"fit": [], "scikit-learn": []}
    timed(ours)
    for _ in range(3):
        long, short = timed(ours, 50 * EPOCHS)[0], timed(ours)[0]
        rates["fit"].append(49 * EPOCHS / (long - short))
        rates["scikit-learn"].append(EPOCHS / timed(theirs)[0])
    reference = theirs()
    machines = {
        "fit": ours(),
        "scikit-learn": ns.BernoulliRBM(
            reference.components_.T, reference.intercept_visible_, reference.intercept_hidden_
        ),
    }
    for name, d in machines.items():
        loss = float(ns.objectives.PseudoLikelihood()(d, jnp.asarray(x)))
        print(
            f"RBM 64 x 64 on the digits by {name}: {np.median(rates[name]):.0f} epochs/s, "
            f"pseudo-likelihood after {EPOCHS} {-loss:.2f} nats",
            flush=True,
        )


def main() -> None:
    spin_updates()
    rates = [
        critical_samples(
            "BlockGibbs, 64 x 64 at the critical coupling",
            ns.BlockGibbs(partial(ising, CRITICAL), num_steps=20),
            3_000,
        ),
        critical_samples(
            "SwendsenWang", ns.SwendsenWang(partial(ising, CRITICAL)), 500, num_chains=4
        ),
    ]
    print(f"SwendsenWang over BlockGibbs: {rates[1] / rates[0]:.1f}")
    machine()


if __name__ == "__main__":
    main()
