# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints: what is interrupted, killed or out of space goes on where it was."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import random
from jax.tree_util import Partial
from training.helpers import DATA, distance, number, quick_fit

from numpyro_scores.objectives import PersistentContrastiveDivergence, SlicedScoreMatching

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).resolve().parents[2]


class Interrupted(Exception):
    pass


def interrupt_after(step):
    def callback(progress):
        if progress.step >= step:
            raise Interrupted

    return callback


def leaves(fitted):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(fitted)]


def quadratic(P, x):
    return x @ P @ x / 2


def persistent():
    def gibbs(potential_fn):
        from numpyro_scores.infer import ULA

        return ULA(potential_fn=potential_fn, step_size=0.1)

    return PersistentContrastiveDivergence(num_chains=4, sampler=gibbs)


@pytest.mark.parametrize(
    "options",
    [
        {"validation": DATA[:20], "patience": 100, "validate_every": 6},
        {"data": [DATA[:30], DATA[30:37]], "optimizer": optax.contrib.schedule_free_sgd(0.01)},
        {"module": Partial(quadratic, jnp.eye(3)), "objective": persistent()},
        pytest.param(
            {"optimizer": optax.chain(optax.add_noise(0.1, 0.5, random.key(3)), optax.sgd(0.01))},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["validation", "stream", "chains", "a key in the optimizer"],
)
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(tmp_path, options):
    whole = quick_fit(**options)
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 5}
    for step in (3, 8, 13):
        with pytest.raises(Interrupted):
            quick_fit(**options, **kept, callbacks=[interrupt_after(step)])
    seen = []
    resumed = quick_fit(**options, **kept, callbacks=[lambda progress: seen.append(progress.step)])
    assert seen[0] == 11 and seen[-1] == 20
    finished = quick_fit(**options, **kept, callbacks=[interrupt_after(0)])
    for again in (resumed, finished):
        for leaf, expected in zip(leaves(again), leaves(whole), strict=True):
            np.testing.assert_array_equal(leaf, expected)
            assert leaf.dtype == expected.dtype


def test_early_stopping_is_remembered(tmp_path):
    options = {
        "data": np.zeros((1, 1)),
        "batch_size": 1,
        "optimizer": optax.sgd(0.1),
        "validation": np.full((1, 1), 3.0),
        "validate_every": 1,
        "patience": 4,
        "checkpoint_dir": tmp_path,
    }
    stopped = quick_fit(number(4.0), distance, **options)
    assert len(stopped.losses) < 20
    again = quick_fit(number(4.0), distance, **options, callbacks=[interrupt_after(0)])
    for leaf, expected in zip(leaves(again), leaves(stopped), strict=True):
        np.testing.assert_array_equal(leaf, expected)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    quick_fit(checkpoint_dir=folder)
    return folder


@pytest.mark.parametrize(
    "options, words",
    [
        ({"batch_size": 4}, "batch_size: 8 there, 4 now"),
        ({"key": random.key(1)}, "key: "),
        ({"data": DATA + 1}, "data: "),
        ({"optimizer": optax.sgd(0.1)}, r"mu.0.0: 'float32\[3, 3\]' there, None"),
        ({"objective": SlicedScoreMatching(2)}, "objective num_projections: '1' there, '2' now"),
        ({"module": Partial(lambda P, x: -P @ P.T @ x, jnp.ones((3, 2)))}, r"float32\[3, 2\]' now"),
        (
            {"module": Partial(quadratic, jnp.eye(3))},
            r"module: .*linear_score.* there, .*quadratic",
        ),
        ({"precision": jnp.bfloat16}, "precision: None there, 'bfloat16' now"),
    ],
)
def test_a_checkpoint_of_another_training_is_told(finished, options, words):
    with pytest.raises(ValueError, match=f"(?s)step 20 .* of another training.*{words}"):
        quick_fit(**options, checkpoint_dir=finished)


def test_a_checkpoint_that_was_damaged_is_told(tmp_path):
    quick_fit(checkpoint_dir=tmp_path, checkpoint_every=10)
    for path in (tmp_path / "20").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])
    with pytest.raises(ValueError, match="step 20 in .* can't be read"):
        quick_fit(checkpoint_dir=tmp_path, checkpoint_every=10)


def test_parameters_that_are_not_finite_are_not_written(tmp_path):
    # The loss is finite where w = 0, but its gradient is not.
    def kink(module, x, *, key):
        w = module.args[0]
        return jnp.where(w > 0, w, 0 * jnp.sqrt(w))

    # Each step is one long: 4, 3, 2, 1, 0.
    options = {"optimizer": optax.chain(optax.scale_by_sign(), optax.sgd(1.0))}
    with pytest.raises(FloatingPointError, match="loss 0 of step 4 is finite, but its gradient"):
        quick_fit(number(4.0), kink, **options, checkpoint_dir=tmp_path, checkpoint_every=1)
    assert max(int(path.name) for path in tmp_path.iterdir()) == 4


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="No checkpoint can be written to checkpoint_dir="):
        quick_fit(checkpoint_dir=tmp_path / "file" / "folder")


def test_a_disk_that_is_full_is_told_and_leaves_the_last_checkpoint(tmp_path):
    # The limit on the size of a file fails a write as a full disk does.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    options = {"checkpoint_dir": tmp_path, "checkpoint_every": 10}
    try:
        with pytest.raises(OSError, match=r"step 20 could not .* \(that of 10 is there\)"):
            quick_fit(
                **options,
                callbacks=[
                    lambda progress: (
                        progress.step == 10
                        and resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))
                    )
                ],
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for leaf, expected in zip(leaves(quick_fit(**options)), leaves(quick_fit()), strict=True):
        np.testing.assert_array_equal(leaf, expected)


PROGRAM = """
import sys, time
import jax, numpy as np, optax
from flax import nnx
import numpyro_scores as ns

module = ns.nn.MLPDenoiser((3,), rngs=nnx.Rngs(0), hidden_features=16, num_layers=1)
objective = ns.objectives.DenoisingScoreMatching(ns.VarianceExploding(0.1, 3.0))
data = np.random.default_rng(0).normal(size=(200, 3))

def slowly(progress):
    print(progress.step, flush=True)
    time.sleep(float(sys.argv[2]))

fitted = ns.fit(module, objective, data, key=jax.random.key(0), num_steps=400, batch_size=32,
    progress_bar=False, validation=data[:50], callbacks=[slowly], checkpoint_every=9,
    checkpoint_dir=sys.argv[1])
np.savez(sys.argv[3], *jax.tree.leaves(fitted))
"""


def start(*arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_training_that_is_killed_ten_times_ends_as_one_that_is_not(tmp_path):
    whole, killed = tmp_path / "whole.npz", tmp_path / "killed.npz"
    process = start(tmp_path / "one", 0, whole)
    assert process.communicate() and process.returncode == 0
    rng, folder, steps = np.random.default_rng(0), tmp_path / "ten", []
    for _ in range(10):
        process = start(folder, 0.1, killed)
        steps.append(int(process.stdout.readline()))
        # A checkpoint is written about every 0.15 s.
        time.sleep(rng.uniform(0, 0.8))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not killed.exists()
    assert steps == sorted(steps) and steps[-1] > steps[0]
    process = start(folder, 0, killed)
    assert process.communicate() and process.returncode == 0
    with np.load(whole) as expected, np.load(killed) as found:
        assert expected.files == found.files
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name])
