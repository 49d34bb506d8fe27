# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Moves of particles at a noise level: of the sites beside diffusion priors, such as a noise scale;
and of all, where the density of that level is known, by the energy of the prior.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random

from numpyro_scores.handlers import (
    at_noise_level,
    latent_prior,
    noise_conditional_prior,
    noise_level,
)
from numpyro_scores.infer.adaptation import accept_or_stay
from numpyro_scores.infer.langevin import mala
from numpyro_scores.infer.langevin.targets import Point
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.parts import others_alone, parts, wrapped
from numpyro_scores.infer.smc.directions import Seen
from numpyro_scores.infer.smc.moves import first_step_size, fisher_root, move_particles
from numpyro_scores.infer.smc.population import Population, rounds_with
from numpyro_scores.infer.smc.twist import DiffusionTwist, level_of
from numpyro_scores.infer.trees import map_rows


class Twisted(NamedTuple):
    r"""
    - **point** - a particle after the moves. Its energy is minus the log twist, and so the gradient
      in the entries of diffusion priors; that in all others is of :math:`-\log p(\theta) - \log g`.
    - **log_twist** - before the moves.
    - **accept_prob** - mean acceptance probability of the moves.
    - **num_diverging** - number of proposals that were not finite.
    - **seen** - what the noise of the next level asks of the denoiser too; None without directions.
    """

    point: Point
    log_twist: Array
    accept_prob: Array
    num_diverging: Array
    seen: Seen | None


def twisted(
    key: Array, x: Array, twist: DiffusionTwist, sigma: Array, scale: Array, num_moves: int
) -> Twisted:
    r"""
    A particle :math:`(x_\sigma, \theta)` at a noise level, after Metropolis steps of :math:`\theta`
    by a random walk, which leave :math:`p(\theta)\, g_\sigma(x, \theta)` as it is, and so
    :math:`p_\sigma(x)\, p(\theta)\, g_\sigma(x, \theta)`. The denoiser is evaluated once for all.

    :param x: shape `(d,)`.
    :param scale: standard deviations of the walk, shape `(d,)`.
    """
    others = np.flatnonzero(~twist.is_noisy(x))
    mean, product = jax.linearize(partial(twist.mean, sigma=sigma), x)
    products = twist.products(mean, product)
    found = twist.directions(mean, products)
    spread, varies = twist.spread(mean, products, sigma, found), twist.varies(x)
    prior = twist.model.potential(others_alone(twist.model.model))

    def log_twist(mean):
        lines = twist.lines(mean, products, sigma)
        here = twist.spread(mean, products, sigma, found) if varies else spread
        return twist.log_density(mean, here, lines)

    def step(current, key):
        key_proposal, key_accept = random.split(key)
        mean, energy = current
        noise = random.normal(key_proposal, others.shape, x.dtype)
        proposal = mean.at[others].add(scale[others] * noise)
        new_energy = prior(proposal) - log_twist(proposal)
        current, *statistics = accept_or_stay(
            random.uniform(key_accept, dtype=x.dtype),
            energy - new_energy,
            (proposal, new_energy),
            current,
        )
        return current, statistics

    before, statistics = None, (jnp.ones(1, x.dtype), jnp.zeros(1, bool))
    if others.size and num_moves:
        before = log_twist(mean)
        start = mean, prior(mean) - before
        (mean, _), statistics = lax.scan(step, start, random.split(key, num_moves))
    after, slope = jax.value_and_grad(log_twist)(mean)
    # Beyond the support of data that are not Normal a slope need not be a number; any will do.
    slope = jnp.where(jnp.isfinite(slope), slope, 0)
    (grad,) = jax.linear_transpose(product, x)(slope)
    grad = grad.at[others].add(-jax.grad(prior)(mean)[others])
    point = Point(
        x=x.at[others].set(mean[others]),
        energy=-after,
        grad=-grad,
        integral=jnp.zeros_like(after),
    )
    accept_prob, diverging = statistics
    before = after if before is None else before
    seen = None if found is None else Seen(mean, found)
    return Twisted(point, before, jnp.mean(accept_prob), jnp.sum(diverging), seen)


