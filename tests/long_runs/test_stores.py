# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A store holds the run, whatever happens to the process, and tells its own run from others."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import numpyro
import pytest
import xarray
from jax import random
from long_runs.helpers import DATA, KERNEL, RandomWalk, equal, run

import numpyro_scores as ns
from numpyro_scores.long_runs import NetCDFStore, ZarrStore, identity

pytestmark = pytest.mark.usefixtures("quick_compilation")
STORES = [ZarrStore, NetCDFStore]


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.mark.parametrize("store", STORES)
def test_a_store_holds_the_draws_and_is_extended(whole, store, tmp_path):
    path = tmp_path / "run"
    for num_samples in (20, 60):
        mcmc = run(store=store(path), num_samples=num_samples)
    assert mcmc.num_draws == 60
    assert equal(mcmc.get_samples(True), whole.get_samples(True))
    assert equal(mcmc.get_extra_fields(True), whole.get_extra_fields(True))
    # A finished run is read, not drawn.
    assert equal(run(store=store(path)).last_state.z, whole.last_state.z)
    tree, direct = mcmc.open(), ns.to_inference_data(whole)
    for group in ("posterior", "sample_stats", "observed_data"):
        found, wanted = tree[group].to_dataset(), direct[group]
        wanted = wanted.to_dataset() if isinstance(wanted, xarray.DataTree) else wanted
        xarray.testing.assert_equal(found.load(), wanted)
    assert mcmc.moments[0]["tau"] == pytest.approx(whole.moments[0]["tau"], rel=1e-12)


