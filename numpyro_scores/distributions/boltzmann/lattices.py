# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Ising and Potts models on a two-dimensional lattice."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.typing import ArrayLike

from numpyro_scores.distributions.boltzmann.base import (
    ColoredDistribution,
    PartitionSum,
    as_parameter,
    check_weights,
)
from numpyro_scores.distributions.boltzmann.blocks import Checkerboard, ColorBlocks, lattice_blocks
from numpyro_scores.distributions.boltzmann.states import (
    Spin,
    States,
    check_num_states,
    clamped,
    forbidden,
    from_logits,
    indicators,
    lowered,
    spin,
)


class Lattice(ColoredDistribution):
    """
    Sites on a torus (`periodic`) or an open lattice of shape `(rows, columns)`, each joined to the
    site to the right of it and to the site below it. The last of a row is joined to the first if
    the lattice is periodic: with two sites in a row they are joined twice, with one not at all.
    """

    pytree_data_fields = ("coupling", "field")
    pytree_aux_fields = ("periodic",)
    _interaction = "coupling"

    def __init__(
        self, shape, support, coupling, periodic, log_normalizer, sampler, *, validate_args
    ):
        if isinstance(shape, int) or len(shape) != 2:
            raise ValueError(
                f"shape must be (rows, columns), got {shape!r}. Other lattices are graphs: see "
                "numpyro_scores.PairwiseMRF."
            )
        if not isinstance(periodic, bool):
            raise ValueError(f"periodic must be True or False, got {periodic!r}.")
        self.coupling = as_parameter("coupling", coupling, ())
        check_weights("coupling", self.coupling)
        self.periodic = periodic
        super().__init__(shape, support, log_normalizer, sampler, validate_args=validate_args)

    @property
    @abstractmethod
    def num_states(self) -> int:
        """The number of states of a site."""

    @abstractmethod
    def pair_weights(self) -> Array:
        """The log weight of an edge for each two states, symmetric, `(num_states, num_states)`."""

    @abstractmethod
    def site_weights(self) -> Array:
        """The log weight of each site's states, shape `(rows, columns, num_states)`."""

    @property
    def _blocks(self) -> Checkerboard | ColorBlocks:
        return lattice_blocks(self.event_shape, self.periodic)

    def _sum_over_edges(self, x: Array) -> Array:
        """The sum of `x_i . x_j` over all edges, for `x` of shape `(rows, columns, ...)`."""
        total = jnp.zeros((), x.dtype)
        for axis, size in enumerate(self.event_shape):
            if size > 1:
                ahead = jnp.roll(x, -1, axis)
                last = size if self.periodic else size - 1
                total += jnp.sum(lax.slice_in_dim(x * ahead, 0, last, axis=axis))
        return total


class Ising(Lattice):
    r"""
    Spins :math:`s_i` of -1 and +1 on a lattice,
    :math:`\log p(s) = K \sum_{ij} s_i s_j + \sum_i h_i s_i - \log Z`, each edge counted once. With
    :math:`K > 0` neighbours align (a ferromagnet), and :math:`h_i > 0` favours +1. Ising's
    energy and temperature are here as :math:`K = J / (k_B T)`; the infinite torus without a field
    orders above :math:`K = \log(1 + \sqrt 2) / 2 = 0.4407` (Onsager 1944).

    `log_prob` is **unnormalised** unless `log_normalizer` is given. A torus with two sites in a row
    has each horizontal edge twice, as in Kaufman's formula; a side of one site has no edges.

    The blocks are the two colours of a checkerboard (three colours on a torus with an odd side),
    and the `conditional` of one is a `numpyro_scores.distributions.Spin` with `logits`
    :math:`2 (K \sum_j s_j + h_i)`. With an even number of columns (and of rows, on a torus) a block
    has the shape `(rows, columns // 2)`, and else `(sites,)`.

    :param shape: `(rows, columns)`.
    :param coupling: :math:`K`, shape `()`.
    :param field: :math:`h`, shape `()` or `shape`. An infinite one clamps its spin to +1 or -1: the
        log density counts it as zero, and states against it have probability zero.
    :param periodic: a torus, or else an open lattice.
    :param log_normalizer: :math:`\log Z`, shape `()`, from `numpyro_scores.log_normalizer`.
    :param sampler: draws for `sample`, so that NumPyro's `Predictive` and `Gibbs` work: what makes
        a kernel of a model, such as `functools.partial(numpyro_scores.BlockGibbs, num_steps=500)`.
        Each draw is where a chain of its own ends, after one draw of the kernel without warmup.
    :raises ValueError: if a parameter has another shape.
    """

    def __init__(
        self,
        shape: Sequence[int],
        coupling: ArrayLike,
        field: ArrayLike = 0.0,
        periodic: bool = True,
        *,
        log_normalizer: Any = None,
        sampler: Callable | None = None,
        validate_args: bool | None = None,
    ):
        super().__init__(
            shape, spin, coupling, periodic, log_normalizer, sampler, validate_args=validate_args
        )
        self.field = as_parameter("field", field, (), self.event_shape)
        check_weights("coupling", -self.coupling)

    num_states = 2

    def pair_weights(self) -> Array:
        return self.coupling * jnp.array([[1.0, -1.0], [-1.0, 1.0]])

    def site_weights(self) -> Array:
        field = jnp.broadcast_to(self.field, self.event_shape)
        is_free = ~jnp.isinf(field)
        finite = jnp.where(is_free, field, 0.0)
        down, up = clamped(jnp.where(is_free, 0.0, field))
        return jnp.stack([down - finite, up + finite], -1)

    def _log_weight(self, x: Array) -> Array:
        is_free = ~jnp.isinf(self.field)
        of_field = jnp.sum(jnp.where(is_free, self.field, 0.0) * x)
        is_against = jnp.any(~is_free & (self.field * x < 0))
        return self.coupling * self._sum_over_edges(x) + jnp.where(is_against, -jnp.inf, of_field)

    def _conditional(self, block: int, blocks: tuple[Array, ...]) -> dist.Distribution:
        field = self.field if self.field.ndim == 0 else self.split(self.field)[block]
        neighbors = self._blocks.neighbor_sum(block, blocks)
        return Spin(2 * (self.coupling * neighbors + jnp.broadcast_to(field, neighbors.shape)))

    def partition_sum(self) -> PartitionSum:
        num_sites = self.event_shape[0] * self.event_shape[1]
        return PartitionSum(
            2, num_sites, lambda s: self._log_weight((2.0 * s - 1).reshape(self.event_shape))
        )


