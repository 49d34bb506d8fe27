# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Targets with known answers, as NumPyro models, for `benchmarks.efficiency`. Means and standard
deviations are those of the unconstrained values, which is where all kernels move.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from numpyro.distributions import constraints
from numpyro.infer import init_to_uniform
from numpyro.infer.util import initialize_model


class Target(NamedTuple):
    """
    - **name** - with the dimension.
    - **model** - a NumPyro model without arguments.
    - **mean**, **sd** - exact, flat, sites in alphabetical order.
    - **radius** - chains start uniformly between minus and plus this.
    - **ladder** - inverse temperatures for replica exchange.
    """

    name: str
    model: Callable
    mean: np.ndarray
    sd: np.ndarray
    radius: float
    ladder: tuple[float, ...]


def of_energy(energy: Callable, dim: int) -> Callable:
    """A model of one site `x` with the density `exp(-energy(x))`, up to a constant."""

    def model():
        x = numpyro.sample("x", dist.ImproperUniform(constraints.real_vector, (), (dim,)))
        numpyro.factor("minus_energy", -energy(x))

    return model


EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools() -> Target:
    """
    Rubin (1981), non-centred, with the priors N(0, 10^2) of the mean and N(5, 1) of the logarithm
    of the scale. By quadrature the mean of `mu` is 5.799, that of `log_tau` 2.4506.
    """

    def model():
        mu = numpyro.sample("mu", dist.Normal(0.0, 10.0))
        log_tau = numpyro.sample("log_tau", dist.Normal(5.0, 1.0))
        effect = numpyro.sample("effect", dist.Normal(0.0, 1.0).expand([8]).to_event(1))
        numpyro.sample("y", dist.Normal(mu + jnp.exp(log_tau) * effect, ERRORS), obs=EFFECTS)

    # Given mean and scale all is normal; these two are summed over a grid.
    mu, log_tau = np.meshgrid(np.linspace(-60, 70, 300), np.linspace(-4, 11, 300), indexing="ij")
    variance = np.exp(2 * log_tau)[..., None] + ERRORS**2
    residual = EFFECTS - mu[..., None]
    log_p = -((mu / 10) ** 2 + (log_tau - 5) ** 2) / 2
    log_p -= np.sum(residual**2 / variance + np.log(variance), axis=-1) / 2
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    effect = np.exp(log_tau)[..., None] * residual / variance
    first = np.concatenate([effect, log_tau[..., None], mu[..., None]], axis=-1)
    mean = np.einsum("ij,ijk->k", p, first)
    second = np.einsum("ij,ijk->k", p, (first - mean) ** 2)
    second[:8] += np.einsum("ij,ijk->k", p, ERRORS**2 / variance)
    return Target("eight schools", model, mean, np.sqrt(second), 2.0, (1.0, 0.8, 0.6, 0.4))


def banana() -> Target:
    """x1 ~ N(0, 10^2), x2 ~ N(0.03 (x1^2 - 100), 1) (Haario, Saksman & Tamminen 1999)."""

    def energy(x):
        return (x[0] / 10) ** 2 / 2 + (x[1] - 0.03 * (x[0] ** 2 - 100)) ** 2 / 2

    sd = np.array([10.0, np.sqrt(1 + 2 * 0.03**2 * 10**4)])
    ladder = (1.0, 0.5, 0.25, 0.12)
    return Target("banana, 2-d", of_energy(energy, 2), np.zeros(2), sd, 2.0, ladder)


def correlated_gaussian(dim: int = 100, condition: float = 100.0) -> Target:
    """
    Eigenvalues of the covariance from 1 / 10 to 10, equally spaced in their logarithm, along
    random orthogonal directions: a diagonal metric can do little about it.
    """
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    variance = np.geomspace(condition**-0.5, condition**0.5, dim)
    precision = jnp.asarray((basis / variance) @ basis.T, jnp.float32)
    sd = np.sqrt(np.diag((basis * variance) @ basis.T))

    def energy(x):
        return x @ precision @ x / 2

    name = f"correlated Gaussian, {dim}-d"
    model = of_energy(energy, dim)
    return Target(name, model, np.zeros(dim), sd, 2.0, (1.0, 0.8, 0.64, 0.5))


def mixture() -> Target:
    """
    25 modes of unit covariance at (8i, 8j) for i, j in -2..2, the k-th of them with weight
    k / 325. Chains start all over the grid, so that one that stays in its mode is noticed.
    """
    grid = 8.0 * np.arange(-2, 3)
    means = np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(25, 2)
    weights = np.arange(1, 26) / 325

    def energy(x):
        return -jax.nn.logsumexp(jnp.log(weights) - jnp.sum((x - means) ** 2, axis=-1) / 2)

    mean = weights @ means
    sd = np.sqrt(weights @ (means - mean) ** 2 + 1)
    ladder = tuple(np.geomspace(1.0, 0.02, 8).tolist())
    return Target("25-mode mixture, 2-d", of_energy(energy, 2), mean, sd, 20.0, ladder)


TARGETS: dict[str, Callable[[], Target]] = {
    "schools": eight_schools,
    "banana": banana,
    "gaussian": correlated_gaussian,
    "mixture": mixture,
}


def starts(target: Target, key: Array, num_chains: int) -> tuple[Callable, Any]:
    """The potential energy, and unconstrained values where each chain of every kernel starts."""
    info = initialize_model(
        random.split(key, num_chains),
        target.model,
        init_strategy=init_to_uniform(radius=target.radius),
    )
    return info.potential_fn, info.param_info.z
