# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Sites with finitely many states: their supports, indicators and distributions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, random
from jax.typing import ArrayLike
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from numpyro_scores._validation import as_sample_shape, check_count, check_key

# NumPyro's integer_interval holds its bounds as leaves of a pytree, which a transformation of the
# parameters would transform too; the states here are static.


class States(constraints.Constraint):
    """One of finitely many integers."""

    is_discrete = True
    event_dim = 0

    def __init__(self, states: tuple[int, ...]) -> None:
        self.states = states

    def __call__(self, x: Any) -> Any:
        return (jnp if isinstance(x, Array) else np).isin(x, np.array(self.states))

    def __repr__(self) -> str:
        return f"States({', '.join(map(str, self.states))})"

    def feasible_like(self, prototype: Any) -> Any:
        return jnp.full_like(prototype, self.states[-1])

    def tree_flatten(self) -> tuple:
        return (), ((), {"states": self.states})

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, States) and self.states == other.states

    def __hash__(self) -> int:
        return hash(self.states)


spin = States((-1, 1))


def finite_states(support: Any) -> tuple[int, ...]:
    """The states of each element; none unless they are finitely many and the same for all."""
    if isinstance(support, type(constraints.independent(constraints.boolean, 1))):
        return finite_states(support.base_constraint)
    if isinstance(support, States):
        return support.states
    if support is constraints.boolean:
        return (0, 1)
    if isinstance(support, type(constraints.integer_interval(0, 1))):
        bounds = [np.unique(bound) for bound in (support.lower_bound, support.upper_bound)]
        if all(bound.size == 1 for bound in bounds):
            low, high = (int(bound[0]) for bound in bounds)
            return tuple(range(low, high + 1))
    return ()


def check_num_states(num_states: int) -> int:
    check_count("num_states", num_states)
    if num_states < 2 or num_states > 128:
        raise ValueError(f"num_states must be from 2 to 128 (states are int8), got {num_states}.")
    return int(num_states)


def indicators(x: Array, num_states: int, axis: int = -1) -> Array:
    """
    Of each site of `x`, with states `0, ..., num_states - 1`, a new axis with a one at its state.
    Of two states the indicators are linear in `x`: the derivative in `x` is the difference that a
    change of state makes.
    """
    if num_states == 2:
        return jnp.stack([1 - x, x], axis)
    return jnp.stack([(x == state).astype(x.dtype) for state in range(num_states)], axis)


def lowered(weights: Array) -> Array:
    """
    Log weights with a number far below all others in place of minus infinity, so that zero times a
    weight is zero. What sums of them have come to say, `forbidden` tells.
    """
    return jnp.where(jnp.isneginf(weights), -_far(weights.dtype), weights)


def forbidden(log_weights: Array) -> Array:
    """Sums of weights that were `lowered`, with minus infinity where such a weight is in them."""
    return jnp.where(log_weights < -_far(log_weights.dtype) / 2, -jnp.inf, log_weights)


def _far(dtype: Any) -> float:
    return float(jnp.finfo(dtype).max) / 2.0**24


def clamped(field: Array) -> tuple[Array, Array]:
    """
    The log weights of the lower and of the upper of two states from the weight of the upper one
    over the lower. An infinite one clamps the site: zero, and minus infinity for the other state.
    """
    return (
        jnp.where(jnp.isposinf(field), -jnp.inf, 0.0).astype(field.dtype),
        jnp.where(jnp.isposinf(field), 0.0, field),
    )


def unit_weight(bias: Array, x: Array) -> Array:
    """The sum over units of 0 and 1, on the last axis, of what their biases add."""
    off, on = map(lowered, clamped(bias))
    return forbidden(jnp.sum(off * (1 - x) + on * x, -1))


def summed_unit_weight(bias: Array, field: Array) -> Array:
    r"""
    :math:`\log \sum_{x \in \{0, 1\}} e^{(b + f) x}`, a softplus, of units of bias b and field f.
    """
    off, on = clamped(jnp.broadcast_to(bias, field.shape))
    return jnp.logaddexp(off, on + field)


def plus(field: Array, bias: Array) -> Array:
    """The sum of what each point of a batch and what all points have."""
    return field + jnp.broadcast_to(bias, field.shape)


