# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The five posteriors of `mnist_posteriors.py` with the energy of `mnist_energy.py`, by exact steps.

`DAPS` finds modes; trajectories of `MALT`, one chain from each of its draws, then move all sites,
noise scales and widths, too. They are exact for the posterior, with a Metropolis test that takes
no more than the energies at hand, but they do not go from mode to mode: how many draws are in each
is left as `DAPS` has it. The last state of each chain is a draw. Rows and printed lines are those
of `mnist_posteriors.py`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jax import random
from mnist_energy import learned_energy_prior
from mnist_posteriors import PROBLEMS, arguments, gallery
from mnist_unet import load
from numpyro.infer import MCMC

import numpyro_scores as ns

NUM_STEPS = 10  # of a trajectory


def draws_of(
    model: Callable, y: Any, key: Any, num_draws: int, num_trajectories: int
) -> dict[str, np.ndarray]:
    """One draw of each chain; with no trajectories those of `DAPS`."""

    def run(kernel: Any, key: Any, num_warmup: int, num_samples: int, start: Any = None) -> MCMC:
        mcmc = MCMC(
            kernel,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_draws,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(key, y=y, init_params=start)
        return mcmc

    mcmc = run(ns.DAPS(model), key, 0, 1)
    if num_trajectories:
        # All directions as they are: so few steps tell nothing of 784 variances.
        kernel = ns.MALT(model, num_steps=NUM_STEPS, adapt_mass_matrix=False)
        num_warmup = num_trajectories // 2  # finds the step size
        key = random.fold_in(key, 1)
        mcmc = run(kernel, key, num_warmup, num_trajectories - num_warmup, mcmc.last_state.z)
    return {site: np.asarray(x)[:, -1] for site, x in mcmc.get_samples(group_by_chain=True).items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--num-trajectories", type=int, default=80, help="with 0 all draws are by DAPS"
    )
    args = parser.parse_args()
    train, (pictures, _) = load(0)  # those of the weights
    prior = learned_energy_prior(train)

    def draw(name: str, y: Any, key: Any) -> dict[str, np.ndarray]:
        model = PROBLEMS[name](prior, pictures).model
        # The third is of ten pictures each.
        num_draws = 1 + args.num_draws // 4 if name == "pictures" else args.num_draws
        return draws_of(model, y, key, num_draws, args.num_trajectories)

    figure = gallery(args, prior, pictures, draw)
    figure.savefig(args.output / "mnist_energy_posteriors.png", dpi=80)
    print(f"\nWrote mnist_energy_posteriors.png to {args.output}/")


if __name__ == "__main__":
    main()
