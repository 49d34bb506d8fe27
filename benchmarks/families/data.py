# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The two data sets: two moons in the plane, and digits of 8 x 8 pixels. Digits are learned with noise
of standard deviation 0.1, fresh at each step, so that their density is one of all 64 dimensions and
the same for every family.
"""

from typing import Any, NamedTuple

import numpy as np
from jax import Array, random
from sklearn.datasets import load_digits, make_moons


class Problem(NamedTuple):
    """
    Some entries of a point are seen, with noise; the others are to be found.

    - **seen** - which, shape `(d,)`.
    - **noise** - standard deviation of what is seen.
    """

    seen: np.ndarray
    noise: float


class Data(NamedTuple):
    """
    - **training** - points, shape `(n, d)`, before the noise.
    - **held_out** - points with noise, shape `(m, d)`.
    - **noise** - standard deviation of the noise that is learned with the points.
    - **problem** - the inverse problem.
    """

    name: str
    training: np.ndarray
    held_out: Any
    noise: float
    problem: Problem

    def noisy(self, key: Array, x: Array) -> Array:
        return x + self.noise * random.normal(key, x.shape) if self.noise else x


def moons(num_points: int, seed: int) -> np.ndarray:
    """About zero, of standard deviation about one; as in `examples/two_moons.py`."""
    x, _ = make_moons(num_points, noise=0.1, random_state=seed)
    return ((x - [0.5, 0.25]) / [0.87, 0.5]).astype(np.float32)


def load(name: str) -> Data:
    if name == "moons":
        problem = Problem(np.array([True, False]), 0.2)
        return Data(name, moons(10_000, 0), moons(1_000, 1), 0.0, problem)
    rng = np.random.default_rng(0)
    pictures = (load_digits().images / 8.0 - 1.0).reshape(-1, 64)
    pictures = rng.permutation(pictures).astype(np.float32)
    held_out = pictures[:397] + 0.1 * rng.standard_normal((397, 64)).astype(np.float32)
    # The upper half is seen.
    return Data(name, pictures[397:], held_out, 0.1, Problem(np.arange(64) < 32, 0.2))
