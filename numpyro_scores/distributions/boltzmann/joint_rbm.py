# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What restricted Boltzmann machines share: two sides, each a block given the other."""

from abc import abstractmethod
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from numpyro_scores._compile import compiled
from numpyro_scores._validation import is_concrete
from numpyro_scores.distributions.boltzmann.base import (
    BlockDistribution,
    BoltzmannDistribution,
    PartitionSum,
    as_parameter,
)
from numpyro_scores.distributions.boltzmann.states import BernoulliLogits
from numpyro_scores.distributions.boltzmann.sweeps import gibbs_sweeps


class VisibleHidden(NamedTuple):
    """
    The units of a restricted Boltzmann machine.

    - **visible** - shape `(..., num_visible)`.
    - **hidden** - shape `(..., num_hidden)`.
    """

    visible: Array
    hidden: Array


class RestrictedBoltzmann(BoltzmannDistribution):
    """Visible units, with hidden units summed out; no edges within a side."""

    pytree_data_fields = ("weights", "hidden_bias")
    _interaction = "weights"

    def __init__(self, weights, hidden_bias, support, log_normalizer, sampler, *, validate_args):
        weights = jnp.asarray(weights)
        if weights.ndim != 2:
            raise ValueError(
                f"weights must have shape (num_visible, num_hidden), got shape {weights.shape}."
            )
        self.weights = as_parameter("weights", weights, weights.shape)
        if is_concrete(weights) and np.any(np.isinf(weights)):
            raise ValueError(
                "weights must be finite; a bias may be infinite, which clamps its unit. Pairs of "
                "units that exclude each other are the tables of PairwiseMRF."
            )
        num_visible, num_hidden = self.weights.shape
        self.hidden_bias = as_parameter("hidden_bias", hidden_bias, (num_hidden,))
        super().__init__(
            (num_visible,), support, log_normalizer, sampler, validate_args=validate_args
        )

    @abstractmethod
    def _joint_log_weight(self, visible: Array, hidden: Array) -> Array:
        """Minus the energy of one point, shape `()`."""

    @abstractmethod
    def _given_hidden(self, hidden: Array) -> dist.Distribution:
        """The distribution of the visible units."""

    @abstractmethod
    def _hidden_logits(self, visible: Array) -> Array:
        """The log odds of the hidden units."""

    def conditional(
        self, *, visible: ArrayLike | None = None, hidden: ArrayLike | None = None
    ) -> dist.Distribution:
        """
        The distribution of the hidden units given the visible ones, or the reverse: a NumPyro
        distribution with one entry of its batch shape for each unit.

        :param visible: visible units that are given, shape `(..., num_visible)`; or else
        :param hidden: hidden units that are given, shape `(..., num_hidden)`.
        :raises ValueError: unless one side is given, with its number of units.
        """
        if (visible is None) == (hidden is None):
            raise ValueError("Give one side: conditional(visible=...) or conditional(hidden=...).")
        name, given = ("visible", visible) if hidden is None else ("hidden", hidden)
        units = jnp.asarray(given)
        size = self.weights.shape[0 if hidden is None else 1]
        if units.shape[-1:] != (size,):
            raise ValueError(f"{name} must have shape (..., {size}), got shape {units.shape}.")
        if hidden is None:
            return BernoulliLogits(self._hidden_logits(units))
        return self._given_hidden(units)

    def free_energy(self, visible: ArrayLike) -> Array:
        r"""
        :math:`F(v) = -\log \sum_h e^{-E(v, h)}`, so that :math:`p(v) = e^{-F(v)} / Z`.

        :param visible: shape `(..., num_visible)`.
        :return: shape `(...)`.
        """
        return self._map_points("free_energy", lambda v: -self._log_weight(v), visible)

    def gibbs_steps(self, key: Array, x: ArrayLike, num_steps: int = 1) -> Array:
        """
        Where chains end that start at visible units: hidden units given those, visible units given
        these, and so on.

        :param x: shape `(..., num_visible)`; the dtype stays.
        """
        return compiled(_gibbs_steps, self, key, jnp.asarray(x), num_steps=num_steps)

    def joint(self) -> "JointRBM":
        """The distribution of the visible and hidden units together, as one vector."""
        return JointRBM(self)