class Potts(Lattice):
    r"""
    States :math:`s_i` of :math:`0, \dots, q - 1` on a lattice,
    :math:`\log p(s) = K \sum_{ij} 1[s_i = s_j] + \sum_i h_{i, s_i} - \log Z`, each edge counted
    once. With :math:`K > 0` neighbours agree. The infinite square lattice without a field orders
    above :math:`K = \log(1 + \sqrt q)` (Potts 1952). With two states it is the Ising model of
    coupling :math:`K / 2`, up to a constant.

    `log_prob` is **unnormalised** unless `log_normalizer` is given. Edges and blocks are those of
    `Ising`. The `conditional` of a block is a `Categorical` with `logits`, or for two states a
    `Bernoulli` with `logits`.

    :param shape: `(rows, columns)`.
    :param num_states: :math:`q`, at least 2.
    :param coupling: :math:`K`, shape `()`. At `-inf` neighbours never agree.
    :param field: :math:`h`, one for each state, `(num_states,)`, or for each site and state,
        `(rows, columns, num_states)`. None by default; `-inf` forbids a state.
    :param periodic: a torus, or else an open lattice.
    :param log_normalizer: :math:`\log Z`, shape `()`, from `numpyro_scores.log_normalizer`.
    :param sampler: draws for `sample`, so that NumPyro's `Predictive` and `Gibbs` work: what makes
        a kernel of a model, such as `functools.partial(numpyro_scores.BlockGibbs, num_steps=500)`.
        Each draw is where a chain of its own ends, after one draw of the kernel without warmup.
    :raises ValueError: if a parameter has another shape, or for fewer than two states.
    """

    pytree_aux_fields = ("_num_states",)

    def __init__(
        self,
        shape: Sequence[int],
        num_states: int,
        coupling: ArrayLike,
        field: ArrayLike | None = None,
        periodic: bool = True,
        *,
        log_normalizer: Any = None,
        sampler: Callable | None = None,
        validate_args: bool | None = None,
    ):
        self._num_states = check_num_states(num_states)
        super().__init__(
            shape,
            States(tuple(range(num_states))),
            coupling,
            periodic,
            log_normalizer,
            sampler,
            validate_args=validate_args,
        )
        shapes = (num_states,), (*self.event_shape, num_states)
        field = jnp.zeros(num_states) if field is None else field
        self.field = as_parameter("field", field, *shapes)
        check_weights("field", self.field)

    @property
    def num_states(self) -> int:
        return self._num_states

    def pair_weights(self) -> Array:
        return jnp.where(jnp.eye(self.num_states, dtype=bool), self.coupling, 0.0)

    def site_weights(self) -> Array:
        return jnp.broadcast_to(self.field, (*self.event_shape, self.num_states))

    def _log_weight(self, x: Array) -> Array:
        z = indicators(x, self.num_states)
        of_edges = lowered(self.coupling) * self._sum_over_edges(z)
        of_field = jnp.sum(jnp.broadcast_to(lowered(self.field), z.shape) * z)
        return forbidden(of_edges + of_field)

    def _conditional(self, block: int, blocks: tuple[Array, ...]) -> dist.Distribution:
        field = self.field
        if field.ndim == 3:
            field = jnp.moveaxis(self.split(jnp.moveaxis(field, -1, 0))[block], 0, -1)
        axis = -1 - self._blocks.site_ndim
        z = tuple(indicators(x, self.num_states, axis) for x in blocks)
        agreeing = jnp.moveaxis(self._blocks.neighbor_sum(block, z), axis, -1)
        field = jnp.broadcast_to(lowered(field), agreeing.shape)
        return from_logits(forbidden(lowered(self.coupling) * agreeing + field))

    def partition_sum(self) -> PartitionSum:
        num_sites = self.event_shape[0] * self.event_shape[1]
        return PartitionSum(
            self.num_states,
            num_sites,
            lambda s: self._log_weight(s.astype(float).reshape(self.event_shape)),
        )