def has_energies(model: FlatModel, x: Array) -> bool:
    """Whether every noise-conditional prior of a model is made of an energy."""
    priors = [noise_conditional_prior(site["fn"]) for site in model.sites(x).values()]
    return all(getattr(prior, "has_energy", False) for prior in priors if prior is not None)


class not_below_their_own(noise_level):
    """Run a model with its noise-conditional priors at a noise level, but not below their own."""

    def process_message(self, msg: dict[str, Any]) -> None:
        prior = latent_prior(msg)
        if prior is not None:
            msg["fn"] = at_noise_level(msg["fn"], level_of(prior, self.sigma))


def energy_of_priors(model: FlatModel) -> Callable[[Array, Array], Array]:
    r""":math:`-\log p_\sigma(x)` of all noise-conditional priors, of `x` and the noise level."""
    priors = wrapped(parts, model.model, likelihood=0, others=0, jacobians=0)
    return lambda x, sigma: model.potential(wrapped(not_below_their_own, priors, sigma=sigma))(x)


class LevelTarget(NamedTuple):
    r"""
    :math:`p_\sigma(x)\, p(\theta)\, g_\sigma(x, \theta)`, the posterior at a noise level, with the
    face of a :class:`~numpyro_scores.infer.langevin.targets.Target`. The gradient leaves out how
    the covariance of the twist varies with the point; a Metropolis test makes up for that.

    - **of_data** - the twist of a model whose noise-conditional priors are of energies.
    - **sigma** - the noise level.
    """

    of_data: DiffusionTwist
    sigma: Array

    def at(self, x: Array, integral: Array) -> Point:
        """The point at `x`."""
        model = self.of_data.model
        others = model.potential(others_alone(model.model))
        energy, grad = jax.value_and_grad(energy_of_priors(model))(x, self.sigma)
        twist = self.twist(x)
        # The gradient of the twist has that of the other sites' density, and its value has not.
        energy += others(x) + twist.energy
        return Point(x, energy, grad + twist.grad, integral)

    def twist(self, x: Array) -> Point:
        """The point at `x` with the log twist alone, as particles go from level to level."""
        return self.twisted(x).point

    def twisted(self, x: Array) -> Twisted:
        """The same, with what the denoiser has said."""
        unmoved = jnp.zeros_like(x)
        return twisted(random.key(0), x, self.of_data, self.sigma, unmoved, num_moves=0)

    def rise(self, start: Point, end: Point) -> tuple[Array, Array]:
        """There is no part that is known by its score alone."""
        zero = jnp.zeros_like(start.energy)
        return zero, zero

    def is_known(self, error: Array) -> Array:
        return jnp.ones_like(error, bool)


class LevelMoves(NamedTuple):
    """
    - **num_steps** - number of steps of MALA at a level.
    - **target_accept_prob** - what their step size aims at.
    - **batch_size** - how many particles the model sees at once.
    """

    num_steps: int
    target_accept_prob: float
    batch_size: int

    def __call__(self, key: Array, state: Population, twist: DiffusionTwist) -> Population:
        """
        The particles after steps that leave the posterior at their noise level as it is; where the
        density of a prior is not known there, as they are.

        :param state: particles of equal weight, with their twists.
        """
        x, sigma = state.points.x, state.rung
        if not (self.num_steps and has_energies(twist.model, x[0])):
            return state
        target: Any = LevelTarget(twist, sigma)  # it has the face of a Target
        points = map_rows(lambda x: target.at(x, jnp.zeros((), x.dtype)), x, self.batch_size)
        root = fisher_root(points.grad, dense=False)
        moved = move_particles(
            key,
            points,
            lambda key, point, h: mala.step(key, point, target, h, root),
            step_size=first_step_size(x),
            num_steps=self.num_steps,
            target_accept_prob=self.target_accept_prob,
            batch_size=self.batch_size,
        )
        keeps = state.seen is not None

        def arrived(x):
            found = target.twisted(x)
            return found.point, found.seen if keeps else None

        points, seen = map_rows(arrived, moved.points.x, self.batch_size)
        i = state.i - 1
        products = 3 + twist.num_products(x[0])
        spent = state.rounds.num_grad_evals[i] + (self.num_steps + 2) * products
        return state._replace(
            points=points,
            log_likelihood=-points.energy,
            seen=seen,
            rounds=rounds_with(state.rounds, i, **moved.figures(), num_grad_evals=spent),
        )
