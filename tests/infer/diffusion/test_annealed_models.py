# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
What a model does to a diffusion prior, under every kernel that goes through its noise levels: the
posterior is right, or it is refused in words.
"""

import numpy as np
import pytest
from infer.diffusion.annealed_models import KERNELS, MODELS, REFUSED, draws, plain

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "DPS"])
@pytest.mark.parametrize("model", MODELS)
def test_a_posterior_is_right_or_refused(model, kernel):
    """
    In standard deviations of the posterior, with sampling errors of 0.03 and of 4.5% of the
    variance; `SplitGibbs` adds the variance of its coupling to that of the data.
    """
    run, mean, variance = MODELS[model]
    made = KERNELS[kernel](run)
    if model in REFUSED and kernel != "AnnealedLangevin":
        with pytest.raises(ValueError, match=f"{kernel} .*AnnealedLangevin"):
            draws(made)
        return
    x = draws(made)
    assert np.abs((x.mean(axis=0) - mean) / np.sqrt(variance)).max() < 0.25
    ratio = x.var(axis=0) / variance
    assert 0.75 < np.min(ratio) and np.max(ratio) < 1.3, ratio


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, noise",
    [
        ("scale on the likelihood", 0.5),
        ("plate, param, prng_key, factor, cond", 1.0),
        ("subsample with indices", (2 / 3) ** 0.5),
    ],
)
def test_posterior_sampling_draws_as_from_the_model_written_plainly(name, noise):
    """Its law is not that of the posterior, but the same for the same posterior."""
    x = draws(KERNELS["DPS"](MODELS[name][0])).reshape(-1, 2)
    expected = draws(KERNELS["DPS"](plain(noise)))
    np.testing.assert_allclose(x.mean(axis=0), expected.mean(axis=0), atol=0.15 * expected.std())
    np.testing.assert_allclose(x.var(axis=0), expected.var(axis=0), rtol=0.3)
