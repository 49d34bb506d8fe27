# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What Boltzmann machines, lattices and random fields share: a weight, and blocks of sites."""

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, random
from jax.typing import ArrayLike
from numpyro import handlers
from numpyro.distributions import constraints

from numpyro_scores._compile import compiled
from numpyro_scores._validation import is_concrete
from numpyro_scores.distributions._base import PointwiseDistribution, check_log_normalizer
from numpyro_scores.distributions._short_runs import (
    as_sampler,
    checked_kernel,
    one_draw,
    short_runs,
)
from numpyro_scores.distributions.boltzmann.blocks import Checkerboard, ColorBlocks
from numpyro_scores.distributions.boltzmann.hard_constraints import allowed_point
from numpyro_scores.distributions.boltzmann.sweeps import gibbs_sweeps


class PartitionSum(NamedTuple):
    r"""
    :math:`Z = \sum_s e^{\ell(s)}` over all `num_states ** num_sites` states of some sites.

    - **num_states** - states of one site.
    - **num_sites** - number of sites.
    - **log_weight** - :math:`\ell`, `log_weight(s) -> ()` for integers `0, ..., num_states - 1` of
      shape `(num_sites,)`.
    """

    num_states: int
    num_sites: int
    log_weight: Callable[[Array], Array]


class BoltzmannDistribution(PointwiseDistribution):
    r"""
    :math:`p(x) = e^{\ell(x)} / Z`, where a subclass writes :math:`\ell` for one point,
    `_log_weight(x) -> ()`, what must be summed for :math:`Z`, `partition_sum`, and in
    `_interaction` the name of the parameter without which all sites would be independent.
    """

    pytree_data_fields = ("log_normalizer",)
    pytree_aux_fields = ("sampler",)
    _interaction: str

    def __init__(self, event_shape, support, log_normalizer, sampler=None, *, validate_args=None):
        check_log_normalizer(log_normalizer)
        self.log_normalizer = log_normalizer
        self.sampler = None if sampler is None else as_sampler(sampler, "BlockGibbs")
        super().__init__(event_shape, support, validate_args=validate_args)
        if sampler is not None:
            self._kernel()

    @constraints.dependent_property(is_discrete=True)
    def support(self):
        return self._support

    @abstractmethod
    def _log_weight(self, x: Array) -> Array:
        """The unnormalised log density at one point of floats, shape `()`."""

    @abstractmethod
    def partition_sum(self) -> PartitionSum:
        """The sum that is Z, for the methods of `numpyro_scores.log_normalizer`."""

    def tempered(self, beta: ArrayLike) -> Self:
        r"""
        The same, unnormalised and without a sampler, with :math:`\beta` times the couplings
        (weights) and the fields (biases) as they are: at :math:`\beta = 0` all sites are
        independent.

        :param beta: shape `()`.
        """
        other = copy.copy(self)
        weights = getattr(self, self._interaction)
        # Zero times what forbids a pair of states forbids nothing.
        weights = jnp.where(jnp.isinf(weights) & (jnp.asarray(beta) == 0), 0.0, weights)
        setattr(other, self._interaction, beta * weights)
        other.log_normalizer = other.sampler = None
        return other

    def _log_density(self, x: Array) -> Array:
        log_weight = self._log_weight(x)
        return log_weight if self.log_normalizer is None else log_weight - self.log_normalizer

    def _kernel(self) -> Any:
        """A new kernel: `init` writes on kernels."""
        assert self.sampler is not None
        return checked_kernel(self.sampler(lambda: numpyro.sample("x", self)))

    def _short_run(self, key: Array) -> Array:
        with handlers.block():  # the handlers of a model that draws from this one are not for ours
            return one_draw(self._kernel(), key)["x"]

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """
        Draws by the `sampler`, each the end of a chain of its own.

        :raises NotImplementedError: without a `sampler`.
        """
        if self.sampler is None:
            kernel = "BlockGibbs" if self.is_discrete else "MALA"
            raise NotImplementedError(
                f"{type(self).__name__} cannot be sampled directly: its sites depend on each "
                f"other. Draw with MCMC(numpyro_scores.{kernel}(model), ...), or give it a "
                f"short-run sampler, {type(getattr(self, 'rbm', self)).__name__}(..., "
                f"sampler=functools.partial(numpyro_scores.{kernel}, num_steps=500)), which "
                "NumPyro's Predictive and Gibbs need."
            )
        return short_runs(self, key, sample_shape)


