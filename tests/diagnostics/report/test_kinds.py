# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What is known of a sampler before its draws are looked at."""

import json

import numpy as np
import pytest
from diagnostics.helpers import posterior

from numpyro_scores.diagnostics.report.kinds import follows_scores
from numpyro_scores.diagnostics.report.parts import ATTRIBUTE
from numpyro_scores.diagnostics.report.runs import run_of


@pytest.mark.parametrize(
    "sampler, by_scores", [("NoiseLevelSMC", False), ("TwistedDiffusionSampler", True)]
)
def test_particles_come_down_by_scores_unless_their_sampler_weighs_values(sampler, by_scores):
    text = json.dumps({"sampler": sampler, "parts": [], "particles": {}})
    draws = posterior(x=np.zeros((1, 10))).assign_attrs({ATTRIBUTE: text})
    assert follows_scores(run_of(draws, None, (), None)) is by_scores
