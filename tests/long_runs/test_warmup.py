# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The draws of warmup are kept where that is asked for, and nothing else changes."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from jax import random
from long_runs.helpers import DATA, KERNEL, KEY, RandomWalk, equal, run
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.long_runs import NetCDFStore, ZarrStore

pytestmark = pytest.mark.usefixtures("quick_compilation")
FIELDS = ("potential_energy",)


def warmup_of(mcmc):
    """Draws and extra fields of warmup."""
    return [read(True, warmup=True) for read in (mcmc.get_samples, mcmc.get_extra_fields)]


def as_dataset(group):
    return group.to_dataset() if isinstance(group, xarray.DataTree) else group


@pytest.fixture(scope="module")
def kept():
    return run(keep_warmup=True, num_samples=20)


@pytest.mark.parametrize("thinning, chunk_size", [(1, 7), (4, 3), (4, None)])
def test_they_are_those_that_numpyro_collects(thinning, chunk_size):
    # Of 30 steps of warmup the first two are in no draw, where each fourth one is.
    numpyros = MCMC(
        RandomWalk(), num_warmup=30, num_samples=60, thinning=thinning, progress_bar=False
    )
    numpyros.warmup(KEY, DATA, extra_fields=FIELDS, collect_warmup=True)
    wanted = numpyros.get_samples(True), numpyros.get_extra_fields(True)
    settings = {"thinning": thinning, "chunk_size": chunk_size, "num_chains": 1}
    mcmc = run(keep_warmup=True, **settings)
    found = warmup_of(mcmc)
    assert found[0]["mu"].shape == (1, 30 // thinning, 2)
    assert equal(found, wanted)
    assert equal(mcmc.get_samples(True), run(**settings).get_samples(True))


@pytest.mark.parametrize("store", [ZarrStore, NetCDFStore])
def test_a_run_that_died_in_warmup_goes_on_to_the_same_bits(kept, store, tmp_path):
    class Dies(store):
        left = 6

        def append(self, group, variables, region):
            super().append(group, variables, region)
            assert all(x.shape[1] <= 7 for x in variables.values())
            self.left -= 1
            # Two groups a chunk: the third chunk is appended, and not committed.
            if not self.left:
                raise KeyError("killed")

    path = tmp_path / "run"
    with pytest.raises(KeyError, match="killed"):
        run(store=Dies(path), keep_warmup=True, num_samples=20)
    for group, length in (("posterior", 0), ("warmup_posterior", 14), ("warmup_sample_stats", 14)):
        assert store(path).open()[group].sizes["draw"] == length
    with pytest.raises(ValueError, match="keep_warmup is True, here False"):
        run(store=store(path))
    tree = run(store=store(path), keep_warmup=True, num_samples=20).open().load()
    direct = ns.to_inference_data(kept)
    for group in ("posterior", "sample_stats", "warmup_posterior", "warmup_sample_stats"):
        length = 30 if group.startswith("warmup") else 20
        assert tree[group].sizes["draw"] == length
        xarray.testing.assert_equal(tree[group].to_dataset(), as_dataset(direct[group]))
    assert tree["warmup_posterior"]["mu"].dims == ("chain", "draw", "group")
    # A longer run leaves them as they are.
    longer = run(store=store(path), keep_warmup=True, num_samples=25)
    assert equal(warmup_of(longer), warmup_of(kept))


def test_nothing_else_looks_at_them(kept, tmp_path):
    path = tmp_path / "run.zarr"
    plain = run(store=path, num_samples=20)
    assert equal(kept.get_samples(True), plain.get_samples(True))
    assert equal(kept.moments, plain.moments)
    assert equal(kept.convergence()[1:], plain.convergence()[1:])
    assert str(ns.diagnose(kept)) == str(ns.diagnose(plain))
    assert set(plain.open().children) == {"posterior", "sample_stats", "observed_data"}
    assert "warmup_posterior" not in ns.to_inference_data(plain)
    with pytest.raises(ValueError, match="keep_warmup is False, here True"):
        run(store=path, keep_warmup=True)
    with pytest.raises(ValueError, match="No draws of warmup are stored"):
        plain.get_samples(warmup=True)
    with pytest.raises(TypeError, match="keep_warmup must be True or False"):
        run(keep_warmup=("mu",))


def test_of_many_data_sets_and_of_what_is_kept_alone(tmp_path):
    many = jnp.stack([DATA, DATA + 2.0, DATA - 3.0])
    settings = {"num_warmup": 10, "num_samples": 5, "num_chains": 2, "progress_bar": False}
    settings |= {"keep_warmup": True, "keep": ("tau",), "chunk_size": 4}
    # Two data sets at a time: the second batch has one of the first again.
    mcmc = ns.StoredMCMC(KERNEL, chain_batch_size=4, store=tmp_path / "many.zarr", **settings)
    mcmc.run_many(KEY, many)
    found = mcmc.open()["warmup_posterior"]
    assert set(found.data_vars) == {"tau"}
    assert found["tau"].dims == ("chain", "draw", "dataset")
    alone = ns.StoredMCMC(KERNEL, **settings)
    for i, keys in enumerate(random.split(KEY, (3, 2))):
        alone.run(keys, many[i])
        wanted = alone.get_samples(True, warmup=True)["tau"]
        np.testing.assert_array_equal(found["tau"][:, :, i], wanted)
