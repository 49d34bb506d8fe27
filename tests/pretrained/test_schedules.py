# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The processes of scheduler files: their noise levels, and what lies between two of them."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import numpyro_scores as ns
from numpyro_scores.pretrained.noise_table import NoiseTable
from numpyro_scores.pretrained.schedule import read_schedule

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = Path(__file__).resolve().parents[1] / "data" / "diffusers"


def schedule_of(tmp_path, name="DDPMScheduler", **fields):
    path = tmp_path / "scheduler_config.json"
    path.write_text(json.dumps({"_class_name": name, **fields}))
    return read_schedule(path)


def test_a_table_of_the_linear_schedule_is_the_chain(x64, tmp_path):
    betas = np.linspace(1e-4, 2e-2, 1000).tolist()
    table, chain = schedule_of(tmp_path, trained_betas=betas).process, ns.DDPM()
    assert schedule_of(tmp_path).process == chain
    assert isinstance(table, NoiseTable)
    assert hash(table) == hash(NoiseTable(table.log_levels))
    t = np.array([0.0, 0.2137, 1.0])
    for method in ("noise_level", "scale"):
        found, wanted = getattr(table, method)(t), getattr(chain, method)(t)
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
    sigma = np.array([0.01, 0.3, 157.0])
    np.testing.assert_allclose(table.step(sigma), chain.step(sigma), rtol=1e-10)
    np.testing.assert_allclose(table.time(sigma), chain.time(sigma), rtol=1e-10)
    assert table.sigma_max == pytest.approx(chain.sigma_max)


def test_interpolation_between_steps(x64, tmp_path):
    """
    Of a chain with every other step taken out, log sigma is met at the steps that are missing. The
    error falls with the square of the distance; so between true steps it is a quarter of this.
    """
    table = schedule_of(tmp_path, trained_betas=np.linspace(1e-4, 2e-2, 1000).tolist()).process
    levels = np.asarray(table.log_levels)
    coarse = NoiseTable(tuple(levels[::2].tolist()))
    error = np.abs(np.log(coarse.noise_level(np.arange(1, 998, 2) / 998)) - levels[1:-1:2])
    assert 0.01 < error[0] / 4 < 0.05  # between the first steps, where sigma grows by a half
    assert (error[10:] / 4).max() < 5e-4
    assert (error[100:] / 4).max() < 1e-5


def test_a_step_without_signal_is_cut(x64, tmp_path):
    process = schedule_of(tmp_path, rescale_betas_zero_snr=True, num_train_timesteps=50).process
    assert len(process.log_levels) == 49
    # The signal is shifted and stretched: the first level stays.
    before = schedule_of(tmp_path, num_train_timesteps=50).process
    assert process.sigma_min == pytest.approx(before.sigma_min)
    assert process.sigma_max > before.sigma_max


def test_the_defaults_of_a_scheduler_are_its_own(tmp_path):
    assert schedule_of(tmp_path, "HeunDiscreteScheduler").process == ns.DDPM(1000, 0.00085, 0.012)


def test_score_sde_counts_its_time_in_steps(x64, tmp_path):
    schedule = schedule_of(tmp_path, "ScoreSdeVpScheduler", num_train_timesteps=1000)
    assert schedule.process == ns.VariancePreserving(0.1, 20.0)
    sigma = schedule.process.noise_level(0.25)
    np.testing.assert_allclose(schedule.condition(sigma), 0.25 * 999, rtol=1e-9)


def test_half_of_the_channels_is_a_variance(tmp_path):
    """...only where the scheduler says so."""
    shutil.copytree(DATA / "identity_class", tmp_path / "model")
    label = np.zeros(20)
    model = ns.load_diffusers(tmp_path / "model", label=label)
    x = np.ones(model.event_shape, np.float32)
    evaluate = jax.jit(lambda network: network(x, 3.0))
    both = evaluate(model.denoiser.network.network)
    assert both.shape == (4, 4, 2)
    first = evaluate(model.denoiser.network)
    np.testing.assert_allclose(first, both[..., :1], rtol=1e-5, atol=1e-6)
    schedule_of(tmp_path / "model")
    with pytest.raises(ValueError, match="must put out 1 channels"):
        ns.load_diffusers(tmp_path / "model", label=label)
