# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A folder with a network of the authors of EDM as a denoiser and its process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from numpyro_scores.nn.preconditioning import Preconditioned
from numpyro_scores.pretrained.edm.config import EDMConfig, read_edm_config
from numpyro_scores.pretrained.edm.network import EDMUNet
from numpyro_scores.pretrained.loading import FirstChannels, PretrainedModel
from numpyro_scores.pretrained.noise_table import NoiseTable
from numpyro_scores.pretrained.schedule import StepsOfTime
from numpyro_scores.pretrained.tensors import Tensors
from numpyro_scores.processes import (
    EpsilonPrediction,
    TimedProcess,
    VarianceExploding,
    VariancePreserving,
)

WEIGHTS = "model.safetensors"
# Where the authors' sampler begins and ends, and what they trained on nearly all of.
SIGMA_MIN, SIGMA_MAX = 0.002, 80.0
CONVERSION = """\
import json, pickle, sys
import safetensors.torch
sys.path.insert(0, "edm")  # a clone of NVlabs/edm
with open("network.pkl", "rb") as file:
    network = pickle.load(file)["ema"]
safetensors.torch.save_file(network.state_dict(), "model.safetensors")
config = {"_class_name": type(network).__name__, **network.init_kwargs}
with open("config.json", "w") as file:
    json.dump(config, file)
"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class NoisePrediction:
    r"""
    The denoiser :math:`D(x, \sigma) = x + \sigma F(x, \ln(\sigma / 2))` of a network that predicts
    the noise with the other sign, and sees the noisy point as it is (`VEPrecond`).

    :param network: `network(x, c) -> x.shape` on one unbatched point.
    """

    network: Callable[[Array, Array], Array]

    def __call__(self, x: Array, sigma: Array) -> Array:
        return x + sigma * self.network(x, jnp.log(sigma / 2))


class _Wrapped(NamedTuple):
    denoiser: Callable[[Array, Array], Array]
    process: TimedProcess


def load_edm(
    folder: Any, *, dtype: Any = None, label: Any = None, remat: bool = False
) -> PretrainedModel:
    r"""
    A network of Karras et al. (2022), or of the models that they compare with, in the authors' own
    architecture, as the denoiser of a prior: `SongUNet` (DDPM++ and NCSN++ of Song et al. 2021) and
    `DhariwalUNet` (ADM of Dhariwal & Nichol 2021), beneath `EDMPrecond`, `VPPrecond`, `VEPrecond`
    or `iDDPMPrecond`. Nothing of the folder is executed: the authors' pickles are converted where
    torch is, as the documentation says.

    The process is that of the wrapper: for `EDMPrecond` noise levels from 0.002 to 80 (or its own
    `sigma_min` and `sigma_max`, if narrower), where the authors' sampler begins and ends.
    `iDDPMPrecond` rounds a noise level to one of its table; here the network is asked at a step
    that is no integer. Pixels are in [-1, 1], and nothing is clipped to that. There is no dropout
    and there are no labels of augmentation: it draws pictures as they are.

    :param folder: a folder with `config.json` (the name of the wrapper as `_class_name`, and its
        arguments) and `model.safetensors` (its `state_dict()`).
    :param dtype: of the computations of the network, such as `jnp.bfloat16`; by default that of the
        point. The weights stay as they are in the file.
    :param label: the class, for a network that takes one; a network with `label_dropout` may go
        without.
    :param remat: compute what is inside of the network anew in a gradient instead of keeping it,
        for less memory at the price of one more evaluation. XLA for CPUs undoes it unless its pass
        `cse_barrier_expander` is left out (`xla_disable_hlo_passes`).
    :return: `denoiser`, `process`, `event_shape`, `data_range`.
    :raises FileNotFoundError: if a file isn't there.
    :raises ValueError: if a file is damaged; if its configuration has a field or a value that isn't
        handled; if a tensor is missing, left over, of another shape or not finite.
    """
    folder = Path(folder)
    _check_files(folder)
    config = read_edm_config(folder / "config.json")
    tensors = Tensors(folder / WEIGHTS)
    network = EDMUNet(config, tensors, dtype=dtype, label=label, remat=remat)
    wrapped = _WRAPPERS[config.wrapper](config, tensors, network)
    tensors.check()
    return PretrainedModel(wrapped.denoiser, wrapped.process, network.event_shape, (-1.0, 1.0))


def _edm(config: EDMConfig, tensors: Tensors, network: EDMUNet) -> _Wrapped:
    constants = config.constants
    process = VarianceExploding(
        max(SIGMA_MIN, constants["sigma_min"]), min(SIGMA_MAX, constants["sigma_max"])
    )
    return _Wrapped(Preconditioned(network, constants["sigma_data"]), process)


def _variance_preserving(config: EDMConfig, tensors: Tensors, network: EDMUNet) -> _Wrapped:
    c = config.constants
    process = VariancePreserving(c["beta_min"], c["beta_min"] + c["beta_d"], c["epsilon_t"])
    return _Wrapped(EpsilonPrediction(network, StepsOfTime(process, c["M"] - 1)), process)


def _variance_exploding(config: EDMConfig, tensors: Tensors, network: EDMUNet) -> _Wrapped:
    process = VarianceExploding(config.constants["sigma_min"], config.constants["sigma_max"])
    return _Wrapped(NoisePrediction(network), process)


def _improved_ddpm(config: EDMConfig, tensors: Tensors, network: EDMUNet) -> _Wrapped:
    levels = improved_ddpm_levels(*(config.constants[name] for name in ("M", "C_1", "C_2")))
    tensors.take_constant("u", np.append(levels[::-1], 0))
    process = NoiseTable(tuple(np.log(levels).tolist()))
    first = FirstChannels(network, config.img_channels)
    return _Wrapped(EpsilonPrediction(first, process.step), process)


def improved_ddpm_levels(num_steps: int, c_1: float, c_2: float) -> np.ndarray:
    r"""
    The noise levels of improved DDPM (Nichol & Dhariwal 2021) in Karras et al. (2022), table 1,
    :math:`u_{j-1}^2 = (u_j^2 + 1) / \max(\bar\alpha_{j-1} / \bar\alpha_j, C_1) - 1` from
    :math:`u_M = 0`, with :math:`\bar\alpha_j = \sin^2(\tfrac\pi2 j / (M (C_2 + 1)))`.

    :return: :math:`u_{M-1}, \dots, u_0`, increasing.
    """
    alpha_bar = np.sin(np.pi / 2 * np.arange(num_steps + 1) / (num_steps * (c_2 + 1))) ** 2
    squares = [0.0]
    for j in range(num_steps, 0, -1):
        squares.append((squares[-1] + 1) / max(alpha_bar[j - 1] / alpha_bar[j], c_1) - 1)
    return np.sqrt(squares[1:])


_WRAPPERS = {
    "EDMPrecond": _edm,
    "VPPrecond": _variance_preserving,
    "VEPrecond": _variance_exploding,
    "iDDPMPrecond": _improved_ddpm,
}


def _check_files(folder: Path) -> None:
    if folder.is_file():
        found = [folder.name]
    elif folder.is_dir():
        found = sorted(path.name for path in folder.iterdir() if path.is_file())
    else:
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r}: load_edm reads a folder on this computer, with "
            f"config.json and {WEIGHTS}."
        )
    missing = [name for name in ("config.json", WEIGHTS) if name not in found]
    if folder.is_file() or missing:
        pickles = [name for name in found if name.endswith((".pkl", ".pt", ".pth", ".bin"))]
        wanted = f"load_edm reads a folder with config.json and {WEIGHTS}"
        if pickles:
            raise FileNotFoundError(
                f"{wanted}, but {str(folder)!r} has {pickles[0]}, a pickle, which can run any code "
                "when it is read: it isn't. Where torch and the authors' repository are, for a "
                "file that you trust:\n" + CONVERSION
            )
        raise FileNotFoundError(f"{wanted}, but {str(folder)!r} has {found}.")
