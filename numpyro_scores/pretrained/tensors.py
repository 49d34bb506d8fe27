# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The tensors of a safetensors file, of which each is taken once by the name it has in torch."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

# A name of an older version of diffusers, and the name of today.
OLD_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
    "time_proj.W": "time_proj.weight",
}
MAX_LISTED = 8


class Tensors:
    """
    The tensors of a file by their names of today. What is missing, misshapen or not finite is
    collected while a network takes its weights, and :meth:`check` tells all of it at once.

    :param path: a safetensors file.
    :raises ValueError: if it is damaged or something else, or holds a tensor under an old and a new
        name with different values.
    """

    def __init__(self, path: Path):
        self.path = path
        self.problems: list[str] = []
        try:
            with safe_open(path, framework="numpy") as file:
                found = {name: _read(path, file, name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(
                f"{str(path)!r} can't be read as safetensors, it is truncated, damaged or "
                f"something else: {error}"
            ) from error
        self.left: dict[str, np.ndarray] = {}
        for name, tensor in found.items():
            today = _name_of_today(name)
            if today in self.left and not np.array_equal(self.left[today], tensor):
                raise ValueError(f"{str(path)!r} holds two tensors for {today!r}, which differ.")
            self.left[today] = tensor

    def take(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """
        The tensor of a name, or zeros if there is none of this shape.

        :param name: its name in today's diffusers.
        :param shape: the shape that it must have, as torch orders its axes.
        """
        tensor = self.left.pop(name, None)
        if tensor is None:
            self.problems.append(f"{name} of shape {shape} is missing")
        elif tensor.shape != shape:
            self.problems.append(f"{name} has shape {tensor.shape}, the configuration asks {shape}")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            self.problems.append(f"{name} holds {tensor.dtype}, not floating-point numbers")
        elif not np.isfinite(tensor).all():
            self.problems.append(f"{name} holds NaN or infinity")
        else:
            return tensor
        return np.zeros(shape, np.float32)

    def take_constant(self, name: str, value: np.ndarray) -> None:
        """
        Take a tensor that must be what the configuration says, such as a filter.

        :param value: what it must be, to six digits.
        """
        if name in self.left and not np.allclose(self.take(name, value.shape), value, 1e-6, 1e-6):
            self.problems.append(f"{name} is not what the configuration says")

    def check(self) -> None:
        """
        :raises ValueError: if a tensor is missing, left over, of another shape or not finite.
        """
        problems = self.problems + [f"{name} is of no layer" for name in self.left]
        if problems:
            listed = "\n".join(problems[:MAX_LISTED])
            more = len(problems) - MAX_LISTED
            raise ValueError(
                f"The tensors in {str(self.path)!r} are not those of the network in config.json; "
                "is the file whole, and of this configuration?\n"
                + listed
                + (f"\n... and {more} more" if more > 0 else "")
            )


def _name_of_today(name: str) -> str:
    for old, new in OLD_NAMES.items():
        # Only attention has a `query`; the names are whole words between dots.
        name = name.replace(old, new)
    return name


def _read(path: Path, file, name: str) -> np.ndarray:
    if file.get_slice(name).get_dtype() != "BF16":
        return file.get_tensor(name)
    # NumPy itself has no such type: take the bytes.
    raw = dict(deserialize(path.read_bytes()))[name]
    return np.frombuffer(raw["data"], jnp.dtype("bfloat16")).reshape(raw["shape"])
