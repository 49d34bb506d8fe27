# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Batches from a stream, and points with labels."""

import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training.helpers import DATA, number, quick_fit, weight

from numpyro_scores.training import _batches

pytestmark = pytest.mark.usefixtures("quick_compilation")

FROZEN = {"optimizer": optax.sgd(0.0)}


def digits(module, x, *, key):
    """A loss that names the points of a batch, in their order."""
    return jnp.sum(x[:, 0] * 10.0 ** jnp.arange(len(x))) + 0 * module.args[0]


def points(*values):
    return np.array(values, np.float32)[:, None]


def test_batches_of_any_size_are_joined_and_cut():
    batches = [points(1, 2, 3), points(4), points(5, 6, 7, 8, 9), points(1)]
    losses = quick_fit(number(1.0), digits, batches, batch_size=4, num_steps=6, **FROZEN).losses
    # Ten points a pass, pass after pass: none is left out, none counts twice.
    np.testing.assert_allclose(losses, [4321, 8765, 2119, 6543, 1987, 4321])


@pytest.mark.parametrize("limit", [1, _batches.MAX_STREAM_BYTES])
def test_a_stream_is_read_once_and_traces_once(monkeypatch, limit):
    monkeypatch.setattr(_batches, "MAX_STREAM_BYTES", limit)
    traces, read = [], []

    def counted(module, x, *, key):
        traces.append(x)
        return digits(module, x, key=key)

    def stream():
        for i in itertools.count():
            read.append(i)
            yield points(i % 10, (i + 1) % 10)

    losses = quick_fit(number(1.0), counted, stream(), batch_size=2, num_steps=130, **FROZEN).losses
    np.testing.assert_allclose(losses, [t % 10 + 10 * ((t + 1) % 10) for t in range(130)])
    assert len(traces) == 2
    assert len(read) == 130


def test_a_stream_of_one_point_trains_like_that_point():
    # A list is read again and again; floats of another precision become those of JAX.
    for module in (
        quick_fit(data=[DATA[:1].astype(float)]),
        quick_fit(data=DATA[:1], batch_size=1),
    ):
        assert weight(module.module).dtype == np.float32
    stream = quick_fit(data=[DATA[:1]], num_steps=50, optimizer=optax.sgd(0.01))
    memory = quick_fit(data=np.repeat(DATA[:1], 8, 0), num_steps=50, optimizer=optax.sgd(0.01))
    np.testing.assert_allclose(stream.losses, memory.losses, rtol=1e-5)


def test_labels_stay_with_their_points():
    def mismatch(module, batch, *, key):
        return jnp.sum((batch["x"][:, 0] - batch["label"]) ** 2) + 0 * module.args[0]

    data = {"x": points(*range(9)), "label": np.arange(9)}
    streamed = [{name: x[i : i + 2] for name, x in data.items()} for i in range(0, 8, 2)]
    for source in (data, streamed):
        fitted = quick_fit(number(1.0), mismatch, source, batch_size=3, validation=data)
        assert not np.any(fitted.losses) and not np.any(fitted.validation_losses)


@pytest.mark.parametrize(
    "data, error, message",
    [
        (iter([DATA[:100]]), ValueError, "ended after 100 points, .* at 8 a step. Give an iter"),
        ([], ValueError, "ended after 0 points"),
        ([DATA, DATA[:, :2]], ValueError, r"batch 1 has \(\(2,\), 'float32'\) and the first one"),
        ([DATA, DATA * np.inf], ValueError, "batch 1 must be finite: 600 of 600"),
        ([DATA.astype(int)], TypeError, "batch 0 must be floats, got int"),
        (iter([DATA[0]]), ValueError, "batch 0 must be a batch of points"),
        ({"x": DATA, "label": DATA[:3]}, ValueError, "must have one leading axis"),
        ({"x": DATA, "label": 1.0}, ValueError, "must have one leading axis"),
        ({"x": DATA, "label": DATA * np.nan}, ValueError, r"data\['label'\] must be finite"),
    ],
)
def test_a_bad_source_is_told(data, error, message):
    with pytest.raises(error, match=message):
        quick_fit(number(1.0), lambda module, x, *, key: module.args[0], data, num_steps=30)
