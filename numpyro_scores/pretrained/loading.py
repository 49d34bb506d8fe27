# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A folder of diffusers as a denoiser and its process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array

from numpyro_scores.pretrained.config import UNet2DConfig, check_class, read_json, read_unet_config
from numpyro_scores.pretrained.schedule import Schedule, read_schedule
from numpyro_scores.pretrained.tensors import Tensors
from numpyro_scores.pretrained.unet import UNet2D
from numpyro_scores.processes import EpsilonPrediction, TimedProcess, VPrediction, X0Prediction

WEIGHTS = "diffusion_pytorch_model.safetensors"
PREDICTIONS = {
    "epsilon": EpsilonPrediction,
    "sample": X0Prediction,
    "v_prediction": VPrediction,
}
LATENT = {"vae", "vqvae", "movq", "image_encoder", "prior"}
TEXT = {"text_encoder", "text_encoder_2", "tokenizer", "bert", "text_model"}


class PretrainedModel(NamedTuple):
    """
    What :func:`load_diffusers` and :func:`load_edm` read. The prior of it is
    `DiffusionPrior(denoiser, process, event_shape)`.

    :param denoiser: `denoiser(x, sigma) -> x.shape` on one picture of shape `event_shape`, in the
        units of `data_range`; a pytree that holds the weights.
    :param process: the noise process that it was trained for.
    :param event_shape: `(height, width, channels)`, channels last.
    :param data_range: the values of a black and of a white pixel of the data that it was trained
        on. Nothing is clipped to it.
    """

    denoiser: Callable[[Array, Array], Array]
    process: TimedProcess
    event_shape: tuple[int, int, int]
    data_range: tuple[float, float]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class NoiseLevelScore:
    r"""
    The denoiser :math:`D(x, \sigma) = x + \sigma^2\, \hat\nabla \log p_\sigma(x)` of a network that
    predicts the score and sees the noise level itself.

    :param network: `network(x, sigma) -> x.shape` on one unbatched point.
    """

    network: Callable[[Array, Array], Array]

    def __call__(self, x: Array, sigma: Array) -> Array:
        return x + sigma**2 * self.network(x, sigma)


class FirstChannels(nnx.Module):
    """A network without the second half of its channels, the variance of a step."""

    def __init__(self, network: Callable[[Array, Array], Array], channels: int):
        self.network, self.channels = network, channels

    def __call__(self, x: Array, t: Array) -> Array:
        return self.network(x, t)[..., : self.channels]


def load_diffusers(
    folder: Any,
    *,
    dtype: Any = None,
    label: Any = None,
    sample_size: Any = None,
    remat: bool = False,
) -> PretrainedModel:
    r"""
    A public diffusion model as the denoiser of a prior, from the folder that diffusers has of it:
    an unconditional `UNet2DModel` in its DDPM or NCSN++ form. Nothing of the folder is executed.

    The process is that of `scheduler_config.json`, whatever way of drawing it names. Between two
    steps of a chain :math:`\log \sigma` is interpolated, and the network is asked at a step that is
    no integer. A last step without any signal (`rescale_betas_zero_snr`), whose noise level is
    infinite, is cut off. Dropout, clipping and thresholding are left out: with them it is no
    denoiser.

    :param folder: a pipeline's folder (`unet/` and `scheduler/`), or one with `config.json`,
        `scheduler_config.json` and `diffusion_pytorch_model.safetensors` side by side.
    :param dtype: of the computations of the network, such as `jnp.bfloat16`; by default that of the
        point. The weights stay as they are in the file.
    :param label: the class, for a network that takes one.
    :param sample_size: height and width of a picture, if other than in the file; one number for a
        square.
    :param remat: compute what is inside of the network anew in a gradient instead of keeping it,
        for less memory at the price of one more evaluation. XLA for CPUs undoes it unless its pass
        `cse_barrier_expander` is left out (`xla_disable_hlo_passes`).
    :return: `denoiser`, `process`, `event_shape`, `data_range`.
    :raises FileNotFoundError: if a file isn't there.
    :raises ValueError: if a file is damaged, or of a model that needs a decoder or a text; if its
        configuration has a field or a value that isn't handled; if a tensor is missing, left over,
        of another shape or not finite.
    """
    network_folder, schedule_path = _find(Path(folder))
    config = read_unet_config(network_folder / "config.json")
    schedule = read_schedule(schedule_path)
    _check_pair(config, schedule)
    event_shape = (*config.picture_size(sample_size), config.in_channels)
    tensors = Tensors(_weights(network_folder))
    network = UNet2D(config, tensors, event_shape, dtype=dtype, label=label, remat=remat)
    tensors.check()
    if schedule.prediction == "score":
        denoiser = NoiseLevelScore(network)
    else:
        if schedule.learns_variance:
            network = FirstChannels(network, config.in_channels)
        denoiser = PREDICTIONS[schedule.prediction](network, schedule.condition)
    return PretrainedModel(denoiser, schedule.process, event_shape, schedule.data_range)


