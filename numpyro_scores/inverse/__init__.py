# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""
Forward operators of inverse problems, for the likelihood of any NumPyro model::

    blur = ns.inverse.Blur(ns.inverse.gaussian_kernel(1.5, radius=4), (28, 28))

    def model(y=None):
        x = numpyro.sample("x", prior)
        noise = numpyro.sample("noise", dist.HalfNormal(0.5))
        numpyro.sample("y", dist.Normal(blur(x), noise).to_event(2), obs=y)

An operator is one half of a likelihood; the other is the noise. Photon counts are
`dist.Poisson(jnp.maximum(rate * operator(x), 0.0) + background)`, with a `background` above zero:
the rounding of a Fourier transform leaves `Blur` of a dark picture a little below zero, and at a
rate of zero the gradient is not a number. Those of a transmission scan are
`dist.Poisson(rate * jnp.exp(-radon(x)))`. Both with `.to_event(len(operator.out_shape))`, so that
data of another shape are refused by the kernels of this package.

A picture is `(height, width)` or `(height, width, channels)`; operators act on the leading axes of
a point, and on each channel alike. Leading batch axes are mapped over. Operators are pytrees: they
pass through `jax.jit`, `jax.vmap` and `jax.grad`, and their arrays (a kernel, angles) may be
latent sites.
"""

from numpyro_scores.inverse._base import ForwardOperator, LinearOperator
from numpyro_scores.inverse.blur import Blur, gaussian_kernel
from numpyro_scores.inverse.downsample import Downsample
from numpyro_scores.inverse.fourier import Fourier
from numpyro_scores.inverse.mask import Mask
from numpyro_scores.inverse.phase_retrieval import PhaseRetrieval
from numpyro_scores.inverse.radon import Radon

__all__ = [
    "Blur",
    "Downsample",
    "ForwardOperator",
    "Fourier",
    "LinearOperator",
    "Mask",
    "PhaseRetrieval",
    "Radon",
    "gaussian_kernel",
]