def test_a_store_opens_without_this_package(whole, tmp_path):
    path = tmp_path / "run.zarr"
    run(store=path)
    program = (
        "import sys, xarray, arviz\n"
        "tree = xarray.open_datatree(sys.argv[1], engine='zarr')\n"
        "data = tree\n"
        "if 'InferenceData' in vars(arviz):\n"
        "    data = arviz.InferenceData.from_datatree(tree)\n"
        "assert not any(name.startswith('numpyro_scores') for name in sys.modules)\n"
        "print(arviz.rhat(tree['posterior'].to_dataset())['tau'].item())\n"
        "print(xarray.open_zarr(sys.argv[1], group='posterior').sizes['draw'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", program, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    r_hat, num_draws = done.stdout.split()
    found = whole.convergence()
    assert float(r_hat) == pytest.approx(found.r_hat[found.names.index("tau")], abs=1e-6)
    assert num_draws == "60"


# Between the groups of a chunk, and between a chunk and its commit.
@pytest.mark.parametrize("store, num_appends", [(ZarrStore, 3), (ZarrStore, 4), (NetCDFStore, 4)])
def test_a_run_that_died_goes_on_to_the_same_bits(whole, store, num_appends, tmp_path):
    class Dies(store):
        left = num_appends

        def append(self, *args):
            super().append(*args)
            self.left -= 1
            if not self.left:
                raise KeyError("killed")

    path = tmp_path / "run"
    with pytest.raises(KeyError, match="killed"):
        run(store=Dies(path))
    if store is ZarrStore:
        assert xarray.open_datatree(path, engine="zarr")["posterior"].sizes["draw"] == 7
    resumed = run(store=store(path))
    assert equal(resumed.get_samples(True), whole.get_samples(True))
    assert equal(resumed.last_state.z, whole.last_state.z)


def test_another_run_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "run.zarr"
    run(store=path, num_samples=20)
    for settings, words in (
        ({"key": random.key(1)}, "random key"),
        ({"data": DATA + 1}, "argument 0.0 has other values"),
        ({"thinning": 2}, "thinning is 1, here 2"),
        ({"kernel": RandomWalk(scale=2.0)}, "the model, or a setting of the kernel"),
        ({"keep": ("tau",)}, "keep is None"),
    ):
        with pytest.raises(ValueError, match=words):
            run(store=path, **settings)
    assert run(store=path, num_samples=20).num_draws == 20
    record = xarray.open_datatree(path, engine="zarr").attrs["numpyro_scores_long_run"]["run"]
    assert record["kernel"] == "RandomWalk"
    assert record["settings"]["num_warmup"] == 30
    assert record["versions"]["numpyro"] == numpyro.__version__
    monkeypatch.setattr(identity, "FORMAT", 99)
    with pytest.raises(ValueError, match="the version of the format is .*, here 99"):
        run(store=path)


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file"):
        run(store=tmp_path / "file")
    with pytest.raises(ValueError, match="holds something else"):
        run(store=tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "run.zarr"
    first = ZarrStore(path)
    assert first.load() is None
    program = (
        "import sys; from numpyro_scores.long_runs import ZarrStore\n"
        "try: ZarrStore(sys.argv[1]).load()\n"
        "except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    assert "Another run is writing" in done.stdout
    first.close()


@pytest.mark.parametrize("at", ["append", "commit"])
def test_a_full_disk_loses_nothing(at, whole, tmp_path):
    class Full(ZarrStore):
        def append(self, group, variables, region):
            if at == "append" and region["draw"].start == 14:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().append(group, variables, region)

        def commit(self, checkpoint, attributes):
            if at == "commit" and checkpoint.num_draws == 21:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().commit(checkpoint, attributes)

    path = tmp_path / "run.zarr"
    with pytest.raises(OSError, match="it has 14 draws of each chain"):
        run(store=Full(path))
    assert xarray.open_datatree(path, engine="zarr")["posterior"].sizes["draw"] == 14
    assert equal(run(store=path).get_samples(True), whole.get_samples(True))


def test_an_interrupt_keeps_what_is_drawn(whole, tmp_path):
    class Interrupts(ZarrStore):
        def append(self, group, variables, region):
            super().append(group, variables, region)
            if group == "posterior" and region["draw"].start == 7:
                os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "run.zarr"
    with pytest.warns(UserWarning, match="Interrupted: 21 of 60"):
        mcmc = run(store=Interrupts(path))
    assert equal(mcmc.get_samples(True)["tau"], whole.get_samples(True)["tau"][:, :21])
    assert equal(run(store=path).get_samples(True), whole.get_samples(True))


def test_keep_stores_little_and_counts_all(whole, tmp_path):
    draws = {name: x.astype(np.float64) for name, x in whole.get_samples(True).items()}
    for i, keep in enumerate(((), ("tau",), lambda draw: {"sum": draw["mu"].sum()})):
        mcmc = run(store=tmp_path / f"{i}.zarr", keep=keep)
        mean, variance = mcmc.moments
        for name, x in draws.items():
            np.testing.assert_allclose(mean[name], x.mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(variance[name], x.var(axis=(0, 1), ddof=1), rtol=1e-5)
    np.testing.assert_allclose(
        mcmc.get_samples(True)["sum"], whole.get_samples(True)["mu"].sum(axis=-1), rtol=1e-6
    )
    assert set(mcmc.open()["posterior"].data_vars) == {"sum"}


def test_convergence_is_that_of_arviz_and_stops_a_run(monkeypatch):
    import arviz

    from numpyro_scores.long_runs import convergence

    # Many reads, of one element and a few draws each.
    monkeypatch.setattr(convergence, "MAX_BYTES", 2_000)
    rule = ns.until(r_hat=1.1, bulk_ess=20)
    mcmc = run(KERNEL, num_samples=5_000, chunk_size=50, until=rule)
    assert mcmc.num_draws < 5_000
    found = mcmc.convergence()
    posterior = ns.to_inference_data(mcmc)["posterior"]
    posterior = posterior.to_dataset() if isinstance(posterior, xarray.DataTree) else posterior
    wanted = arviz.rhat(posterior), arviz.ess(posterior, method="bulk")
    for own, by_arviz in zip((found.r_hat, found.bulk_ess), wanted, strict=True):
        named = dict(zip(found.names, own, strict=True))
        assert named["tau"] == pytest.approx(by_arviz["tau"].item(), rel=1e-6)
        assert named["mu[1]"] == pytest.approx(by_arviz["mu"][1].item(), rel=1e-6)
    assert rule.holds(found)
    with pytest.raises(ValueError, match="there is one: num_chains=2"):
        run(num_chains=1, until=ns.until())


def test_the_worst_of_what_is_kept_is_looked_at(whole):
    """Of a few elements, and of a function's values, as of all sites."""
    every = whole.convergence()
    r_hats = {name: r_hat for name, r_hat in zip(every.names, every.r_hat, strict=True)}
    for keep in (None, ("tau", "mu"), lambda draw: {"mu": draw["mu"], "tau": draw["tau"]}):
        mcmc = run(keep=keep)
        spread = {
            name: x.astype(float).mean(axis=1).var(axis=0) / x.astype(float).var(axis=1).mean(0)
            for name, x in mcmc.get_samples(True).items()
        }
        ratios = {"tau": spread["tau"], "mu[0]": spread["mu"][0], "mu[1]": spread["mu"][1]}
        found = mcmc.convergence(worst=1)
        name = found.names[0]
        assert ratios.get(name, ratios["tau"]) == max(ratios.values())
        assert found.r_hat[0] == pytest.approx(r_hats[name], rel=1e-6)


def test_a_run_that_was_enough_is_not_drawn_on(tmp_path):
    settings = {"num_samples": 5_000, "chunk_size": 50, "until": ns.until(r_hat=1.1, bulk_ess=20)}
    first = run(store=tmp_path / "run.zarr", **settings)
    again = run(store=tmp_path / "run.zarr", **settings)
    assert first.num_draws == again.num_draws < 5_000
    assert equal(first.get_samples(), again.get_samples())


@pytest.mark.parametrize("max_bytes", [3_000, 200])
def test_a_report_of_a_long_run_reads_little_and_overlooks_nothing(max_bytes, monkeypatch):
    from numpyro_scores.long_runs import thinned

    monkeypatch.setattr(thinned, "MAX_BYTES", max_bytes)
    x = np.arange(2 * 100 * 3.0).reshape(2, 100, 3)
    x[1, 57, 2] = np.nan
    diverging = np.zeros((2, 100), bool)
    diverging[0, [33, 34]] = True
    variables = {("posterior", "x"): x, ("sample_stats", "diverging"): diverging}
    most = 0

    def read(group, name, start, stop):
        nonlocal most
        most = max(most, (stop - start) * x[:, 0].nbytes)
        return variables[group, name][:, start:stop]

    found = thinned.thinned(read, list(variables), 100, 7)
    assert most <= max_bytes
    wanted = np.tile(np.arange(0, 98, 7), (2, 1))
    wanted[0, 4], wanted[1, 8] = 33, 57
    np.testing.assert_array_equal(found["posterior", "x"], x[[[0], [1]], wanted])
    np.testing.assert_array_equal(found["sample_stats", "diverging"].sum(axis=1), [1, 0])


def test_a_report_of_a_store_is_that_of_a_part_of_its_draws(whole, tmp_path, monkeypatch):
    from numpyro_scores.long_runs import thinned

    monkeypatch.setattr(thinned, "MAX_BYTES", 20 * 2 * 20)
    monkeypatch.setattr(thinned, "FEWEST_DRAWS", 1)
    mcmc = run(store=tmp_path / "run.zarr")
    report = ns.diagnose(mcmc)
    assert "2 chains of 60 draws, one of each 3 looked at" in report.title
    draws = whole.get_samples(True)["tau"][:, ::3]
    summary = {row.name: row for row in report.estimates}["tau"]
    assert summary.mean == pytest.approx(draws.mean(), rel=1e-5)
