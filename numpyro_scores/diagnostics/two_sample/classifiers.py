# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""Classifiers that tell two sets of samples apart: their logit is :math:`\log p/q`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.tree_util import Partial

from numpyro_scores._validation import check_count, check_positive


class Classifier(Protocol):
    """What :func:`classifier_two_sample_test` trains: a hashable object, with this call."""

    def __call__(
        self, z: Array, labels: Array, weights: Array, *, key: Array
    ) -> Callable[[Array], Array]:
        """
        Minimise the weighted mean of :math:`\\log(1 + e^{-l f(z)})` over the logit `f`.

        :param z: points of both sets, shape `(n, d)`, with mean 0 and variance 1.
        :param labels: 1 or -1, shape `(n,)`.
        :param weights: of the points, with sum 1, shape `(n,)`; 0 for those held out.
        :param key: key of what is random in the training.
        :return: the logit of one point, `(d,) -> ()`, a pytree.
        """
        ...


@dataclass(frozen=True)
class LogisticRegression:
    r"""
    A linear logit :math:`\theta \cdot z + b` by Newton's method: it sees a shift of the mean.

    :param penalty: :math:`\lambda` of :math:`\frac\lambda2 |\theta|^2`, added to the mean loss.
    :param num_steps: number of Newton steps.
    """

    penalty: float = 1e-3
    num_steps: int = 12

    def __post_init__(self):
        check_positive("penalty", self.penalty)
        check_count("num_steps", self.num_steps)

    def __call__(self, z, labels, weights, *, key):
        del key
        inputs = jnp.append(z, jnp.ones_like(z[:, :1]), axis=1)
        penalty = self.penalty * jnp.ones(inputs.shape[1], z.dtype).at[-1].set(1e-3)

        def step(theta, _):
            logits = inputs @ theta
            wrong = jax.nn.sigmoid(-labels * logits)
            grad = penalty * theta - inputs.T @ (weights * labels * wrong)
            curvature = weights * wrong * (1 - wrong)
            hessian = (inputs * curvature[:, None]).T @ inputs + jnp.diag(penalty)
            update = jnp.linalg.solve(hessian, grad)
            # Where no logit changes by more than 2 the quadratic model holds (Bach 2010).
            largest = jnp.max(jnp.abs(inputs @ update))
            return theta - update * jnp.minimum(1, 2 / jnp.maximum(largest, 2)), None

        theta, _ = lax.scan(step, jnp.zeros(inputs.shape[1], z.dtype), length=self.num_steps)
        return Partial(_linear, theta)


@dataclass(frozen=True)
class SmallNetwork:
    """
    A logit with one hidden layer of `tanh`, by Adam on all points: it sees what a mean does not.

    :param width: number of hidden units.
    :param num_steps: number of steps.
    :param learning_rate: of Adam.
    :param penalty: weight decay of AdamW.
    """

    width: int = 32
    num_steps: int = 200
    learning_rate: float = 1e-2
    penalty: float = 1e-2

    def __post_init__(self):
        check_count("width", self.width)
        check_count("num_steps", self.num_steps)
        check_positive("learning_rate", self.learning_rate)
        check_positive("penalty", self.penalty)

    def __call__(self, z, labels, weights, *, key):
        import optax

        key_inner, key_bias, key_outer = random.split(key, 3)
        d, width = z.shape[1], self.width
        parameters = (
            random.normal(key_inner, (width, d), z.dtype) / jnp.sqrt(d),
            random.normal(key_bias, (width,), z.dtype),
            random.normal(key_outer, (width,), z.dtype) / width,
            jnp.zeros((), z.dtype),
        )
        optimizer = optax.adamw(self.learning_rate, weight_decay=self.penalty)

        def loss(parameters):
            logits = jax.vmap(_network, (None, 0))(parameters, z)
            return weights @ jax.nn.softplus(-labels * logits)

        def step(carry, _):
            parameters, state = carry
            updates, state = optimizer.update(jax.grad(loss)(parameters), state, parameters)
            return (optax.apply_updates(parameters, updates), state), None

        start = parameters, optimizer.init(parameters)
        (parameters, _), _ = lax.scan(step, start, length=self.num_steps)
        return Partial(_network, parameters)


def _linear(theta, z):
    return z @ theta[:-1] + theta[-1]


def _network(parameters, z):
    inner, bias, outer, shift = parameters
    return outer @ jnp.tanh(inner @ z + bias) + shift
