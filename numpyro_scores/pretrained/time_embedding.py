# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How a network sees its time: by sines and cosines."""

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from numpyro_scores.pretrained.layers import ACTIVATIONS, Dense
from numpyro_scores.pretrained.tensors import Tensors

MAX_PERIOD = 10_000


class PositionalFeatures(nnx.Module):
    r"""
    :math:`\sin(\omega_i t)` and :math:`\cos(\omega_i t)` with :math:`\omega_i = 10000^{-i / (n -
    \text{shift})}`, :math:`i = 0, \dots, n - 1`, and a zero if the size is odd (Ho, Jain & Abbeel
    2020, after Vaswani et al. 2017).

    :param size: how many features.
    :param shift: `freq_shift`.
    :param cosines_first: `flip_sin_to_cos`.
    """

    def __init__(self, size: int, shift: float, cosines_first: bool):
        self.size, self.shift, self.cosines_first = size, shift, cosines_first

    def __call__(self, t: Array) -> Array:
        half = self.size // 2
        # Step by step in the dtype of `t`: times of a thousand magnify the rounding of frequencies,
        # and the network was trained with that of float32.
        exponent = np.asarray(-np.log(MAX_PERIOD), t.dtype) * np.arange(half, dtype=t.dtype)
        angle = t * np.exp(exponent / np.asarray(half - self.shift, t.dtype))
        parts = [jnp.sin(angle), jnp.cos(angle)]
        if self.cosines_first:
            parts.reverse()
        return jnp.concatenate([*parts, jnp.zeros(self.size % 2, t.dtype)])


class FourierFeatures(nnx.Module):
    r"""
    :math:`\sin(2 \pi w_i u)` and :math:`\cos(2 \pi w_i u)` with frequencies of the file, of a time
    `u` or of :math:`u = \ln t` (Song et al. 2021, appendix H).

    :param name: the name of the frequencies.
    :param log: whether it is of the logarithm.
    """

    def __init__(self, tensors: Tensors, name: str, size: int, *, log: bool):
        # No nnx.Param: they are drawn once and are not trained.
        self.frequencies = nnx.Variable(jnp.asarray(tensors.take(name, (size,))))
        self.log = log

    def __call__(self, t: Array) -> Array:
        u = jnp.log(t) if self.log else t
        # Rounded once, as torch does it: angles of a thousand magnify the rounding.
        angle = u * ((2 * np.pi) * self.frequencies[...].astype(t.dtype))
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)])


class TimeEmbedding(nnx.Module):
    """Two dense layers with a SiLU between, of features."""

    def __init__(self, tensors: Tensors, name: str, num_in: int, num_out: int):
        self.linear_1 = Dense(tensors, f"{name}.linear_1", num_in, num_out)
        self.linear_2 = Dense(tensors, f"{name}.linear_2", num_out, num_out)

    def __call__(self, features: Array) -> Array:
        return self.linear_2(ACTIVATIONS["silu"](self.linear_1(features)))
