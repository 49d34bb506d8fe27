# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The draws are those of the kernel in a bare loop, however they are cut."""

from functools import partial

import jax
import numpy as np
import pytest
from compilations import compilations
from jax import random
from long_runs.helpers import DATA, KERNEL, KEY, RandomWalk, equal, plain_scan, run
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.long_runs import lanes

pytestmark = pytest.mark.usefixtures("quick_compilation")
MESH = jax.make_mesh((2,), ("chains",))


@pytest.fixture(scope="module")
def whole():
    return run()


@pytest.mark.parametrize("num_chains, thinning", [(1, 1), (2, 3)])
def test_the_draws_are_those_of_a_bare_scan(num_chains, thinning):
    mcmc = run(num_chains=num_chains, thinning=thinning)
    keys = random.split(KEY, num_chains) if num_chains > 1 else KEY[None]
    states, draws = [], []
    for key in keys:
        state, draw = plain_scan(KERNEL, key, 30, 60 // thinning, thinning, DATA)
        states.append(state)
        draws.append(draw)
    stacked = jax.tree.map(lambda *x: np.stack(x), *draws)
    found = mcmc.get_samples(group_by_chain=True)
    # Together, chains may be rounded otherwise than alone (jax 0.12 does).
    assert num_chains > 1 or equal(found, stacked)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4), found, stacked)
    energies = np.stack([state.potential_energy for state in states])
    field = mcmc.get_extra_fields(True)["potential_energy"]
    np.testing.assert_allclose(field, energies, rtol=1e-4, atol=1e-5)
    last = jax.tree.leaves(mcmc.last_state.z)[0]
    np.testing.assert_allclose(np.atleast_1d(last)[-1], states[-1].z["log_tau"][-1], rtol=1e-4)


@pytest.mark.parametrize("settings", [{"chunk_size": 60}, {"chunk_size": None}])
def test_where_a_run_is_cut_makes_no_difference(whole, settings):
    assert equal(run(**settings).get_samples(True), whole.get_samples(True))


def test_a_batch_of_chains_draws_what_all_draw_together(whole):
    # Bit for bit: all of this kernel is elementwise, and so compiled alike for any batch.
    whole = run(num_chains=4)
    batched = run(num_chains=4, chain_batch_size=2)
    assert equal(batched.get_samples(True), whole.get_samples(True))


def test_devices_draw_what_one_draws(whole):
    spread = run(num_chains=4, mesh=MESH)
    assert equal(spread.get_samples(True), run(num_chains=4).get_samples(True))


@pytest.mark.slow
def test_devices_have_nothing_to_say_to_each_other(monkeypatch):
    calls, on_mesh = [], lanes._on_mesh

    def recorded(mesh, start, chunk):
        start, chunk = on_mesh(mesh, start, chunk)
        return start, lambda *args: calls.append((chunk, args)) or chunk(*args)

    monkeypatch.setattr(lanes, "_on_mesh", recorded)
    run(RandomWalk(), num_chains=4, mesh=MESH)
    chunk, args = calls[-1]
    program = jax.jit(chunk).lower(*args).compile().as_text()
    assert "while" in program
    for word in ("all-reduce", "all-gather", "all-to-all", "collective"):
        assert word not in program


def test_a_second_run_on_new_data_compiles_nothing(whole, capsys, monkeypatch):
    for name in ("CI", "PYTEST_XDIST_WORKER"):  # where NumPyro shows no bar
        monkeypatch.delenv(name, raising=False)
    data, key = DATA + 1.0, random.key(7)
    run(key=random.key(6), data=data)
    with compilations() as names:
        second = run(key=key, data=data + DATA)
        # Shown or not, the bar is no part of the program.
        ns.StoredMCMC(
            KERNEL, num_warmup=30, num_samples=60, num_chains=2, chunk_size=7, progress_bar=True
        ).run(key, data, extra_fields=("potential_energy",))
    assert names in ([], ["jit(add)"])
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("step/s", "divergences=0", "r_hat=", "bulk_ess="))
    assert not equal(second.get_samples(), whole.get_samples())


def test_a_model_that_reads_what_has_changed_is_compiled_again():
    class Weighted(RandomWalk):
        weight = np.ones(2, np.float32)

        def _energy(self, z, y):
            return super()._energy(z, y) + 50.0 * (z["mu"] @ self.weight - 3.0) ** 2

    kernel = Weighted()
    assert abs(run(kernel).get_samples()["mu"][30:].sum(axis=1).mean() - 3.0) < 0.5
    Weighted.weight = -np.ones(2, np.float32)
    assert abs(run(kernel).get_samples()["mu"][30:].sum(axis=1).mean() + 3.0) < 0.5


def test_the_face_is_that_of_mcmc(whole, capsys):
    assert isinstance(whole, MCMC)
    whole.print_summary()
    assert "mu[0]" in capsys.readouterr().out
    data = ns.to_inference_data(whole)
    assert data["posterior"]["mu"].dims == ("chain", "draw", "group")
    assert "RandomWalk" in str(ns.diagnose(whole))


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"chunk_size": 0}, "chunk_size must be a positive integer"),
        ({"num_chains": 3, "mesh": MESH}, "do not divide evenly among 2 devices"),
        ({"until": 1.01}, "until must be a rule"),
        ({"keep": ("mu", "nu")}, r"keep names \['nu'\]"),
        ({"store": object()}, "has no load, create"),
    ],
)
def test_what_cannot_be_is_refused_in_words(settings, words):
    with pytest.raises((TypeError, ValueError), match=words):
        run(**settings)
    with pytest.raises(TypeError, match="the class; call it"):
        ns.StoredMCMC(RandomWalk, num_warmup=1, num_samples=1)


def test_a_state_that_is_no_array_is_refused():
    class WithName(RandomWalk):
        def init(self, *args):
            return super().init(*args)._replace(i="zero")

        def sample(self, state, *args):
            return super().sample(state._replace(i=0), *args)

    with pytest.raises(TypeError, match="holds a str"):
        run(WithName())


def test_fields_are_numbers_and_have_names(tmp_path):
    settings = {"num_warmup": 5, "num_samples": 3, "progress_bar": False}
    mcmc = ns.StoredMCMC(KERNEL, store=tmp_path / "run.zarr", **settings)
    mcmc.run(KEY, DATA, extra_fields=("rng_key",))
    last = random.key_data(mcmc.last_state.rng_key)
    assert equal(mcmc.get_extra_fields()["rng_key"][-1], last)
    with pytest.raises(ValueError, match="'energies', but a WalkState.* has z, potential"):
        mcmc.run(KEY, DATA, extra_fields=("energies",))
