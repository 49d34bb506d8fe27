# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""From where on `diagnose` speaks of a fault, and who says so."""

import numpy as np

from numpyro_scores.infer.langevin.asymmetry import LARGEST_ASYMMETRY as LARGEST_ASYMMETRY

# Vehtari, Gelman, Simpson, Carpenter & Buerkner (2021), section 4: rank-normalised R-hat below
# 1.01, and an effective sample size of 50 for each half of a chain, 400 for the 4 that they advise.
R_HAT = 1.01
ESS_PER_CHAIN = 100
LARGEST_ESS = 400
# The standard error of a mean with an effective sample size of 100.
RELATIVE_MCSE = 0.1

# Of many elements of chains that have mixed some pass such a threshold by chance: it is a fault if
# more than this share of them do, or one of them by far.
SHARE_OF_ELEMENTS = 0.01
FAR_R_HAT = 5.0  # times the excess over 1
FAR_ESS = 2.0  # times too small

# Gelman, Roberts & Gilks (1996): a random walk is within a fifth of its best from 0.15 to 0.5;
# kernels with gradients want more.
SMALLEST_ACCEPTANCE = 0.15
# With an ESS that is too small: steps that are hardly ever refused could be longer.
LARGEST_ACCEPTANCE = 0.98

# As the documentation of ReplicaExchange has it.
SMALLEST_SWAP_RATE = 0.2

# Of the stationary variance: the kernels' own steps make 0.11 at most, and at 0.2 the standard
# deviation is off by a tenth.
LARGEST_VARIANCE_ERROR = 0.2

# The level of one test in a report that is looked at for every run.
STEIN_LEVEL = 0.001


def r_hat_of(num_chains: int, num_draws: int, num_elements: int) -> float:
    """
    The threshold of R-hat: 1.01, or in many short chains what the largest of all elements would
    pass with probability 0.001 if draws were independent: the variance of the means of the
    half-chains is that of a chi-squared variable, and R-hat is the larger of two.
    """
    from scipy.stats import chi2

    free, half = 2 * num_chains - 1, max(num_draws // 2, 1)
    by_chance = np.sqrt(1 + (chi2.isf(0.001 / (2 * num_elements), free) / free - 1) / half)
    return max(R_HAT, float(by_chance))


def ess_of(num_chains: int) -> int:
    """The effective sample size that is wanted of all chains."""
    return min(ESS_PER_CHAIN * num_chains, LARGEST_ESS)
