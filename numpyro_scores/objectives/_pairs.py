# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Noise in pairs whose errors cancel."""

import jax.numpy as jnp
from jax import Array, random


def antithetic_noise(key: Array, x: Array) -> Array:
    r"""
    Two standard normals for each point, of opposite directions and of opposite size: of the
    `2 n` lengths the smallest goes with the largest, the next with the next. Each of them alone is
    standard normal, for lengths and directions are independent, and which point gets which lengths
    is random; the sums of pairs, of `z` and of :math:`|z|^2`, are nearly constant.

    :param x: points, only their shape `(n, *event_shape)` and dtype matter.
    :return: shape `(2, n, *event_shape)`.
    """
    key_noise, key_lengths, key_order, key_side = random.split(key, 4)
    n = len(x)
    z = random.normal(key_noise, x.shape, x.dtype)
    others = random.normal(key_lengths, x.shape, x.dtype)
    length = _length(z)
    lengths = jnp.sort(jnp.concatenate([length, _length(others)]))
    pairs = random.permutation(key_order, jnp.stack([lengths[:n], lengths[::-1][:n]], axis=1))
    first = random.bernoulli(key_side, 0.5, (n,)).astype(int)
    factors = jnp.stack([pairs[jnp.arange(n), first], -pairs[jnp.arange(n), 1 - first]])
    factors = factors / jnp.where(length > 0, length, 1)
    return factors.reshape(2, n, *[1] * (x.ndim - 1)) * z


def _length(z: Array) -> Array:
    return jnp.sqrt(jnp.sum(z**2, axis=tuple(range(1, z.ndim))))
