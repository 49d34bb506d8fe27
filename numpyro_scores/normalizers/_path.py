# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""From independent sites to a distribution whose normaliser is sought, and how to move there."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from numpyro.util import is_prng_key

from numpyro_scores._validation import check_count, is_concrete
from numpyro_scores.distributions import BlockDistribution, BoltzmannDistribution
from numpyro_scores.distributions.boltzmann.joint_rbm import RestrictedBoltzmann
from numpyro_scores.distributions.boltzmann.states import most_probable

Blocks = tuple[Array, ...]

# What is forbidden at the end of a path costs this much half way.
RISE = 8.0


class Path(NamedTuple):
    r"""
    The members :math:`p_\beta` of a family whose parameters are :math:`1 - \beta` times those of
    `start`, where all sites are independent, plus :math:`\beta` times those of `end`. Where the log
    weight is linear in the parameters this is the geometric path :math:`p_0^{1 - \beta}
    p_1^\beta`. A parameter that is infinite at the end alone, since it forbids something, has the
    value :math:`\pm c\,\beta / (1 - \beta)` more on the way.

    The largest block is summed out of all weights: they are of the marginal distribution of the
    others, whose chain draws the largest block anew at each step. Blocks have one axis of chains,
    and then their own.

    - **start**, **end** - of one kind, without a `log_normalizer`.
    """

    start: BlockDistribution
    end: BlockDistribution

    def at(self, beta: Array | float) -> BlockDistribution:
        return jax.tree.map(lambda a, b: _between(a, b, beta), self.start, self.end)

    def summed(self) -> int:
        """The block that is summed out."""
        sizes = [block.size for block in self.end.split(jnp.zeros(self.end.event_shape))]
        return sizes.index(max(sizes))

    def order(self) -> list[int]:
        """The blocks in the order of a sweep."""
        others = [k for k in range(self.end.num_blocks) if k != self.summed()]
        return [self.summed(), *others]

    def log_weight(self, beta: Array | float, blocks: Blocks) -> Array:
        r"""
        :math:`\log \sum_{x_k} e^{\ell_\beta(x)} = \ell_\beta(x) - \log p_\beta(x_k \mid x_{-k})` of
        each chain, with `k` the block that is summed out, whatever its value is.
        """
        return self._log_weight(beta, blocks, [self.summed()])

    def slope(self, beta: Array, blocks: Blocks) -> Array:
        """The derivative of `log_weight` in beta."""
        one = jnp.ones_like(beta)
        return jax.jvp(lambda beta: self.log_weight(beta, blocks), (beta,), (one,))[1]

    def base_log_normalizer(self, blocks: Blocks) -> Array:
        """The logarithm of the normaliser of `start`, from any point: all blocks summed out."""
        return self._log_weight(0.0, blocks, range(self.end.num_blocks))[0]

    def _log_weight(self, beta, blocks, summed):
        d = self.at(beta)
        # Any value will do that has a positive probability, if there is one.
        for k in summed:
            conditional = d.conditional(k, blocks)
            if conditional.is_discrete:
                likely = most_probable(jax.tree.map(lax.stop_gradient, conditional))
                blocks = (*blocks[:k], likely.astype(blocks[k].dtype), *blocks[k + 1 :])
        log_weight = d.log_prob(d.join(blocks))
        is_possible = ~jnp.isneginf(log_weight)
        for k in summed:
            log_probs = jnp.asarray(d.conditional(k, blocks).log_prob(blocks[k]))
            log_weight -= jnp.sum(log_probs.reshape(len(log_weight), -1), 1)
        return jnp.where(is_possible, log_weight, -jnp.inf)

    def sweep(self, beta: Array | float, key: Array, blocks: Blocks) -> Blocks:
        r"""Each block anew, from its conditional distribution under :math:`p_\beta`."""
        d = self.at(beta)
        new = list(blocks)
        for k, key_block in zip(self.order(), random.split(key, len(blocks)), strict=True):
            conditional = d.conditional(k, tuple(new))
            drawn = jnp.asarray(conditional.sample(key_block))
            new[k] = drawn.astype(jnp.int8) if conditional.is_discrete else drawn
        return tuple(new)

    def base_blocks(self, key: Array, num_chains: int) -> Blocks:
        """Independent draws of `start`."""
        anywhere = jnp.zeros((num_chains, *self.start.event_shape))
        return self.sweep(0.0, key, tuple(self.start.split(anywhere)))

    def anneal(self, betas: Array, key: Array, blocks: Blocks) -> tuple[Blocks, Array]:
        r"""
        From draws at `betas[0]` to weighted points at `betas[-1]`, up or down, with weights of mean
        :math:`Z_{\text{last}} / Z_{\text{first}}` (Neal 2001, "Annealed importance sampling").

        :param betas: shape `(num_levels + 1,)`.
        :return: the blocks, and the log weight of each chain.
        """

        def level(carry, inputs):
            blocks, log_weights = carry
            before, after, key = inputs
            # What has once become impossible stays so, wherever its sweeps go on to.
            is_lost = jnp.isneginf(log_weights)
            old = jnp.where(is_lost, 0.0, self.log_weight(before, blocks))
            log_weights += jnp.where(is_lost, 0.0, self.log_weight(after, blocks)) - old
            return (self.sweep(after, key, blocks), log_weights), None

        log_weights = jnp.zeros_like(self.log_weight(betas[0], blocks))
        inputs = betas[:-1], betas[1:], random.split(key, len(betas) - 1)
        return lax.scan(level, (blocks, log_weights), inputs)[0]


