# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Several devices, several processes, another precision."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from training.helpers import DATA, number, quick_fit, weight

from numpyro_scores.training import _steps, _training

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("data", [DATA, [DATA[:50], DATA[50:57]]], ids=["memory", "stream"])
@pytest.mark.parametrize(
    "axis_type", [AxisType.Auto, pytest.param(AxisType.Explicit, marks=pytest.mark.slow)]
)
def test_two_devices_train_as_one(data, axis_type, tmp_path):
    mesh = jax.make_mesh((2, 1), ("a", "b"), axis_types=(axis_type,) * 2)
    options = {"data": data, "validation": DATA[:21], "num_steps": 60}
    one, two = quick_fit(**options), quick_fit(**options, mesh=mesh)
    np.testing.assert_allclose(two.losses, one.losses, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(two.validation_losses, one.validation_losses, rtol=1e-5)
    np.testing.assert_allclose(weight(two.module), weight(one.module), rtol=1e-5, atol=1e-6)
    # The module comes back to one device, to be used like any other.
    assert two.module.args[0].devices() == one.module.args[0].devices()


def test_each_device_has_its_share_of_the_batch():
    shardings = []

    def seen(module, x, *, key):
        jax.debug.inspect_array_sharding(x, callback=shardings.append)
        return jnp.mean(jax.vmap(module)(x) ** 2)

    quick_fit(objective=seen, mesh=jax.make_mesh((2,), ("batch",)))
    assert {sharding.shard_shape((8, 3)) for sharding in shardings} == {(4, 3)}


def test_a_batch_that_cannot_be_shared_is_told():
    with pytest.raises(ValueError, match="got batch_size=7 and a mesh of 2 devices"):
        quick_fit(batch_size=7, mesh=jax.make_mesh((2,), ("batch",)))


def test_a_precision_is_that_of_the_loss_and_not_of_the_updates():
    dtypes = []

    def seen(module, x, *, key):
        dtypes.append((module.args[0].dtype, x.dtype))
        return jnp.sum((module.args[0] - jnp.mean(x)) ** 2)

    # An update of 2^-12 would be lost in bfloat16, whose next number after 1 is 1 + 2^-7.
    optimizer = optax.chain(optax.scale_by_sign(), optax.sgd(2**-12))
    fitted = quick_fit(
        number(1.0),
        seen,
        np.zeros((8, 1)),
        optimizer=optimizer,
        precision=jnp.bfloat16,
        ema_decay=0,
    )
    assert set(dtypes) == {(jnp.dtype(jnp.bfloat16),) * 2}
    assert weight(fitted.module).dtype == np.float32
    np.testing.assert_allclose(weight(fitted.module), 1 - 20 * 2**-12, rtol=1e-7)
    with pytest.raises(ValueError, match="precision must be a type of floats .* got 'int8'"):
        quick_fit(precision="int8")


def test_convolutions_are_not_trained_in_a_loop(monkeypatch):
    # Their gradients are slow in a loop on a CPU; one step a call is the same training.
    def convolve(kernel, x):
        return jnp.convolve(x, kernel, mode="same")

    module = jax.tree_util.Partial(convolve, jnp.array([0.1, 0.5, 0.2]))
    chosen, make_run = [], _steps.make_run

    def spy(step, capacity, sharding, one_by_one):
        chosen.append(one_by_one)
        return make_run(step, capacity, sharding, one_by_one and len(chosen) == 1)

    monkeypatch.setattr(_training, "make_run", spy)
    by_one, by_loop = quick_fit(module, num_steps=60), quick_fit(module, num_steps=60)
    assert chosen == [jax.default_backend() == "cpu"] * 2
    np.testing.assert_allclose(by_one.losses, by_loop.losses, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weight(by_one.module), weight(by_loop.module), rtol=1e-5)
    quick_fit()
    assert not chosen[-1]


PROGRAM = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 1)
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import numpy as np
from training.helpers import DATA, quick_fit, weight

class Interrupted(Exception):
    pass

def interrupt(progress):
    if progress.step == 12:
        raise Interrupted

options = {"mesh": jax.make_mesh((2,), ("batch",)), "data": eval(sys.argv[5]),
    "validation": DATA[:21], "checkpoint_dir": sys.argv[3], "checkpoint_every": 5}
try:
    quick_fit(**options, callbacks=[interrupt])
except Interrupted:
    fitted = quick_fit(**options)
np.savez(sys.argv[4], weight(fitted.module), fitted.losses, fitted.validation_losses)
"""


@pytest.mark.slow
@pytest.mark.parametrize("data", ["DATA", "[DATA[:50], DATA[50:57]]"])
def test_two_processes_train_as_one(tmp_path, data):
    with socket.socket() as server:
        server.bind(("localhost", 0))
        address = f"localhost:{server.getsockname()[1]}"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "JAX_PLATFORMS": "cpu",
    }
    files = [tmp_path / f"{i}.npz" for i in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(i), tmp_path / "kept", files[i], data],
            env=environment,
        )
        for i in range(2)
    ]
    try:
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    alone = quick_fit(data=eval(data), validation=DATA[:21])
    for file in files:
        with np.load(file) as found:
            arrays = [found[name] for name in found.files]
        np.testing.assert_allclose(arrays[0], weight(alone.module), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(arrays[1], alone.losses, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(arrays[2], alone.validation_losses, rtol=1e-5)
