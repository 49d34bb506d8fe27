# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
What a metric of low rank is worth: a Gaussian in 1,000 dimensions, of variance 1 but for ten random
directions, in which it is 1e-4. Effective samples a gradient of the worst direction, the stiff ones
and 100 others, after the same warmup, with a diagonal metric and with one of low rank.

`python -m benchmarks.metrics`
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC

import numpyro_scores as ns

NUM_STIFF, VARIANCE = 10, 1e-4
NUM_CHAINS = 4
# Trajectories of MALT have ten steps, time to cross the wide directions if these are
# long enough; MAMS takes as many as its length wants.
KERNELS = {"MALT": partial(ns.MALT, num_steps=10), "MAMS": ns.MAMS, "MCLMC": ns.MCLMC}


def stiff_directions(d: int) -> jax.Array:
    return jnp.linalg.qr(random.normal(random.key(0), (d, NUM_STIFF)))[0]


def run(make, metric, d: int, num_warmup: int, num_samples: int) -> tuple[float, float, float]:
    """Least bulk ESS a thousand gradients, the step size, and the worst relative variance."""
    stiff = stiff_directions(d)

    def potential(x):
        along = stiff.T @ x
        return 0.5 * jnp.vdot(x, x) + 0.5 * (1 / VARIANCE - 1) * jnp.vdot(along, along)

    mcmc = MCMC(
        make(potential_fn=potential, metric=metric),
        num_warmup=num_warmup,
        num_samples=num_samples,
        num_chains=NUM_CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    start = random.normal(random.key(1), (NUM_CHAINS, d))
    start += (start @ stiff) * (VARIANCE**0.5 - 1) @ stiff.T
    mcmc.run(random.key(2), init_params=start, extra_fields=("num_grad_evals", "step_size"))
    x = np.asarray(mcmc.get_samples(group_by_chain=True))
    shown = np.concatenate([x @ np.asarray(stiff) / VARIANCE**0.5, x[..., :100]], axis=-1)
    fields = mcmc.get_extra_fields()
    num_grads = float(np.sum(fields["num_grad_evals"]))
    ess = effective_sample_size(shown).min()
    variances = np.mean(shown**2, axis=(0, 1))
    return 1e3 * ess / num_grads, float(np.mean(fields["step_size"])), np.abs(variances - 1).max()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--dimension", type=int, default=1_000)
    parser.add_argument("--num-warmup", type=int, default=600)
    parser.add_argument("--num-samples", type=int, default=300)
    arguments = parser.parse_args()
    sizes = arguments.dimension, arguments.num_warmup, arguments.num_samples
    print("| kernel | metric | least ESS per 1,000 gradients | step size | worst variance off by |")
    print("|---|---|---|---|---|")
    for name in arguments.kernels:
        figures = {}
        for metric in (ns.Diagonal(), ns.LowRank(2 * NUM_STIFF)):
            figures[metric] = run(KERNELS[name], metric, *sizes)
            ess, step_size, error = figures[metric]
            print(
                f"| `{name}` | `{metric}` | {ess:.3g} | {step_size:.3g} | {error:.0%} |", flush=True
            )
        (diagonal, *_), (low_rank, *_) = figures.values()
        print(f"| `{name}` | ratio | {low_rank / diagonal:.1f} | | |", flush=True)


if __name__ == "__main__":
    main()