def _between(start: Array, end: Array, beta: Array | float) -> Array:
    """A parameter between its values at the two ends of the path."""
    finite_start = jnp.where(jnp.isinf(start), 0.0, start)
    finite_end = jnp.where(jnp.isinf(end), 0.0, end)
    value = (1 - beta) * finite_start + beta * finite_end
    before_end = jnp.where(beta < 1, 1 - beta, 1.0)
    softened = value + jnp.sign(end) * RISE * beta / before_end
    at_end = jnp.where(beta < 1, softened, lax.stop_gradient(end))
    value = jnp.where(jnp.isinf(end), at_end, value)
    return jnp.where(jnp.isinf(start), start, value)


def check_chains(num_chains: Any) -> None:
    check_count("num_chains", num_chains)
    if num_chains < 2:
        raise ValueError("num_chains must be at least 2, for a standard error, got 1.")


def path_to(
    distribution: BoltzmannDistribution, base: BoltzmannDistribution | None, method: str
) -> Path:
    """To a distribution, from independent sites with the fields of `base`."""
    if base is None:
        base = distribution
    elif type(base) is not type(distribution):
        raise ValueError(
            f"base must be a {type(distribution).__name__}, as the distribution is, got "
            f"{type(base).__name__}."
        )
    start = _with_hidden_units(base, method).tempered(0.0)
    end = _with_hidden_units(distribution, method).tempered(1.0)
    shapes = [[jnp.shape(x) for x in jax.tree.leaves(d)] for d in (start, end)]
    if shapes[0] != shapes[1] or jax.tree.structure(start) != jax.tree.structure(end):
        raise ValueError(
            "base must have the sites and the edges of the distribution, and parameters of the "
            f"shapes {shapes[1]}, got {shapes[0]}."
        )
    leaves = zip(jax.tree.leaves(start), jax.tree.leaves(end), strict=True)
    for a, b in leaves:
        if (
            is_concrete(a)
            and is_concrete(b)
            and np.any(np.isinf(a) & (np.asarray(a) != np.asarray(b)))
        ):
            raise ValueError(
                "base must not forbid states that the distribution allows: its fields (biases) are "
                "infinite where those of the distribution are not."
            )
    return _undifferentiated(Path(start, end))


def checked_key(key: Any, method: str) -> Array:
    if not is_prng_key(key):
        raise ValueError(
            f"{method} draws at random and needs one key, "
            f"log_normalizer(..., key=jax.random.key(0)), got {key!r}."
        )
    return key


def _with_hidden_units(distribution: BoltzmannDistribution, method: str) -> BlockDistribution:
    if isinstance(distribution, RestrictedBoltzmann):
        return distribution.joint()
    if not isinstance(distribution, BlockDistribution):
        raise ValueError(
            f"{method} draws block by block, but {type(distribution).__name__} has no blocks: it "
            "must be a numpyro_scores.distributions.BlockDistribution."
        )
    return distribution


def points_with_hidden_units(
    distribution: BoltzmannDistribution, points: Array, key: Array
) -> Array:
    """Draws of a distribution; those of a machine's visible units with hidden ones drawn too."""
    if not isinstance(distribution, RestrictedBoltzmann):
        return points
    hidden = distribution.conditional(visible=points).sample(key)
    return jnp.concatenate([points, hidden], -1)


@jax.custom_jvp
def _undifferentiated(path: Path) -> Path:
    return path


@_undifferentiated.defjvp
def _refuse(primals, tangents):
    raise TypeError(
        "A normaliser that is estimated from random draws cannot be differentiated. Use an exact "
        "method, Enumeration() or TransferMatrix(), or estimate it for parameters that are held "
        "fixed: jax.lax.stop_gradient."
    )
