# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A normalised density of another library, such as a flow, as a distribution of NumPyro."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import constraints

from numpyro_scores._callable_pytrees import CallablePytree, is_dynamic
from numpyro_scores._validation import as_sample_shape, check_key
from numpyro_scores.distributions._base import PointwiseDistribution


class FlowPrior(PointwiseDistribution):
    r"""
    A density with draws of its own as a prior: any object with `log_prob(x) -> ()` of one point and
    `sample(key, sample_shape)`, such as a distribution of flowjax, a mixture or a NumPyro
    distribution without batch shape. Its `log_prob` is the density itself, **normalised** if that
    is. It is reparametrised, and `sample` differentiable in the weights, as a flow is, unless the
    object itself has a `has_rsample` that is False.

    It is a pytree of the arrays of the object, so that it goes through `jit`, `vmap`, `plate`,
    `expand` and `fit`, and comes back the same::

        flow = flowjax.flows.masked_autoregressive_flow(
            key, base_dist=flowjax.distributions.Normal(jnp.zeros(2))
        )
        prior = ns.distributions.FlowPrior(flow)

    :param flow: the density; its points have the shape `flow.shape` or `flow.event_shape`.
    :param condition: of a conditional flow, shape `flow.cond_shape`, as second argument of its
        `log_prob` and as `condition` of its `sample`.
    :param support: a NumPyro constraint; that of the flow if it has one, or else all real numbers.
    :raises TypeError: if it has no `log_prob`, no `sample` or no shape.
    :raises ValueError: if it has a batch shape, a condition is missing, or `log_prob` of one point
        is not one number.
    """

    pytree_data_fields = ("flow", "condition")

    def __init__(
        self,
        flow: Any,
        *,
        condition: Any = None,
        support: constraints.Constraint | None = None,
        validate_args: bool | None = None,
    ):
        event_shape = getattr(flow, "event_shape", getattr(flow, "shape", None))
        wanted = {name: callable(getattr(flow, name, None)) for name in ("log_prob", "sample")}
        missing = [name for name, found in wanted.items() if not found]
        missing += ["shape"] * (event_shape is None)
        if missing or isinstance(flow, type):
            raise TypeError(
                "flow must be an object with log_prob(x), sample(key, sample_shape) and the shape "
                f"of its points, as flowjax's distributions have; {type(flow).__name__} has no "
                f"{' and no '.join(missing) or 'instance here'}."
            )
        if getattr(flow, "batch_shape", ()) != ():
            raise ValueError(
                f"flow has the batch shape {flow.batch_shape}: give one density, and copies of it "
                "by expand or plate, or make its batch axes event axes with to_event."
            )
        condition = None if condition is None else jnp.asarray(condition)
        shape = getattr(flow, "cond_shape", None)
        if (shape is None) != (condition is None) or (
            condition is not None and condition.shape != shape
        ):
            given = "none" if condition is None else f"one of shape {condition.shape}"
            raise ValueError(f"flow takes a condition of shape {shape}, got {given}.")
        self.flow = flow if all(map(is_dynamic, jax.tree.leaves(flow))) else CallablePytree(flow)
        self.condition = condition
        if support is None:
            support = getattr(flow, "support", constraints.real)
        super().__init__(event_shape, support, validate_args=validate_args)
        point = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        found = jax.eval_shape(self._log_density, point).shape
        if found != ():
            raise ValueError(
                f"log_prob of one point of shape {self.event_shape} must be one number, got shape "
                f"{found}: sum over the entries."
            )

    @property
    def has_rsample(self) -> bool:
        # A flow, which says nothing of it, maps noise; distributions of NumPyro know.
        return bool(getattr(self.flow, "has_rsample", True))

    def _log_density(self, x: Array) -> Array:
        if self.condition is None:
            return self.flow.log_prob(x)
        return self.flow.log_prob(x, self.condition)

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of the flow, independent and exact, shape `(*sample_shape, *event_shape)`."""
        key, sample_shape = check_key("FlowPrior.sample", key), as_sample_shape(sample_shape)
        if self.condition is None:
            return self.flow.sample(key, sample_shape)
        return self.flow.sample(key, sample_shape, condition=self.condition)
