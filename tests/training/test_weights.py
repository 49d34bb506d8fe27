# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Weights in a file: what is read is what was written, and nothing else."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import random
from jax.tree_util import Partial
from safetensors.numpy import save_file
from training.helpers import linear_score

from numpyro_scores.distributions import BernoulliRBM
from numpyro_scores.nn import MLPDenoiser
from numpyro_scores.training import load_weights, save_weights, weights

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROOT = Path(__file__).resolve().parents[2]


def denoiser(seed=0, shape=(3,), **options):
    options = {"hidden_features": 4, "num_layers": 1} | options
    return MLPDenoiser(shape, rngs=nnx.Rngs(seed), **options)


class Mixed(nnx.Module):
    """Arrays of several kinds, and a random stream."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.weight = nnx.Param(jnp.asarray(rng.normal(size=3), jnp.bfloat16))
        self.mean = nnx.BatchStat(jnp.asarray(rng.normal()))
        self.order = nnx.Variable(jnp.asarray(rng.permutation(3)))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))

    def __call__(self, x):
        return self.weight[...] * x[self.order[...]] - self.mean[...]


def network(seed):
    return eqx.nn.MLP(3, 3, 4, 1, key=random.key(seed))


@pytest.mark.parametrize(
    "make",
    [denoiser, Mixed, network, lambda seed: Partial(linear_score, seed + jnp.eye(3))],
    ids=["nnx", "kinds", "equinox", "partial"],
)
def test_a_module_comes_back_bit_for_bit(tmp_path, make):
    saved, fresh, x = make(0), make(1), jnp.array([0.3, -1.0, 2.0])
    args = (x, 0.7) if isinstance(saved, MLPDenoiser) else (x,)
    save_weights(tmp_path / "weights.safetensors", saved)
    before = fresh(*args)
    loaded = load_weights(tmp_path / "weights.safetensors", fresh)
    np.testing.assert_array_equal(loaded(*args), saved(*args))
    np.testing.assert_array_equal(fresh(*args), before)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("function", [save_weights, load_weights])
def test_arguments_in_another_order_are_told(function):
    with pytest.raises(TypeError, match=r"weights takes the path .* got MLPDenoiser for the path"):
        function(denoiser(), "weights.safetensors")


def test_the_file_says_what_it_is_of(tmp_path):
    save_weights(tmp_path / "w", denoiser())
    with weights.safe_open(tmp_path / "w", framework="numpy") as file:
        found = json.loads(file.metadata()[weights.ENTRY])
        assert "denoiser.network.blocks.0.linear_in.kernel" in file.keys()
    assert found[""] == "MLPDenoiser" and found["event_shape"] == "(3,)"
    assert found["denoiser.sigma_data"] == "1.0"


@pytest.mark.parametrize(
    "module, words",
    [
        (denoiser(sigma_data=0.5), r"denoiser.sigma_data: '1.0' there, '0.5' now"),
        (denoiser(shape=(3, 1)), r"event_shape: '\(3,\)' there, '\(3, 1\)' now"),
        (denoiser(hidden_features=5), r"embed.bias: 'float32\[4\]' there, 'float32\[5\]' now"),
        (denoiser(num_layers=2), r"blocks.1.norm.bias: None there, 'float32\[4\]' now"),
        (network(0), "configuration: .* there, .PyTreeDef"),
        (
            jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), denoiser()),
            r"'float32\[4\]' there, 'bfloat16\[4\]' now",
        ),
    ],
)
def test_weights_of_another_module_are_told(tmp_path, module, words):
    save_weights(tmp_path / "w", denoiser())
    with pytest.raises(ValueError, match=f"(?s)make it as it was made then.*{words}"):
        load_weights(tmp_path / "w", module)


def test_a_class_that_has_become_public_is_the_same(tmp_path):
    private = type("_Mixed", (Mixed,), {})
    save_weights(tmp_path / "w", private(0))
    loaded = load_weights(tmp_path / "w", Mixed(1))
    np.testing.assert_array_equal(loaded.order[...], private(0).order[...])


def test_missing_and_extra_weights_are_told(tmp_path):
    save_weights(tmp_path / "w", denoiser())
    with weights.safe_open(tmp_path / "w", framework="numpy") as file:
        metadata = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    bias = arrays.pop("denoiser.network.embed.bias")
    save_file(arrays | {"another": bias}, tmp_path / "w", metadata)
    with pytest.raises(ValueError, match=r"(?s)another: .* None now.*embed.bias: None there"):
        load_weights(tmp_path / "w", denoiser())


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_told(tmp_path, keep):
    save_weights(tmp_path / "w", denoiser())
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:keep])
    with pytest.raises(ValueError, match="can't be read as safetensors, it is damaged"):
        load_weights(tmp_path / "w", denoiser())


def test_a_foreign_file_is_told(tmp_path):
    (tmp_path / "w").write_bytes(b"something else " * 10)
    with pytest.raises(ValueError, match="can't be read as safetensors"):
        load_weights(tmp_path / "w", denoiser())
    save_file({"weight": np.ones(3)}, tmp_path / "w")
    with pytest.raises(ValueError, match="holds arrays, but not those of save_weights"):
        load_weights(tmp_path / "w", denoiser())
    # A header that promises what isn't there.
    (tmp_path / "w").write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ValueError, match="can't be read as safetensors"):
        load_weights(tmp_path / "w", denoiser())
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "none", denoiser())


def test_a_file_that_cannot_be_written_is_told_and_the_old_one_stays(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="weights can't be written to"):
        save_weights(tmp_path / "no folder" / "w", denoiser())
    save_weights(tmp_path / "w", denoiser())
    before = (tmp_path / "w").read_bytes()

    def full(arrays, part, metadata):
        part.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(tmp_path / "w", denoiser(1))
    assert (tmp_path / "w").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_names_with_dots_are_kept_apart(tmp_path):
    def module(a, b):
        return Partial(linear_score, {"a.b": jnp.full(2, a), "a": {"b": jnp.full(2, b)}})

    save_weights(tmp_path / "w", module(1.0, 2.0))
    loaded = load_weights(tmp_path / "w", module(0.0, 0.0)).args[0]
    np.testing.assert_array_equal(loaded["a.b"], 1)
    np.testing.assert_array_equal(loaded["a"]["b"], 2)


def test_the_arrays_of_a_distribution_have_the_names_of_its_fields(tmp_path):
    # NumPyro's own order of fields is another in each process.
    def machine(a, b):
        return BernoulliRBM(jnp.ones((2, 2)), jnp.full(2, a), jnp.full(2, b))

    save_weights(tmp_path / "w", machine(1.0, 2.0))
    with weights.safe_open(tmp_path / "w", framework="numpy") as file:
        assert sorted(file.keys()) == ["hidden_bias", "visible_bias", "weights"]
    loaded = load_weights(tmp_path / "w", machine(0.0, 0.0))
    np.testing.assert_array_equal(loaded.visible_bias, 1)
    np.testing.assert_array_equal(loaded.hidden_bias, 2)


def test_what_a_distribution_holds_is_saved_without_its_random_streams(tmp_path):
    save_weights(tmp_path / "w", Partial(jnp.multiply, Mixed(0)))
    loaded = load_weights(tmp_path / "w", Partial(jnp.multiply, Mixed(1))).args[0]
    np.testing.assert_array_equal(loaded.order[...], Mixed(0).order[...])


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2])
def test_floats_of_eight_bits_come_back(tmp_path, dtype):
    values = jnp.asarray([[0.5, -2.0, 1.5]], dtype)
    save_weights(tmp_path / "w", Partial(linear_score, values))
    loaded = load_weights(tmp_path / "w", Partial(linear_score, jnp.zeros_like(values)))
    assert loaded.args[0].dtype == dtype
    np.testing.assert_array_equal(loaded.args[0].astype(float), values.astype(float))


@pytest.mark.parametrize("entry", ["no JSON", "[1, 2]", "3"])
def test_foreign_metadata_are_told(tmp_path, entry):
    save_file({"weight": np.ones(3)}, tmp_path / "w", {weights.ENTRY: entry})
    with pytest.raises(ValueError, match="has metadata .* that save_weights did not write"):
        load_weights(tmp_path / "w", denoiser())


ACROSS = """
import sys
import jax.numpy as jnp
import numpyro_scores as ns
machine = lambda a, b: ns.BernoulliRBM(jnp.ones((2, 2)), jnp.full(2, a), jnp.full(2, b))
if sys.argv[2] == "save":
    ns.save_weights(sys.argv[1], machine(1.0, 2.0))
else:
    loaded = ns.load_weights(sys.argv[1], machine(0.0, 0.0))
    print(loaded.visible_bias[0], loaded.hidden_bias[0])
"""


@pytest.mark.slow
def test_another_process_reads_the_fields_of_a_distribution_by_name(tmp_path):
    def run(seed, action):
        command = [sys.executable, "-c", ACROSS, str(tmp_path / "w"), action]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    run(0, "save")
    for seed in (1, 2, 3):
        assert run(seed, "load").stdout.split() == ["1.0", "2.0"]
