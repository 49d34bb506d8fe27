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
# Of as many draws as are wanted, this share must be effective.
SHARE_OF_DRAWS = 0.7
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

# Of the proposals: beyond, most of what the kernel does is refused for its integrals alone.
LARGEST_UNRESOLVED = 0.3

# Of the stationary variance: the kernels' own steps make 0.11 at most, and at 0.2 the standard
# deviation is off by a tenth.
LARGEST_VARIANCE_ERROR = 0.2

# The level of one test in a report that is looked at for every run, and that of a question.
STEIN_LEVEL = 0.001
WEAK_STEIN_LEVEL = 0.01

# In nats, round triangles of draws: by so much two log densities depend on the way between. A
# density that is off by a factor of e^(1/2) here and there moves means by a few tenths of a
# standard deviation at the very most.
LARGEST_LOOP_RESIDUAL = 0.5

# In nats, along all noise levels: by so much the value of an energy at the smallest is another than
# its scores say. It is the error of a difference of two log densities as well.
LARGEST_LEVEL_RESIDUAL = 1.0

# In nats: by which Metropolis steps raise, or lower, the log density of draws on average.
LARGEST_CORRECTION = 0.5

# Where draws are independent by construction an effective sample size need not be estimated, and
# what is wanted is that of the standard error of a mean.
ESS_OF_INDEPENDENT = 100

# Proposals made in a corner of the draws, the extreme twentieth of an element, that move, over the
# share of those elsewhere; and how many moves there should be, for a share to mean something.
CORNER = 0.05
SMALLEST_MOVING_SHARE = 2 / 3
FEWEST_MOVES = 50

# In nats: weights of particles that vary by more make an evidence, and draws, of a few lucky ones.
LARGEST_EVIDENCE_ERROR = 1.0
SMALLEST_PARTICLE_ESS = 10


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


def ess_of(num_chains: int, num_draws: int, independent: bool = False) -> int:
    """
    The effective sample size that is wanted of all chains. So many draws as are wanted, if they are
    independent, have an estimate that is a little less as often as not.

    :param num_draws: of all chains together.
    :param independent: whether draws are independent by construction.
    """
    wanted = min(ESS_PER_CHAIN * num_chains, LARGEST_ESS)
    if independent:
        return min(wanted, ESS_OF_INDEPENDENT)
    return min(wanted, max(int(SHARE_OF_DRAWS * num_draws), 1)) if num_draws >= wanted else wanted
