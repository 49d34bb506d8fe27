# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Metropolis-adjusted Langevin algorithm."""

import jax.numpy as jnp
from jax import Array, random

from numpyro_scores.infer.adaptation import accept_or_stay
from numpyro_scores.infer.langevin.adjusted import AdjustedKernel
from numpyro_scores.infer.langevin.targets import (
    Point,
    Root,
    Target,
    Transition,
    unwhiten,
    whiten,
)
from numpyro_scores.infer.trees import scan_random
from numpyro_scores.integrators import euler_maruyama, log_proposal_ratio


def step(
    key: Array,
    state: Point,
    target: Target,
    step_size: Array,
    root: Root = None,
    num_steps: int = 1,
) -> Transition:
    """
    Steps from a point of :func:`~numpyro_scores.infer.langevin.targets.init` that leave the target
    as it is.

    :param root: of the inverse metric, by which steps are scaled.
    """

    def draw(key, shape):
        key_proposal, key_accept = random.split(key)
        noise = random.normal(key_proposal, (*shape, *state.x.shape), state.x.dtype)
        return noise, random.uniform(key_accept, shape, state.energy.dtype)

    def propose(current, numbers):
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

    end, (accept_prob, diverging, unresolved) = scan_random(propose, draw, state, key, num_steps)
    accept_prob, unresolved = (
        jnp.mean(share, dtype=state.energy.dtype) for share in (accept_prob, unresolved)
    )
    return Transition(end, accept_prob, jnp.any(diverging), unresolved, num_steps)


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
    :param metric: :class:`~numpyro_scores.Diagonal`, :class:`~numpyro_scores.Dense` or
        :class:`~numpyro_scores.LowRank`, which has a few directions besides a diagonal and is
        learned from draws and gradients: for many dimensions of which some are stiff or wide
        together. By default what `dense_mass` says.
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

    def _first_step_size(self, curvature, size):
        # Half the squared step 1.65^2 d^(-1/3) that is optimal on a Gaussian of this curvature.
        return 1.36 * size ** (-1 / 3) / curvature

    def _noise_scale(self, step_size):
        return jnp.sqrt(2 * step_size)

    def _step(self, key, start, target, state, root):
        return step(key, start, target, state.step_size, root, self._num_steps)