def _gibbs_steps(rbm: RestrictedBoltzmann, key: Array, x: Array, *, num_steps: int) -> Array:
    blocks = HiddenThenVisible(rbm)
    return gibbs_sweeps(blocks._conditional, key, blocks.split(x), num_steps)[1]


class HiddenThenVisible(NamedTuple):
    """
    The visible units alone, drawn by way of hidden units that are not kept: two blocks, as those of
    a `BlockDistribution`, of which `join` forgets the first.
    """

    rbm: RestrictedBoltzmann
    num_blocks = 2

    def split(self, x: ArrayLike) -> tuple[Array, Array]:
        x = jnp.asarray(x)
        return jnp.zeros((*x.shape[:-1], self.rbm.weights.shape[1]), x.dtype), x

    def join(self, blocks: tuple[Array, ...]) -> Array:
        return blocks[1]

    def _conditional(self, block: int, blocks: tuple[Array, ...]) -> dist.Distribution:
        hidden, visible = blocks
        if block == 0:
            return self.rbm.conditional(visible=visible)
        return self.rbm.conditional(hidden=hidden)

    def random_point(
        self, key: Array, batch_shape: tuple[int, ...] = (), *, allowed: bool = True
    ) -> Array:
        shape = (*batch_shape, *self.rbm.event_shape)
        x = random.bernoulli(key, 0.5, shape)
        # A clamped unit is as it is.
        bias = jnp.broadcast_to(getattr(self.rbm, "visible_bias", 0.0), self.rbm.event_shape)
        return jnp.where(jnp.isinf(bias), bias > 0, x).astype(jnp.int8)


class VisibleThenHidden(constraints.Constraint):
    """A vector of real numbers followed by zeros and ones."""

    # Kernels that need gradients must leave it alone.
    is_discrete = True
    event_dim = 1

    def __init__(self, num_visible: int) -> None:
        self.num_visible = num_visible

    def __call__(self, x: Any) -> Any:
        visible, hidden = x[..., : self.num_visible], x[..., self.num_visible :]
        return (visible == visible).all(-1) & ((hidden == 0) | (hidden == 1)).all(-1)

    def __repr__(self) -> str:
        return f"VisibleThenHidden({self.num_visible})"

    def feasible_like(self, prototype: Any) -> Any:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> tuple:
        return (), ((), {"num_visible": self.num_visible})

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, VisibleThenHidden) and self.num_visible == other.num_visible

    def __hash__(self) -> int:
        return hash(self.num_visible)


class JointRBM(BlockDistribution):
    r"""
    The visible and hidden units of a restricted Boltzmann machine together,
    :math:`\log p(v, h) = -E(v, h) - \log Z`: a distribution of one vector, the visible units
    followed by the hidden ones. `split(x)` is `VisibleHidden(visible, hidden)`, the two blocks;
    `join` is its inverse.

    `log_prob` is **unnormalised** unless the machine has a `log_normalizer`, which is the same for
    both. With continuous visible units the vector is of floats; NumPyro takes it for discrete, so
    that kernels which need gradients leave it alone.

    :param rbm: the machine.
    """

    pytree_data_fields = ("rbm",)
    num_blocks = 2

    def __init__(self, rbm: RestrictedBoltzmann):
        self.rbm = rbm
        num_visible, num_hidden = rbm.weights.shape
        support = constraints.boolean if rbm.is_discrete else VisibleThenHidden(num_visible)
        super().__init__(
            (num_visible + num_hidden,),
            support,
            rbm.log_normalizer,
            rbm.sampler,
            validate_args=rbm._validate_args,
        )

    def split(self, x: ArrayLike) -> VisibleHidden:
        x = jnp.asarray(x)
        num_visible = self.rbm.event_shape[0]
        return VisibleHidden(x[..., :num_visible], x[..., num_visible:])

    def join(self, blocks: tuple[Array, ...]) -> Array:
        return jnp.concatenate(blocks, -1)

    def _log_weight(self, x: Array) -> Array:
        return self.rbm._joint_log_weight(*self.split(x))

    def _conditional(self, block: int, blocks: tuple[Array, ...]) -> dist.Distribution:
        visible, hidden = blocks
        if block == 0:
            return self.rbm.conditional(hidden=hidden)
        return self.rbm.conditional(visible=visible)

    def tempered(self, beta: ArrayLike) -> "JointRBM":
        return self.rbm.tempered(beta).joint()

    def partition_sum(self) -> PartitionSum:
        return self.rbm.partition_sum()
