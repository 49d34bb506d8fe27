# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A density as a product of conditional ones, each of an entry given those before it."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax, random
from numpyro.distributions import constraints

from numpyro_scores._callables import as_pytree, name_of, output_shape
from numpyro_scores._compile import compiled
from numpyro_scores._validation import as_event_shape, as_sample_shape, check_key, is_concrete
from numpyro_scores.distributions._base import PointwiseDistribution

# Places at which a network is asked whether it looks ahead.
NUM_CHECKS = 8


def normal(mean: Array, log_scale: Array) -> dist.Distribution:
    """The conditional density of real entries: a normal one of given log standard deviation."""
    return dist.Normal(mean, jnp.exp(log_scale))


class AutoregressivePrior(PointwiseDistribution):
    r"""
    :math:`p(x) = \prod_i p(x_i \mid x_1, \dots, x_{i - 1})`, **normalised**: the parameters of all
    conditional distributions are the output of one network, whose output for entry `i` sees the
    entries before it only, such as `numpyro_scores.nn.MADE` (Germain et al. 2015, "MADE: masked
    autoencoder for distribution estimation") or, for pictures, `numpyro_scores.nn.PixelCNN`::

        real = AutoregressivePrior(nn.MADE(6, rngs=rngs, num_outputs=2), 6)
        binary = AutoregressivePrior(nn.MADE(6, rngs=rngs), 6, conditional=dist.BernoulliLogits)

    `log_prob` takes one evaluation of the network, `sample` one for each entry, in a scan. Entries
    are in the order of their place in memory.

    :param network: `network(x)` of one point, shape `(*event_shape, k)`: `k` parameters of each
        entry's conditional distribution.
    :param event_shape: shape of one point.
    :param conditional: makes a NumPyro distribution of entries from their `k` parameters, each of
        the shape of the entries: a function or a class of distributions, such as `BernoulliLogits`.
        By default `Normal(mean, exp(log_scale))`.
    :raises TypeError: if `conditional` makes no distribution of so many parameters.
    :raises ValueError: if the output has another shape, or that of an entry depends on the entry
        itself or on later ones; if the support of an entry depends on its parameters.

    A point outside of the support of discrete entries has log density minus infinity. Draws are
    differentiable in the network, as `has_rsample` says, where those of the entries are.
    """

    pytree_data_fields = ("network",)
    pytree_aux_fields = ("conditional", "_is_reparametrised")

    def __init__(
        self,
        network: Callable[[Array], Array],
        event_shape: Sequence[int] | int,
        conditional: Callable[..., dist.Distribution] = normal,
        *,
        validate_args: bool | None = None,
    ):
        self.network = as_pytree("network", network)
        self.conditional = conditional
        shape = as_event_shape(event_shape)
        point = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
        found = getattr(output_shape("network", self.network, point), "shape", None)
        if found is None or found[:-1] != shape:
            raise ValueError(
                f"network must map one point of shape {shape} to the parameters of each entry, "
                f"shape {(*shape, 'k')}, got shape {found}."
            )
        # A model that makes the prior is traced, but what is known of the network stays known.
        with jax.ensure_compile_time_eval():
            self._check_order(shape)
            one, other = (self._of_one_entry(found[-1], value) for value in (0.0, 1.0))
        self._is_reparametrised = bool(one.has_rsample)
        if one.event_shape != () or one.batch_shape != ():
            raise ValueError(
                "conditional must make a distribution of one number from numbers, got batch shape "
                f"{one.batch_shape} and event shape {one.event_shape}."
            )
        bounds = jax.tree.leaves((one.support, other.support))
        if all(map(is_concrete, bounds)) and one.support != other.support:
            raise ValueError(
                "The support of an entry must not depend on its parameters, or that of a point "
                f"would not be known; conditional has {one.support} and {other.support}."
            )
        super().__init__(shape, one.support, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True)
    def support(self):
        return self._support

    @property
    def has_rsample(self) -> bool:
        return self._is_reparametrised

    def _of_one_entry(self, num_parameters: int, value: float) -> dist.Distribution:
        """The distribution of one entry whose parameters all have this value."""
        wanted = (
            "conditional must make a NumPyro distribution of one number from the parameters of an "
            f"entry, of which network has {num_parameters} (its last axis): a function or a class "
            "of so many arguments, such as dist.BernoulliLogits of one"
        )
        if not callable(self.conditional):
            raise TypeError(f"{wanted}; got {self.conditional!r}.")
        try:
            made = self._entries(jnp.full((num_parameters,), value))
        except TypeError as error:
            raise TypeError(f"{wanted}; {name_of(self.conditional)} says: {error}.") from error
        if not isinstance(made, dist.Distribution):
            raise TypeError(f"{wanted}; {name_of(self.conditional)} made {type(made).__name__}.")
        return made

    def _check_order(self, shape: tuple[int, ...]) -> None:
        if not all(map(is_concrete, jax.tree.leaves(self.network))):
            return
        d = math.prod(shape)
        places = np.unique(np.linspace(0, d - 1, NUM_CHECKS).astype(int))
        x, other = np.random.default_rng(0).normal(size=(2, d))
        # From each place on another point, whose output up to there must be the same.
        points = np.where(np.arange(d) < places[:, None], x, other).reshape(-1, *shape)
        outputs = jax.vmap(self.network)(jnp.asarray(points, float))
        whole = jnp.asarray(self.network(jnp.asarray(x, float).reshape(shape)))
        if not (is_concrete(outputs) and is_concrete(whole)):  # of weights in a closure
            return
        for i, output in zip(places, np.asarray(outputs), strict=True):
            found, expected = (np.reshape(y, (d, -1))[: i + 1] for y in (output, whole))
            if not np.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True):
                raise ValueError(
                    f"network is not autoregressive: its output for one of the first {i + 1} "
                    f"entries depends on entry {i} or later ones, so that the product of the "
                    "conditional densities is none. Mask it, as nn.MADE and nn.PixelCNN do."
                )

    def _entries(self, parameters: Array) -> dist.Distribution:
        return self.conditional(*jnp.moveaxis(parameters, -1, 0))

    def _log_density(self, x: Array) -> Array:
        entries: Any = self._entries(self.network(x))
        if not self.is_discrete:
            return jnp.sum(entries.log_prob(x))
        # Tables of probabilities are looked up at integers, and have nothing beyond their end.
        value = entries.log_prob(x.astype(int))
        return jnp.sum(jnp.where(entries.support(x), value, -jnp.inf))

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws, independent and exact, shape `(*sample_shape, *event_shape)`."""
        key = check_key("AutoregressivePrior.sample", key)
        sample_shape = as_sample_shape(sample_shape)
        keys = random.split(key, math.prod(sample_shape))
        draws = compiled(_draws, self, keys)
        return draws.reshape(*sample_shape, *self.event_shape)

    def __repr__(self) -> str:
        words = f"{name_of(self.network)}, event_shape={self.event_shape}"
        return f"AutoregressivePrior({words}, conditional={name_of(self.conditional)})"


def _draws(distribution: AutoregressivePrior, keys: Array) -> Array:
    shape = distribution.event_shape
    dtype: Any = jax.eval_shape(lambda: jnp.zeros(())).dtype

    def draw(key: Array) -> Array:
        def entry(x, place_and_key):
            i, key = place_and_key
            parameters = distribution.network(x.reshape(shape))
            own = parameters.reshape(x.size, -1)[i]
            drawn = jnp.asarray(distribution._entries(own).sample(key), dtype)
            return x.at[i].set(drawn), None

        size = math.prod(shape)
        start = jnp.zeros(size, dtype)
        return lax.scan(entry, start, (jnp.arange(size), random.split(key, size)))[0]

    return jax.vmap(draw)(keys)
