# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Metropolis-adjusted Langevin algorithm."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import random
from numpyro.infer.initialization import init_to_uniform

from numpyro_scores.densities.line_integral import LineIntegral
from numpyro_scores.densities.segment_integral import SegmentIntegral
from numpyro_scores.infer.langevin.adjusted import AdjustedKernel, Transition, accept_or_stay
from numpyro_scores.infer.langevin.base import PotentialFn
from numpyro_scores.infer.langevin.metric import unwhiten, whiten
from numpyro_scores.infer.langevin.random_steps import scan_random
from numpyro_scores.integrators import euler_maruyama, log_proposal_ratio


class MALA(AdjustedKernel):
    r"""
    The Metropolis-adjusted Langevin algorithm (Besag 1994; Roberts & Tweedie 1996) in the
    unconstrained space of a model: propose

    .. math:: y = z - h M^{-1} \nabla U(z) + \sqrt{2h}\, M^{-1/2} \xi,

    accept with probability :math:`\min(1, e^{U(z) - U(y)} q(z | y) / q(y | z))`. Exact for the
    target. Step size and metric are adapted during warmup by NumPyro's scheme (dual averaging, and
    the covariance in windows of doubling length).

    :param model: a NumPyro model with continuous latent sites.
    :param potential_fn: a potential energy, in place of a model.
    :param step_size: the step size `h`, in the metric; where adaptation starts, by default from
        the largest curvature at the start.
    :param num_steps: number of proposals between two draws.
    :param adapt_step_size: whether warmup adapts the step size.
    :param adapt_mass_matrix: whether warmup adapts the metric `M`.
    :param dense_mass: a full metric in place of a diagonal one. From `n` draws of warmup with
        covariance `C` it is :math:`(n C + d \operatorname{diag} C) / (n + d)`, so that few draws of
        many entries do not forbid a direction. `[("a", "b")]` is one of the sites `a` and `b`
        together, with a diagonal for all others, as in NumPyro's `HMC`.
    :param inverse_mass_matrix: :math:`M^{-1}`, the covariance of the unconstrained values as far as
        it is known: a vector of shape `(d,)`, or with `dense_mass` a matrix `(d, d)`, sites in
        alphabetical order; or a dict of these by block, `{("a", "b"): matrix}`. Where the
        adaptation starts; by default the identity.
    :param target_accept_prob: 0.574 is optimal in high dimensions (Roberts & Rosenthal 1998).
    :param segment_integral: how the sites of a :class:`~numpyro_scores.ScoreDistribution` enter
        :math:`U(y) - U(z)`: by the integral of the score along the segment from `z` to the
        proposal, which replaces their `log_prob` and costs 5 scores a proposal besides the one at
        its end. Proposals whose integral is not known to the tolerance of the rule are refused,
        which leaves the law as it is and slows the way between modes: more nodes speed it up. A
        :class:`~numpyro_scores.LineIntegral` has any number of nodes, one being exact for a linear
        score and two for a cubic one, but no error: the law is then as wrong as the rule. Without
        such sites it has no effect.
    :param init_strategy: NumPyro's, where a model starts.
    :raises ValueError: if an argument is out of its range; at `init`, if `inverse_mass_matrix` has
        another size than the model.
    """

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float | None = None,
        num_steps: int = 10,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool | list = False,
        inverse_mass_matrix: Any = None,
        target_accept_prob: float = 0.574,
        segment_integral: SegmentIntegral | LineIntegral = SegmentIntegral(num_nodes=7),
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(
            model,
            potential_fn,
            step_size=step_size,
            num_steps=num_steps,
            adapt_step_size=adapt_step_size,
            adapt_mass_matrix=adapt_mass_matrix,
            dense_mass=dense_mass,
            inverse_mass_matrix=inverse_mass_matrix,
            target_accept_prob=target_accept_prob,
            segment_integral=segment_integral,
            init_strategy=init_strategy,
        )

    def _first_step_size(self, curvature, size):
        # Half the squared step 1.65^2 d^(-1/3) that is optimal on a Gaussian of this curvature.
        return 1.36 * size ** (-1 / 3) / curvature

    def _noise_scale(self, step_size):
        return jnp.sqrt(2 * step_size)

    def _move(self, key, start, target, step_size, root):
        def draw(key, shape):
            key_proposal, key_accept = random.split(key)
            noise = random.normal(key_proposal, (*shape, *start.x.shape), start.x.dtype)
            return noise, random.uniform(key_accept, shape, start.energy.dtype)

        def step(current, numbers):
            noise, uniform = numbers
            force = whiten(root, current.grad)
            jump = euler_maruyama(jnp.zeros_like(noise), force, step_size, noise)
            proposal = target.at(current.x + unwhiten(root, jump), current.integral)
            rise, error = target.rise(current, proposal)
            is_known = target.is_known(error)
            back = whiten(root, proposal.grad)
            log_ratio = log_proposal_ratio(force, back, step_size, noise)
            log_ratio = log_ratio + current.energy - proposal.energy - rise
            proposal = proposal._replace(integral=proposal.integral + rise)
            current, accept_prob, diverging = accept_or_stay(
                uniform, log_ratio, proposal, current, is_known
            )
            return current, (accept_prob, diverging, ~is_known & ~diverging)

        end, (accept_prob, diverging, unresolved) = scan_random(
            step, draw, start, key, self._num_steps
        )
        accept_prob, unresolved = (
            jnp.mean(share, dtype=start.energy.dtype) for share in (accept_prob, unresolved)
        )
        return Transition(end, accept_prob, jnp.any(diverging), unresolved)
