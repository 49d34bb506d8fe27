# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The probability flow by steps that remember the denoised points of earlier ones."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from numpyro_scores._validation import check_count
from numpyro_scores.samplers._base import ReverseSampler, check_between


@dataclass(frozen=True)
class Multistep(ReverseSampler):
    r"""
    An exponential multistep method for the probability flow :math:`dx / d\lambda = D - x`,
    :math:`\lambda = -\log \sigma` (Zhang & Chen 2023, "Fast sampling of diffusion models with
    exponential integrator"; Lu et al. 2022, "DPM-Solver++", whose method 2M is nearly this one):

    .. math:: x' = e^{-h} x + \int_0^h e^{-(h - s)} P(s)\, ds, \qquad h = \log(\sigma / \sigma'),

    where the polynomial `P` goes through the denoised points of this step and of as many before it
    as `order` asks for. **One evaluation a step**, where :class:`Heun` takes two. With `order=1` it
    is :class:`DDIM`.

    A draw of a prior alone, by `DiffusionPrior.sample`: kernels change the denoiser or the point
    from step to step, and what is remembered would not fit.

    :param num_steps: number of steps.
    :param spacing: where the noise levels lie.
    :param order: number of denoised points, from 1 to 4.
    """

    num_steps: int = 40
    order: int = 4

    def __post_init__(self):
        super().__post_init__()
        check_count("order", self.order)
        check_between("order", self.order, 1, 4)

    @property
    def num_noises(self) -> int:
        """None."""
        return 0

    def step(self, denoiser, x, sigma, sigma_next, noise):
        """Raise: a step alone has nothing to remember."""
        raise TypeError(
            "Multistep remembers denoised points from step to step and draws from a prior alone; "
            "give a kernel Heun(num_steps=25) or Ancestral(num_steps=100)."
        )

    def __call__(self, denoiser, process, x, sigma, *, key, sigma_from=None):
        """See :meth:`PriorSampler.__call__`."""
        del key
        sigma = jnp.asarray(sigma, x.dtype)
        levels = self.spacing(process, sigma, self.num_steps + 1, sigma_from).astype(x.dtype)

        def step(carry, xs):
            x, denoised = carry
            sigma, sigma_next, weights = xs
            denoised = jnp.concatenate([denoiser(x, sigma)[None], denoised[:-1]])
            x = sigma_next / sigma * x + jnp.tensordot(weights, denoised, axes=1)
            return (x, denoised), None

        start = (x, jnp.zeros((self.order, *x.shape), x.dtype))
        xs = (levels[:-1], levels[1:], multistep_weights(-jnp.log(levels), self.order))
        return lax.scan(step, start, xs)[0][0]


def multistep_weights(times: Array, order: int) -> Array:
    r"""
    :math:`\int_0^h e^{-(h - s)} \ell_j(s)\, ds` of the Lagrange polynomials through this time and
    those before it, latest first: exact for all polynomials of a degree below `order`, or below the
    number of times there have been.

    :param times: increasing, shape `(num_steps + 1,)`.
    :return: shape `(num_steps, order)`.
    """
    i, j = np.arange(len(times) - 1)[:, None], np.arange(order)
    known = j <= i
    nodes = times[np.maximum(i - j, 0)] - times[i]
    h = jnp.diff(times)
    moments = [-jnp.expm1(-h)]  # of s^k
    for k in range(1, order):
        moments.append(h**k - k * moments[-1])
    both = known[:, :, None] & known[:, None, :]
    unit = jnp.eye(order, dtype=times.dtype)[None]
    systems = jnp.where(both, nodes[:, None, :] ** j[None, :, None], unit)
    sides = jnp.where(known, jnp.stack(moments, axis=1), 0)
    weights = jnp.linalg.solve(systems, sides[..., None])[..., 0]
    # No polynomial goes through levels that are the same, as from the largest to itself.
    solved = jnp.isfinite(weights).all(axis=1, keepdims=True)
    return jnp.where(solved, weights, moments[0][:, None] * (j == 0)[None])
