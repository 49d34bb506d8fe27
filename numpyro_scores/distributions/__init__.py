# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Energies, scores, denoisers and Boltzmann machines as NumPyro distributions."""

from numpyro_scores.distributions.autoregressive import AutoregressivePrior
from numpyro_scores.distributions.boltzmann.base import (
    BlockDistribution,
    BoltzmannDistribution,
    PartitionSum,
)
from numpyro_scores.distributions.boltzmann.joint_rbm import JointRBM, VisibleHidden
from numpyro_scores.distributions.boltzmann.lattices import Ising, Potts
from numpyro_scores.distributions.boltzmann.pairwise import PairwiseMRF
from numpyro_scores.distributions.boltzmann.rbm import BernoulliRBM, GaussianBernoulliRBM
from numpyro_scores.distributions.boltzmann.states import Spin
from numpyro_scores.distributions.diffusion import DiffusionPrior
from numpyro_scores.distributions.energy import EnergyDistribution
from numpyro_scores.distributions.flow import FlowPrior
from numpyro_scores.distributions.generator import GeneratorPrior
from numpyro_scores.distributions.product import ProductOfExperts
from numpyro_scores.distributions.score import ScoreDistribution

__all__ = [
    "AutoregressivePrior",
    "BernoulliRBM",
    "BlockDistribution",
    "BoltzmannDistribution",
    "DiffusionPrior",
    "EnergyDistribution",
    "FlowPrior",
    "GaussianBernoulliRBM",
    "GeneratorPrior",
    "Ising",
    "JointRBM",
    "PairwiseMRF",
    "PartitionSum",
    "Potts",
    "ProductOfExperts",
    "ScoreDistribution",
    "Spin",
    "VisibleHidden",
]
