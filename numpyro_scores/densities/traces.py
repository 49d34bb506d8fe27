# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""Random projections with identity covariance, and the trace of a Jacobian by them or exactly.

Both traces are forward mode: a Jacobian-vector product costs about two evaluations whatever the
dimension, and keeps no tape.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, random

from numpyro_scores._validation import check_count

VectorField = Callable[[Array], Array]


def gaussian(key: Array, shape: tuple[int, ...], dtype=float) -> Array:
    """Independent standard normals."""
    return random.normal(key, shape, dtype)


def rademacher(key: Array, shape: tuple[int, ...], dtype=float) -> Array:
    """Independent signs, the projection of least variance for a trace (Hutchinson 1990)."""
    return random.rademacher(key, shape, dtype)


def sphere(key: Array, shape: tuple[int, ...], dtype=float) -> Array:
    r"""Uniform on the sphere of radius :math:`\sqrt d`, `d` the number of entries of `shape`."""
    v = random.normal(key, shape, dtype)
    return v * jnp.sqrt(v.size) / jnp.linalg.norm(v)


@dataclass(frozen=True)
class ExactTrace:
    r"""
    `trace(f, x)` returns :math:`f(x)` and :math:`\operatorname{tr} \nabla f(x)` from `d`
    Jacobian-vector products in one batch: cost about `d` evaluations, memory `d * d`.
    """

    def __call__(self, f: VectorField, x: Array) -> tuple[Array, Array]:
        x = jnp.asarray(x)
        value, jvp = jax.linearize(f, x)
        basis = jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape)
        return value, jnp.vdot(basis, jax.vmap(jvp)(basis))


@dataclass(frozen=True)
class HutchinsonTrace:
    r"""
    `trace(f, x)` returns :math:`f(x)` and the estimate
    :math:`\frac1m \sum_{j=1}^m v_j^T \nabla f(x) v_j` with Rademacher probes (Hutchinson 1990).

    The probes are a function of `seed` alone, so that a density built on this is one function: a
    Metropolis kernel sees the same value at the same point.

    :param num_probes: number `m` of probes; the cost is about `m` evaluations.
    :param seed: seed of the probes.
    """

    num_probes: int = 8
    seed: int = 0

    def __post_init__(self):
        check_count("num_probes", self.num_probes)

    def __call__(self, f: VectorField, x: Array) -> tuple[Array, Array]:
        x = jnp.asarray(x)
        value, jvp = jax.linearize(f, x)
        probes = rademacher(random.key(self.seed), (self.num_probes, *x.shape), x.dtype)
        return value, jnp.vdot(probes, jax.vmap(jvp)(probes)) / self.num_probes


TraceEstimator = ExactTrace | HutchinsonTrace
