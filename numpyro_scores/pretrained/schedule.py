# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The process that a network was trained for, read from a `scheduler_config.json`."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from numpyro_scores.pretrained.config import fields_of, read_json
from numpyro_scores.pretrained.kinds import COUNT, NUMBER_OR_ZERO, POSITIVE, TRUTH, check_kinds
from numpyro_scores.pretrained.noise_table import NoiseTable
from numpyro_scores.processes import DDPM, TimedProcess, VarianceExploding, VariancePreserving

# Schedulers of one and the same chain; they differ in how they draw.
CHAINS = {
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
}
# Those whose first and last rate are, where the file has none, those of Stable Diffusion.
LATENT_DEFAULTS = {
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
}
# What the chain is: these fields are used.
OF_THE_CHAIN = {
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "variance_type",
}
# How the scheduler draws from it: our samplers have their own ways.
OF_THE_SAMPLER = {
    "algorithm_type",
    "clip_sample",
    "clip_sample_range",
    "correct_steps",
    "disable_corrector",
    "dynamic_thresholding_ratio",
    "euler_at_final",
    "final_sigmas_type",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "predict_x0",
    "sample_max_value",
    "set_alpha_to_one",
    "skip_prk_steps",
    "snr",
    "solver_order",
    "solver_p",
    "solver_type",
    "steps_offset",
    "thresholding",
    "timestep_spacing",
    "use_beta_sigmas",
    "use_exponential_sigmas",
    "use_karras_sigmas",
    "use_lu_lambdas",
}
# Fields that change what the network is asked, unless they have these values.
MUST_BE = {
    "flow_shift": (1, 1.0),
    "shift_terminal": (None,),
    "sigma_max": (None,),
    "sigma_min": (None,),
    "tensor_format": ("pt", "np"),
    "time_shift_type": ("exponential",),
    "timestep_type": ("discrete",),
    "timestep_values": (None,),
    "use_dynamic_shifting": (False,),
    "use_flow_sigmas": (False,),
}


KINDS = {
    "rescale_betas_zero_snr": TRUTH,
    "num_train_timesteps": COUNT,
    "beta_start": POSITIVE,
    "beta_end": POSITIVE,
    "beta_min": POSITIVE,
    "beta_max": POSITIVE,
    "sampling_eps": NUMBER_OR_ZERO,
}


class Schedule(NamedTuple):
    """
    :param process: the noise process.
    :param condition: what the network sees of a noise level.
    :param prediction: `"epsilon"`, `"sample"`, `"v_prediction"` or `"score"`.
    :param data_range: the least and the largest value of a pixel.
    :param learns_variance: whether half of the network's output is the variance of a step.
    """

    process: TimedProcess
    condition: Callable[[Array], Array]
    prediction: str
    data_range: tuple[float, float]
    learns_variance: bool = False


def read_schedule(path: Path) -> Schedule:
    """
    :param path: a `scheduler_config.json`.
    :raises ValueError: if it is of a class, or has a field or a value, that isn't handled.
    """
    found = read_json(path)
    name = found.get("_class_name")
    try:
        if name in CHAINS:
            known = OF_THE_CHAIN | OF_THE_SAMPLER | set(MUST_BE)
            return _chain(name, fields_of(path, found, known))
        if name == "ScoreSdeVeScheduler":
            return _variance_exploding(fields_of(path, found, _VE_FIELDS))
        if name == "ScoreSdeVpScheduler":
            return _variance_preserving(fields_of(path, found, _VP_FIELDS))
    except (TypeError, ValueError) as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{str(path)!r}: {error}") from error
    raise ValueError(
        f"{str(path)!r} is of the class {name!r}, which load_diffusers does not handle; handled "
        f"are {', '.join(sorted(CHAINS))}, ScoreSdeVeScheduler and ScoreSdeVpScheduler."
    )


def _chain(name: str, values: dict[str, Any]) -> Schedule:
    check_kinds(values, KINDS)
    for field, allowed in MUST_BE.items():
        if field in values and values[field] not in allowed:
            raise ValueError(f"{field} = {values[field]!r} is not handled; handled is {allowed}.")
    prediction = values.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "sample", "v_prediction"):
        raise ValueError(
            f"prediction_type = {prediction!r} is not handled; handled are epsilon, sample and "
            "v_prediction."
        )
    process = _chain_process(name, values)
    learns = values.get("variance_type") in ("learned", "learned_range")
    return Schedule(process, process.step, prediction, (-1.0, 1.0), learns)


