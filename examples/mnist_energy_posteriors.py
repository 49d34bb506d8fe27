# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The five posteriors of `mnist_posteriors.py` with the energy of `mnist_energy.py`, by exact steps.

`SplitGibbs` takes each draw from noise to a digit: a Langevin step of the data and a reverse
process of the prior by turns, which move a whole stroke at once, with the two tied ever closer.
Where the data have wrong modes of their own (a wide blur, a shifted phase) it begins at draws of
`DAPS`. Of ten pictures an anneal would give the noise scale what their digits should explain: they
are draws of `AnnealedLangevin`, which finds it. Trajectories of `MALT`, one chain from each draw,
then move all sites, noise scales and widths, too: they are exact for the posterior, with a
Metropolis test that takes no more than the energies at hand, but they stay in their mode, of which
there are as many as were found before. The last state of each chain is a draw. Rows and printed
lines are those of `mnist_posteriors.py`.
"""

from typing import Any

import numpy as np
from jax import random
from mnist_energy import learned_energy_prior
from mnist_posteriors import PROBLEMS, Problem, arguments, gallery
from mnist_unet import load
from numpyro.infer import MCMC

import numpyro_scores as ns

NUM_STEPS = 20  # of a trajectory
COUPLINGS = {0.2: 12, 0.06: 30}  # and so many sweeps
WRONG_MODES = ("deblurring", "phases")  # from these an anneal of all noise levels does not return


def draws_of(
    name: str, problem: Problem, y: Any, key: Any, num_draws: int, num_trajectories: int
) -> dict[str, np.ndarray]:
    """One draw of each chain; with no trajectories those of `SplitGibbs` or the problem's own."""
    model = problem.model

    def run(kernel: Any, number: int, num_warmup: int, num_samples: int, start: Any) -> MCMC:
        mcmc = MCMC(
            kernel,
            num_warmup=num_warmup,
            num_samples=num_samples,
            num_chains=num_draws,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(random.fold_in(key, number), y=y, init_params=start)
        return mcmc

    start, couplings = None, COUPLINGS
    if problem.kernel is not None:
        mcmc, couplings = run(problem.kernel, 0, 0, 1, None), {}
        start = mcmc.last_state.z
    elif name in WRONG_MODES:
        start = run(ns.DAPS(model), 0, 0, 1, None).last_state.z
    for number, (coupling, num_sweeps) in enumerate(couplings.items(), 1):
        kernel = ns.SplitGibbs(model, coupling=coupling, sampler=ns.Ancestral(num_steps=8))
        # Half of a warmup goes down all noise levels.
        num_warmup = 0 if start else 2 * num_sweeps
        mcmc = run(kernel, number, num_warmup, num_sweeps, start)
        start = mcmc.last_state.z
    if num_trajectories:
        # All directions as they are: so few steps tell nothing of 784 variances.
        kernel = ns.MALT(model, num_steps=NUM_STEPS, adapt_mass_matrix=False)
        num_warmup = num_trajectories // 3  # finds the step size
        mcmc = run(kernel, len(COUPLINGS) + 1, num_warmup, num_trajectories - num_warmup, start)
    return {site: np.asarray(x)[:, -1] for site, x in mcmc.get_samples(group_by_chain=True).items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--num-trajectories", type=int, default=30, help="with 0 all draws are by SplitGibbs"
    )
    args = parser.parse_args()
    train, (pictures, _) = load(0)  # those of the weights
    prior = learned_energy_prior(train)

    def draw(name: str, y: Any, key: Any) -> dict[str, np.ndarray]:
        problem = PROBLEMS[name](prior, pictures)
        # The third is of ten pictures each.
        num_draws = 1 + args.num_draws // 4 if name == "pictures" else args.num_draws
        return draws_of(name, problem, y, key, num_draws, args.num_trajectories)

    figure = gallery(args, prior, pictures, draw)
    figure.savefig(args.output / "mnist_energy_posteriors.png", dpi=80)
    print(f"\nWrote mnist_energy_posteriors.png to {args.output}/")


if __name__ == "__main__":
    main()
