# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The Gaussian about a mode of a posterior whose prior is a score: where the chains of
`galaxy_scene.py` start, and the metric in which they move. A diffusion model at a low noise level
is narrow across the pictures that it knows and wide along them, so that no diagonal metric fits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree

LARGEST_STEP = 0.3  # of any number
LEAST_CURVATURE = 1.0


class Laplace(NamedTuple):
    """
    - **mode** - unconstrained values, shape `(d,)`.
    - **root** - of the covariance, shape `(d, d)`.
    - **unravel** - of flat values, those by site.
    """

    mode: Array
    root: np.ndarray
    unravel: Callable[[Array], dict[str, Array]]

    def metric(self) -> dict[str, Any]:
        """Arguments of a kernel whose metric is that of the Gaussian, and stays."""
        covariance = self.root @ self.root.T
        return {
            "inverse_mass_matrix": covariance,
            "dense_mass": True,
            "adapt_mass_matrix": False,
        }

    def draws(self, key: Array, number: int) -> dict[str, Array]:
        """Unconstrained values by site, with a leading axis."""
        noise = random.normal(key, (number, len(self.mode)))
        return jax.vmap(self.unravel)(self.mode + noise @ jnp.asarray(self.root.T, noise.dtype))


def laplace(
    residuals: Callable[[dict[str, Array]], Array],
    prior_score: Callable[[dict[str, Array]], dict[str, Array]],
    start: dict[str, Any],
    num_steps: int = 20,
) -> Laplace:
    """
    By Newton's method, with absolute values for eigenvalues, since only at a mode are all positive.
    The curvature of the data is that of Gauss and Newton.

    :param residuals: of unconstrained values by site: data less model, over the noise.
    :param prior_score: of these values, the gradient of the log prior by site.
    :param start: unconstrained values by site.
    """
    z, unravel = ravel_pytree(start)

    def slope(z):
        return -ravel_pytree(prior_score(unravel(z)))[0]

    @jax.jit
    def gradient_and_curvature(z):
        r, slopes = residuals(unravel(z)), jax.jacfwd(lambda z: residuals(unravel(z)))(z)
        of_prior = jax.jacfwd(slope)(z)
        return slope(z) + slopes.T @ r, (of_prior + of_prior.T) / 2 + slopes.T @ slopes

    for _ in range(num_steps):
        gradient, curvature = (np.asarray(v, float) for v in gradient_and_curvature(z))
        eigenvalues, vectors = np.linalg.eigh(curvature)
        eigenvalues = np.maximum(np.abs(eigenvalues), LEAST_CURVATURE)
        step = -vectors @ (vectors.T @ gradient / eigenvalues)
        z = z + jnp.asarray(step * min(1.0, LARGEST_STEP / np.abs(step).max()), z.dtype)
    return Laplace(z, vectors / np.sqrt(eigenvalues), unravel)