def _chain_process(name: str, values: dict[str, Any]) -> DDPM | NoiseTable:
    number = values.get("num_train_timesteps", 1000)
    latent = name in LATENT_DEFAULTS
    start = values.get("beta_start", 0.00085 if latent else 0.0001)
    end = values.get("beta_end", 0.012 if latent else 0.02)
    kind = values.get("beta_schedule", "linear")
    trained, zero = values.get("trained_betas"), values.get("rescale_betas_zero_snr", False)
    if trained is None and kind == "linear" and not zero:
        return DDPM(number, start, end)
    betas = np.asarray(trained, float) if trained is not None else _betas(kind, number, start, end)
    return NoiseTable(tuple(_log_levels(betas, zero).tolist()))


def _betas(kind: str, number: int, start: float, end: float) -> np.ndarray:
    """The rates of a chain by the name of their schedule."""
    if kind == "linear":
        return np.linspace(start, end, number)
    if kind == "scaled_linear":
        return np.linspace(math.sqrt(start), math.sqrt(end), number) ** 2
    if kind == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, equation 17
        signal = np.cos((np.arange(number + 1) / number + 0.008) / 1.008 * math.pi / 2) ** 2
        return np.minimum(1 - signal[1:] / signal[:-1], 0.999)
    if kind == "sigmoid":
        return start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, number)))
    raise ValueError(
        f"beta_schedule = {kind!r} is not handled; handled are linear, scaled_linear, "
        "squaredcos_cap_v2, sigmoid and trained_betas."
    )


def _log_levels(betas: np.ndarray, zero_terminal_snr: bool) -> np.ndarray:
    r"""
    :math:`\log \sigma_k`. With `zero_terminal_snr` the signal :math:`\sqrt{\bar\alpha_k}` is
    shifted and stretched until it vanishes at the last step (Lin et al. 2024, algorithm 1). Steps
    without any signal, whose noise level is infinite, are cut off.
    """
    if betas.ndim != 1 or betas.size < 2 or not ((betas > 0) & (betas <= 1)).all():
        raise ValueError("the rates of the chain (betas) must be two or more in (0, 1].")
    with np.errstate(divide="ignore"):
        log_signal = np.cumsum(np.log1p(-betas)) / 2
        if zero_terminal_snr:
            signal = np.exp(log_signal)
            log_signal = np.log((signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1])))
    log_signal = log_signal[np.isfinite(log_signal)]
    return np.log(np.expm1(-2 * log_signal)) / 2


_VE_FIELDS = {
    "num_train_timesteps",
    "snr",
    "sigma_min",
    "sigma_max",
    "sampling_eps",
    "correct_steps",
    "tensor_format",
}
_VP_FIELDS = {"num_train_timesteps", "beta_min", "beta_max", "sampling_eps", "tensor_format"}


def _variance_exploding(values: dict[str, Any]) -> Schedule:
    check_kinds(values, KINDS | {"sigma_min": POSITIVE, "sigma_max": POSITIVE})
    process = VarianceExploding(values.get("sigma_min", 0.01), values.get("sigma_max", 1348.0))
    return Schedule(process, _the_level, "score", (0.0, 1.0))


def _the_level(sigma: Array) -> Array:
    return sigma


def _variance_preserving(values: dict[str, Any]) -> Schedule:
    check_kinds(values, KINDS)
    process = VariancePreserving(
        values.get("beta_min", 0.1), values.get("beta_max", 20.0), values.get("sampling_eps", 1e-3)
    )
    last = values.get("num_train_timesteps", 2000) - 1
    return Schedule(process, StepsOfTime(process, last), "epsilon", (-1.0, 1.0))


class StepsOfTime(NamedTuple):
    """The time in [0, 1] in units of steps, which is what these networks count."""

    process: VariancePreserving
    last: int

    def __call__(self, sigma: Array) -> Array:
        return self.last * self.process.time(sigma)