class BlockDistribution(BoltzmannDistribution):
    """
    A Boltzmann distribution whose sites fall into blocks, such that the sites of a block are
    independent given those of all other blocks.

    A point and the tuple of its blocks are two forms of one value: `split` and `join` go between
    them. They take any leading batch axes and any dtype, so that what is given site by site, such
    as the log likelihood of each state, is split in the same way.
    """

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """The number of blocks."""

    @abstractmethod
    def split(self, x: ArrayLike) -> tuple[Array, ...]:
        """The blocks of a point (or batch of points), each an array of its sites."""

    @abstractmethod
    def join(self, blocks: tuple[Array, ...]) -> Array:
        """The point that has these blocks, the inverse of `split`."""

    @abstractmethod
    def _conditional(self, block: int, blocks: tuple[Array, ...]) -> dist.Distribution:
        """The distribution of one block given the others; its own entry is not looked at."""

    def random_point(
        self, key: Array, batch_shape: tuple[int, ...] = (), *, allowed: bool = True
    ) -> Array:
        """
        A point to start a chain from, at which each discrete site has one of its states with equal
        probabilities, and continuous sites are drawn given the discrete ones. States are int8. If
        such a point has probability zero, one near by that has not, where sweeps find it.

        :param allowed: whether to look for one, which takes longer to compile.
        """
        key, key_allowed = random.split(key)
        dtype = jnp.int8 if self.is_discrete else float
        blocks = list(self.split(jnp.zeros((*batch_shape, *self.event_shape), dtype)))
        keys = random.split(key, self.num_blocks)
        continuous = []
        for k, block in enumerate(blocks):
            conditional = self._conditional(k, tuple(blocks))
            if conditional.is_discrete:
                states = conditional.enumerate_support(False).reshape(-1).astype(block.dtype)
                blocks[k] = random.choice(keys[k], states, block.shape)
            else:
                continuous.append(k)
        for k in continuous:
            blocks[k] = jnp.asarray(self._conditional(k, tuple(blocks)).sample(keys[k]))
        point = self.join(tuple(blocks))
        return allowed_point(self, key_allowed, point) if allowed else point

    def gibbs_steps(self, key: Array, x: ArrayLike, num_steps: int = 1) -> Array:
        """
        Where chains end that start at points, after some sweeps over all blocks.

        :param x: points, shape `(..., *event_shape)`; the dtype stays.
        """
        return compiled(_gibbs_steps, self, key, jnp.asarray(x), num_steps=num_steps)

    def site_log_probs(self, x: ArrayLike) -> Array:
        r"""
        :math:`\log p(x_i \mid x_{\setminus i})` of each site.

        :param x: points, shape `(..., *event_shape)`.
        :return: the shape of `x`.
        """
        blocks = tuple(self.split(x))
        log_probs = []
        for k, block in enumerate(blocks):
            given = self._conditional(k, blocks)
            log_prob = given.log_prob(block.astype(int) if given.is_discrete else block)
            log_probs.append(jnp.asarray(log_prob))
        return self.join(tuple(log_probs))

    def conditional(self, block: int, value: Any) -> dist.Distribution:
        """
        The distribution of the sites of one block given all others: a NumPyro distribution with
        one entry of its batch shape for each site, in the layout of `split`.

        :param block: which block, `0, ..., num_blocks - 1`.
        :param value: a point, or its blocks as `split` returns them, which is what a sampler
            carries. The sites of the block itself are not looked at.
        :raises ValueError: if there is no such block, or `value` has another shape.
        """
        if not is_concrete(block) or block not in range(self.num_blocks):
            raise ValueError(
                f"{type(self).__name__} has the blocks 0 to {self.num_blocks - 1}, got {block!r}."
            )
        if not isinstance(value, tuple):
            value = jnp.asarray(value)
            split = value.ndim - len(self.event_shape)
            if split < 0 or value.shape[split:] != self.event_shape:
                raise ValueError(
                    f"{type(self).__name__}.conditional takes a point of shape "
                    f"{self.event_shape}, with any batch axes before, or the tuple of its blocks; "
                    f"got shape {value.shape}."
                )
            value = self.split(value)
        elif len(value) != self.num_blocks:
            raise ValueError(
                f"{type(self).__name__} has {self.num_blocks} blocks, got a tuple of {len(value)}; "
                "a point is an array."
            )
        return self._conditional(block, value)


def _gibbs_steps(d: BlockDistribution, key: Array, x: Array, *, num_steps: int) -> Array:
    return d.join(gibbs_sweeps(d._conditional, key, tuple(d.split(x)), num_steps))


class ColoredDistribution(BlockDistribution):
    """A Boltzmann distribution on a graph, whose blocks are the colours of its sites."""

    @property
    @abstractmethod
    def _blocks(self) -> Checkerboard | ColorBlocks:
        """The sites in blocks that do not interact."""

    @property
    def num_blocks(self) -> int:
        return self._blocks.num_blocks

    def split(self, x: ArrayLike) -> tuple[Array, ...]:
        return self._blocks.split(x)

    def join(self, blocks: tuple[Array, ...]) -> Array:
        return self._blocks.join(blocks)


def as_parameter(name: str, value: ArrayLike, *shapes: tuple[int, ...]) -> Array:
    """A parameter as an array of floats; raise unless it has one of the shapes."""
    value = jnp.asarray(value)
    if value.shape not in shapes:
        wanted = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(f"{name} must have shape {wanted}, got shape {value.shape}.")
    return value if jnp.issubdtype(value.dtype, jnp.inexact) else value.astype(float)


def check_weights(name: str, weights: Array) -> None:
    """Raise if a log weight is plus infinity, which is no density, as far as it can be seen."""
    if is_concrete(weights) and np.any(np.isposinf(weights)):
        raise ValueError(
            f"{name} must be below infinity: the density of states that it favours would be "
            "infinite. To forbid the others give these -inf (a field of Ising or a bias may be "
            "infinite on both sides, and pairs of states are the tables of PairwiseMRF)."
        )
