# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A checkpoint of another training is refused, a longer training goes on from it."""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from jax.tree_util import Partial
from training.helpers import DATA, number, quick_fit, weight

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")


@dataclass(frozen=True)
class Scaled:
    scale: float

    def __call__(self, module, x, *, key):
        return self.scale * jnp.sum(module.args[0] ** 2)


class Plain:
    def __init__(self, scale):
        self.scale = jnp.asarray(scale)

    def __call__(self, module, x, *, key):
        return self.scale * jnp.sum(module.args[0] ** 2)


def closure(scale):
    return lambda module, x, *, key: scale * jnp.sum(module.args[0] ** 2)


def with_argument(scale, module, x, *, key):
    return scale * jnp.sum(module.args[0] ** 2)


def noise(scale):
    normal = dist.Normal(jnp.zeros(3), jnp.full(3, scale)).to_event(1)
    energy = ns.objectives.NoiseContrastiveEstimation(normal)
    return lambda module, x, *, key: energy(lambda x: jnp.sum(module(x)), x, key=key)


@pytest.mark.parametrize(
    "make",
    [
        Scaled,
        Plain,
        closure,
        noise,
        lambda scale: partial(with_argument, scale),
        lambda scale: Plain(scale).__call__,
        lambda scale: Partial(with_argument, jnp.asarray(scale)),
    ],
    ids=["dataclass", "object", "closure", "noise", "partial", "method", "Partial"],
)
def test_another_objective_is_told(tmp_path, make):
    options = {"module": number(1.0), "num_steps": 2, "checkpoint_dir": tmp_path}
    done = quick_fit(**options, objective=make(1.0))
    again = quick_fit(**options, objective=make(1.0))
    np.testing.assert_array_equal(done.losses, again.losses)
    with pytest.raises(ValueError, match=r"(?s)another training.*objective.*1.0.* there, .*50.0"):
        quick_fit(**options, objective=make(50.0))


def test_another_optimizer_is_told(tmp_path):
    options = {"num_steps": 2, "checkpoint_dir": tmp_path}
    quick_fit(**options, optimizer=optax.chain(optax.clip(1.0), optax.adam(1e-3)))
    quick_fit(**options, optimizer=optax.chain(optax.clip(1.0), optax.adam(1e-3)))
    for other in (
        optax.chain(optax.clip(1.0), optax.adam(2e-3)),
        optax.chain(optax.clip(1.0), optax.adam(1e-3, b1=0.5)),
        optax.chain(optax.clip(2.0), optax.adam(1e-3)),
        None,
    ):
        with pytest.raises(ValueError, match="(?s)another training.*optimizer"):
            quick_fit(**options, optimizer=other)


def test_other_constants_of_the_module_are_told(tmp_path):
    def prior(reference):
        score = Partial(lambda w, x: -w * x, jnp.ones(3))
        return ns.ScoreDistribution(score, 3, reference=jnp.full(3, reference))

    def loss(module, x, *, key):
        return jnp.sum(module.score.args[0] ** 2)

    options = {"objective": loss, "num_steps": 2, "checkpoint_dir": tmp_path}
    quick_fit(prior(0.0), **options)
    quick_fit(prior(0.0), **options)
    with pytest.raises(ValueError, match="(?s)another training.*constants"):
        quick_fit(prior(1.0), **options)


@pytest.mark.parametrize("data", [DATA, [DATA[:50], DATA[50:57]]], ids=["memory", "stream"])
def test_a_longer_training_goes_on_from_a_shorter_one(tmp_path, data):
    options = {"data": data, "optimizer": optax.adam(1e-2), "validation": DATA[:20]}
    options |= {"validate_every": 5}
    whole = quick_fit(**options, num_steps=30)
    short = quick_fit(**options, num_steps=15, checkpoint_dir=tmp_path)
    seen = []
    longer = quick_fit(
        **options, num_steps=30, checkpoint_dir=tmp_path, callbacks=lambda p: seen.append(p.step)
    )
    assert min(seen) > 15
    np.testing.assert_array_equal(short.losses, whole.losses[:15])
    np.testing.assert_array_equal(longer.losses, whole.losses)
    np.testing.assert_array_equal(longer.validation_losses, whole.validation_losses)
    np.testing.assert_array_equal(longer.validation_steps, np.arange(5, 35, 5))
    np.testing.assert_array_equal(weight(longer.module), weight(whole.module))
    with pytest.raises(ValueError, match="of 30 steps, more than num_steps=15"):
        quick_fit(**options, num_steps=15, checkpoint_dir=tmp_path)


def test_a_schedule_of_another_length_is_told(tmp_path):
    def options(num_steps):
        schedule = optax.cosine_decay_schedule(1e-2, num_steps)
        return {"num_steps": num_steps, "optimizer": optax.sgd(schedule)}

    quick_fit(**options(10), checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="optimizer .*decay_steps: '10' there, '20' now"):
        quick_fit(**options(20), checkpoint_dir=tmp_path)
    # The default one follows the longer schedule from there.
    quick_fit(num_steps=10, checkpoint_dir=tmp_path / "default")
    assert len(quick_fit(num_steps=20, checkpoint_dir=tmp_path / "default").losses) == 20