def _check_pair(config: UNet2DConfig, schedule: Schedule) -> None:
    """Raise unless the network can be one of the process."""
    fourier = config.time_embedding_type == "fourier"
    if fourier != (schedule.prediction == "score"):
        raise ValueError(
            f"time_embedding_type = {config.time_embedding_type!r} and the scheduler do not fit: "
            "fourier, the network of a noise level, goes with ScoreSdeVeScheduler, and positional, "
            "the network of a step, with the others."
        )
    channels = (1 + schedule.learns_variance) * config.in_channels
    if config.out_channels != channels:
        raise ValueError(
            f"The network must put out {channels} channels, for in_channels = "
            f"{config.in_channels} and the scheduler's variance_type, but out_channels = "
            f"{config.out_channels}."
        )


def _find(folder: Path) -> tuple[Path, Path]:
    """The folder of the network and the file of the scheduler."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {str(folder)!r}: load_diffusers reads a folder on this computer, "
            "such as `huggingface-cli download NAME --local-dir FOLDER` makes."
        )
    if folder.name == "unet" and (folder.parent / "model_index.json").is_file():
        folder = folder.parent
    _check_pipeline(folder)
    nested = (folder / "unet" / "config.json").is_file()
    network_folder = folder / "unet" if nested else folder
    if not (network_folder / "config.json").is_file():
        raise FileNotFoundError(
            f"There is no config.json in {str(folder)!r} nor in its unet/: it holds "
            f"{sorted(path.name for path in folder.iterdir())}."
        )
    for path in (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"):
        if path.is_file():
            return network_folder, path
    raise FileNotFoundError(
        f"There is no scheduler_config.json in {str(folder)!r} nor in its scheduler/: without it "
        "the noise levels that the network was trained for are not known. (Networks of EDM, which "
        "have none, are read by load_edm.)"
    )


def _check_pipeline(folder: Path) -> None:
    """Raise if the pipeline needs more than a network and a scheduler."""
    index = folder / "model_index.json"
    entries = read_json(index) if index.is_file() else {}
    parts = {name for name, value in entries.items() if value not in (None, [None, None])}
    parts |= {path.name for path in folder.iterdir() if path.is_dir()}
    if parts & TEXT:
        raise ValueError(
            f"{str(folder)!r} is of a text-conditional model (it has {sorted(parts & TEXT)}): "
            "load_diffusers reads unconditional ones."
        )
    if parts & LATENT:
        raise ValueError(
            f"{str(folder)!r} is of a latent diffusion model (it has {sorted(parts & LATENT)}): "
            "its network makes codes, and the pictures come out of a decoder. load_diffusers reads "
            "models of pictures; a prior of codes is no prior of the pictures."
        )
    unet = entries.get("unet")
    if isinstance(unet, list) and len(unet) == 2:
        check_class(index, unet[1])


def _weights(folder: Path) -> Path:
    path = folder / WEIGHTS
    if path.is_file():
        return path
    others = sorted(p.name for p in folder.iterdir() if p.is_file() and p.suffix != ".json")
    pickles = [name for name in others if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl"))]
    if pickles:
        raise FileNotFoundError(
            f"{str(folder)!r} holds the weights as {pickles[0]}, a pickle, which can run any code "
            f"when it is read: it isn't. Where torch is installed, make {WEIGHTS} of it, by\n"
            "    import torch, safetensors.torch\n"
            f"    weights = torch.load({pickles[0]!r}, weights_only=True)\n"
            f"    safetensors.torch.save_file(weights, {WEIGHTS!r})"
        )
    raise FileNotFoundError(
        f"There is no {WEIGHTS} in {str(folder)!r}, but {others}. Another file of weights must be "
        "given that name, and one in parts be joined into one."
    )
