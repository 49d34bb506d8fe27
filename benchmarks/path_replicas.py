# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
One problem of :mod:`benchmarks.inverse` by `ReplicaExchange` along paths, some chains at a time:
the draws of each piece are kept, and the distance is that of all pieces there are. Four pieces of
ten chains are what `ReplicaExchange along paths` draws at once: 800 dimensions take hours otherwise
if a run is cut.
"""

import argparse
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax import random

from benchmarks import inverse
from benchmarks._arguments import count, sizes
from benchmarks._timing import timed
from benchmarks.posteriors import NUM_PATH_CHAINS, path_exchange


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cell", type=sizes, default=(800, 400))
    parser.add_argument("--problem", type=int, default=0, help="its seed")
    parser.add_argument("--draws", type=count, default=2_000, help="of all pieces together")
    parser.add_argument("--pieces", type=count, default=4, help="of how many chains are parts")
    parser.add_argument("--piece", type=int, help="only this one; those that are kept are read")
    parser.add_argument("--folder", type=Path, default=Path(".cache/path_replicas"))
    args = parser.parse_args()
    pieces = range(args.pieces) if args.piece is None else [args.piece]
    if NUM_PATH_CHAINS % args.pieces or not set(pieces) <= set(range(args.pieces)):
        parser.error(
            f"--pieces must divide {NUM_PATH_CHAINS} chains and --piece be one of them, counted "
            f"from 0; got {args.pieces} and {args.piece}."
        )
    dim, dim_y = args.cell
    problem = inverse.make_problem(args.problem, dim, dim_y)
    prior = inverse.prior_of(jnp.full(25, 1 / 25), dim)
    num_chains, num_draws = NUM_PATH_CHAINS // args.pieces, args.draws // args.pieces
    draw = path_exchange(inverse.model, prior, num_draws, num_chains)
    args.folder.mkdir(parents=True, exist_ok=True)
    name = f"{dim}_{dim_y}_{args.problem}_{args.draws}_{args.pieces}"
    key_exact, key_other, key_draw = random.split(random.key(args.problem), 3)
    for piece in pieces:
        seconds, posterior = timed(draw, random.fold_in(key_draw, piece), problem)
        np.save(args.folder / f"{name}_{piece}.npy", np.asarray(posterior.x))
        kept = sorted(args.folder.glob(f"{name}_*.npy"))
        x = jnp.concatenate([jnp.asarray(np.load(file)) for file in kept])
        exact = inverse.exact_posterior(problem, key_exact, inverse.NUM_DRAWS)
        floor = inverse.distance(exact, inverse.exact_posterior(problem, key_other, len(x)))
        print(
            f"{len(kept)} of {args.pieces} pieces, {len(x)} draws: {inverse.distance(exact, x):.3f}"
            f", exact ones {floor:.3f}; {posterior.num_evals:.0f} + {posterior.num_prior_evals:.0f}"
            f" evaluations a draw, {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