class LogWeights(constraints.Constraint):
    """Log weights, which may be infinite."""

    def __init__(self, event_dim: int) -> None:
        self.event_dim = event_dim

    def __call__(self, x: Any) -> Any:
        known = x == x
        return known.all(-1) if self.event_dim else known

    def feasible_like(self, prototype: Any) -> Any:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> tuple:
        return (), ((), {"event_dim": self.event_dim})

    def eq(self, other: object, static: bool = False) -> bool:
        return isinstance(other, LogWeights) and self.event_dim == other.event_dim

    def __hash__(self) -> int:
        return hash(self.event_dim)


class CategoricalLogits(dist.CategoricalLogits):
    """NumPyro's `Categorical(logits=...)`, which takes logits of minus infinity too."""

    arg_constraints = {"logits": LogWeights(1)}


class BernoulliLogits(dist.BernoulliLogits):
    """NumPyro's `Bernoulli(logits=...)`, which is right at infinite logits too."""

    arg_constraints = {"logits": LogWeights(0)}

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: Any = None) -> Array:
        logits = jnp.asarray(self.logits)
        return jax.nn.log_sigmoid(jnp.where(jnp.asarray(value) == 1, logits, -logits))


def from_logits(logits: Array) -> dist.Distribution:
    """One of the states `0, 1, ...` at each site, from unnormalised logits on the last axis."""
    if logits.shape[-1] == 2:
        return BernoulliLogits(logits[..., 1] - logits[..., 0])
    return CategoricalLogits(logits)


def most_probable(d: Any) -> Array:
    """The most probable state of each site of a conditional distribution."""
    if isinstance(d, Spin):
        return jnp.where(d.logits > 0, 1, -1).astype(jnp.int8)
    if isinstance(d, dist.BernoulliLogits):
        return jnp.asarray(d.logits > 0).astype(jnp.int8)
    return jnp.argmax(d.logits, -1).astype(jnp.int8)


class Spin(dist.Distribution):
    r"""
    A state of -1 or +1, :math:`p(s) = 1 / (1 + e^{-s\,\text{logits}})`: what NumPyro's `Bernoulli`
    is for 0 and 1.

    :param logits: :math:`\log p(+1) - \log p(-1)`.
    """

    arg_constraints = {"logits": LogWeights(0)}
    support = spin
    has_enumerate_support = True

    def __init__(self, logits: ArrayLike, *, validate_args: bool | None = None):
        self.logits = logits
        super().__init__(jnp.shape(logits), (), validate_args=validate_args)

    @property
    def mean(self) -> Array:
        return jnp.tanh(self.logits / 2)

    @property
    def variance(self) -> Array:
        return 1 - self.mean**2

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        key = check_key("Spin.sample", key)
        shape = as_sample_shape(sample_shape) + self.batch_shape
        up = random.bernoulli(key, jax.nn.sigmoid(self.logits), shape)
        return jnp.where(up, 1, -1).astype(jnp.int8)

    @validate_sample
    def log_prob(self, value: ArrayLike, intermediates: Any = None) -> Array:
        return jax.nn.log_sigmoid(value * self.logits)

    def enumerate_support(self, expand: bool = True) -> Array:
        states = jnp.array([-1, 1], jnp.int8).reshape(2, *[1] * len(self.batch_shape))
        return jnp.broadcast_to(states, (2, *self.batch_shape)) if expand else states


def from_uniform(d: Any, uniform: Array) -> Array:
    """
    Draws of a `Spin` or a `Bernoulli` with logits.

    :param uniform: numbers in [0, 1), one for each site.
    """
    up = uniform < jax.nn.sigmoid(d.logits)
    return jnp.where(up, 1, -1 if isinstance(d, Spin) else 0).astype(jnp.int8)


def tilted(d: Any, log_weights: Array | None, power: Any = None) -> dist.Distribution:
    r"""
    At each site the density proportional to `p(x)^power e^{log_weights[x]}`.

    :param d: a `Spin`, a `Bernoulli` or a `Categorical` with logits.
    :param power: one for each copy of a lattice, on the first axes; None for one.
    :param log_weights: for each state, then each site; None for none.
    """
    logits = d.logits
    if power is not None:
        power = jnp.reshape(power, (*jnp.shape(power), *[1] * (logits.ndim - jnp.ndim(power))))
        # A power of zero leaves the density out, where that is zero too.
        logits = power * jnp.where(power == 0, 0.0, logits)
    if log_weights is not None:
        if isinstance(d, Spin | dist.BernoulliLogits):
            logits += log_weights[1] - log_weights[0]
        else:
            logits += jnp.moveaxis(log_weights, 0, -1)
    return type(d)(logits)
