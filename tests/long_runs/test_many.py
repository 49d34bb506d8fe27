# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Many data sets at once draw what each draws by itself."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from jax import random
from long_runs.helpers import DATA, KERNEL, RandomWalk, equal

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")
KEY = random.key(0)
MANY = jnp.stack([DATA, DATA + 2.0, DATA - 3.0], axis=1)


def run_many(**settings):
    mcmc = ns.StoredMCMC(
        KERNEL, num_warmup=30, num_samples=40, num_chains=2, progress_bar=False, **settings
    )
    mcmc.run_many(KEY, MANY, axis=1)
    return mcmc


def test_each_data_set_is_drawn_as_by_itself(tmp_path):
    path = tmp_path / "many.zarr"
    # Two data sets at a time: the second batch has one of the first again.
    mcmc = run_many(chain_batch_size=4, store=path)
    samples = mcmc.get_samples(group_by_chain=True)
    keys = random.split(KEY, (3, 2))
    for i in range(3):
        alone = ns.StoredMCMC(
            KERNEL, num_warmup=30, num_samples=40, num_chains=2, progress_bar=False
        )
        alone.run(keys[i], MANY[:, i])
        own = {name: x[:, :, i] for name, x in samples.items()}
        assert equal(own, alone.get_samples(group_by_chain=True))
    posterior = xarray.open_datatree(path, engine="zarr")["posterior"]
    assert posterior["mu"].dims == ("chain", "draw", "dataset", "group")
    assert mcmc.moments[0]["tau"] == pytest.approx(samples["tau"].mean(axis=(0, 1)), rel=1e-5)
    # Killed or not, and in whatever batches.
    path = tmp_path / "extended.zarr"
    for num_samples, size in ((20, 2), (40, 6)):
        part = ns.StoredMCMC(
            KERNEL,
            num_warmup=30,
            num_samples=num_samples,
            num_chains=2,
            chain_batch_size=size,
            store=path,
            progress_bar=False,
        )
        part.run_many(KEY, MANY, axis=1)
    assert equal(part.get_samples(), mcmc.get_samples())


def test_the_data_sets_that_have_not_converged_are_named():
    mcmc = run_many()
    found = mcmc.convergence()
    bad = {
        int(name.split("[")[1].split(",")[0].rstrip("]"))
        for name, r_hat in zip(found.names, found.r_hat, strict=True)
        if r_hat > 1.2
    }
    assert set(mcmc.not_converged(r_hat=1.2, bulk_ess=0)) == bad
    assert np.array_equal(mcmc.not_converged(r_hat=1.0, bulk_ess=1e6), [0, 1, 2])


def test_a_data_set_whose_chain_never_moves_has_not_converged():
    class Stuck(RandomWalk):
        def init(self, key, num_warmup, params, args, kwargs):
            state = super().init(key, num_warmup, params, args, kwargs)
            return state._replace(step_size=jnp.where(args[0].mean() > 2.0, 0.0, 1.0))

    mcmc = ns.StoredMCMC(Stuck(), num_warmup=0, num_samples=40, progress_bar=False)
    mcmc.run_many(KEY, MANY, axis=1)
    with pytest.raises(ValueError, match="each data set has one"):
        mcmc.not_converged()
    assert list(mcmc.not_converged(r_hat=None, bulk_ess=0)) == [1]


def test_data_that_are_not_many_are_refused():
    mcmc = ns.StoredMCMC(KERNEL, num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match="as many data sets each"):
        mcmc.run_many(KEY, MANY, jnp.ones(4))
    with pytest.raises(ValueError, match="axis must be one that every array has, got 5"):
        mcmc.run_many(KEY, MANY, axis=5)
