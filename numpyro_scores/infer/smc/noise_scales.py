# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The scales of data that are inferred, and what the data say of all else, given these."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from numpyro.ops.provenance import eval_provenance
from numpyro.primitives import Messenger

from numpyro_scores.distributions._wrapped import base_of, with_base
from numpyro_scores.handlers import is_likelihood
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.infer.parts import wrapped

MOST_SCALES = 8  # that a random walk can move at once
NUM_PROBES = 4  # for the lengths of the rows of a matrix

# Of a location and a scale, to which the information of the data on the location is proportional.
_FAMILIES = (
    dist.Normal,
    dist.LogNormal,
    dist.StudentT,
    dist.Laplace,
    dist.Cauchy,
    dist.Logistic,
    dist.Gumbel,
)


def noise_scales(model: FlatModel, like: Array) -> np.ndarray:
    """
    The entries of `x` on which the scales of observed sites depend, integers; none if they are too
    many to be moved at once, or all there are.

    :param like: a point, of which only shape and dtype matter.
    """
    z = model.unravel(like)

    def scales(**z):
        sites = model.trace_of(z).values()
        found = [_scale(base_of(site["fn"])) for site in sites if is_likelihood(site)]
        return [jnp.sum(scale) for scale in found if scale is not None]

    names = frozenset().union(*jax.tree.leaves(eval_provenance(scales, **z)))
    parts = [np.full(np.size(value), name in names) for name, value in sorted(z.items())]
    entries = np.flatnonzero(np.concatenate(parts))
    is_few = len(entries) <= min(MOST_SCALES, like.size - 1)
    return entries if is_few else entries[:0]


def _scale(fn: Any) -> Any:
    if isinstance(fn, _FAMILIES):
        return fn.scale
    return fn.scale_tril if isinstance(fn, dist.MultivariateNormal) else None


class _quadratic(Messenger):
    r"""
    In place of each observed site with a scale a Normal one, of this scale and of a value that is
    its own mean: minus its log density is :math:`|\Lambda^{1/2} J (x' - x)|^2 / 2` to second order,
    with masks, plates and scales of the model in :math:`\Lambda`. Other densities are left out.
    """

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] != "sample":
            return
        base = base_of(msg["fn"])
        if not is_likelihood(msg) or _scale(base) is None:
            msg["fn"] = msg["fn"].mask(False)
            return
        scale = jax.lax.stop_gradient(_scale(base))
        msg["value"] = jnp.broadcast_to(jax.lax.stop_gradient(base.loc), jnp.shape(msg["value"]))
        is_dense = isinstance(base, dist.MultivariateNormal)
        msg["fn"] = with_base(
            msg["fn"],
            lambda base: (
                dist.MultivariateNormal(base.loc, scale_tril=scale)
                if is_dense
                else dist.Normal(base.loc, scale)
            ),
        )


def information(model: FlatModel, others: np.ndarray, dense: bool) -> Callable[[Array], Array]:
    r"""
    What the data with a scale say of the entries `others` at a point, :math:`J^\top \Lambda J` with
    the Jacobian `J` of their locations and their precisions :math:`\Lambda`: positive semidefinite
    where a Hessian need not be. If not `dense`, the lengths of its rows, estimated with fixed
    random signs, which are its diagonal if it is one.
    """
    slope = jax.grad(model.potential(wrapped(_quadratic, model.model)))

    def found(x: Array) -> Array:
        def product(v):
            tangent = jnp.zeros_like(x).at[others].set(v)
            return jax.jvp(slope, (x,), (tangent,))[1][others]

        if dense:
            return jax.vmap(product)(jnp.eye(len(others), dtype=x.dtype))
        signs = random.rademacher(random.key(0), (NUM_PROBES, len(others)), x.dtype)
        return jnp.sqrt(jnp.mean(jax.vmap(product)(signs) ** 2, axis=0))

    return found
