# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Restricted Boltzmann machines, with binary or with continuous visible units."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array, lax
from jax.nn import softplus
from jax.typing import ArrayLike
from numpyro.distributions import constraints

from numpyro_scores._validation import check_positive, is_concrete
from numpyro_scores.distributions.boltzmann.base import PartitionSum, as_parameter
from numpyro_scores.distributions.boltzmann.joint_rbm import RestrictedBoltzmann
from numpyro_scores.distributions.boltzmann.states import (
    BernoulliLogits,
    plus,
    summed_unit_weight,
    unit_weight,
)


class BernoulliRBM(RestrictedBoltzmann):
    r"""
    A restricted Boltzmann machine with binary units, as a distribution of the visible ones,
    :math:`\log p(v) = -F(v) - \log Z`, with the free energy

    .. math:: F(v) = -a \cdot v - \sum_j \operatorname{softplus}(b_j + (W^T v)_j),

    the hidden units of the energy :math:`E(v, h) = -a \cdot v - b \cdot h - v \cdot W h` summed out
    (Smolensky 1986; Hinton 2002, "Training products of experts by minimizing contrastive
    divergence"). `joint()` is the distribution of both.

    `log_prob` is **unnormalised** unless `log_normalizer` is given. `conditional(visible=v)` is
    `Bernoulli(logits=b + W^T v)`, of the hidden units; `conditional(hidden=h)` is
    `Bernoulli(logits=a + W h)`, of the visible ones. In a NumPyro model with explicit hidden units,
    `v = sample("v", rbm)` and then `h = sample("h", rbm.conditional(visible=v).to_event(1))`.

    :param weights: :math:`W`, shape `(num_visible, num_hidden)`.
    :param visible_bias: :math:`a`, shape `(num_visible,)`. An infinite one clamps its unit to 1 or
        0: the log density counts it as zero, and the other state has probability zero.
    :param hidden_bias: :math:`b`, shape `(num_hidden,)`, likewise.
    :param log_normalizer: :math:`\log Z`, shape `()`, from `numpyro_scores.log_normalizer`.
    :param sampler: draws for `sample`, so that NumPyro's `Predictive` and `Gibbs` work: what makes
        a kernel of a model, such as `functools.partial(numpyro_scores.BlockGibbs, num_steps=500)`.
        Each draw is where a chain of its own ends, after one draw of the kernel without warmup.
    :raises ValueError: if a parameter has another shape.
    """

    pytree_data_fields = ("visible_bias",)

    def __init__(
        self,
        weights: ArrayLike,
        visible_bias: ArrayLike,
        hidden_bias: ArrayLike,
        *,
        log_normalizer: Any = None,
        sampler: Callable | None = None,
        validate_args: bool | None = None,
    ):
        super().__init__(
            weights,
            hidden_bias,
            constraints.boolean,
            log_normalizer,
            sampler,
            validate_args=validate_args,
        )
        self.visible_bias = as_parameter("visible_bias", visible_bias, self.event_shape)

    def _joint_log_weight(self, visible: Array, hidden: Array) -> Array:
        return (
            unit_weight(self.visible_bias, visible)
            + unit_weight(self.hidden_bias, hidden)
            + visible @ self.weights @ hidden
        )

    def _log_weight(self, x: Array) -> Array:
        of_hidden = jnp.sum(summed_unit_weight(self.hidden_bias, x @ self.weights))
        return unit_weight(self.visible_bias, x) + of_hidden

    def _hidden_logits(self, visible: Array) -> Array:
        return plus(visible @ self.weights, self.hidden_bias)

    def site_log_probs(self, x: ArrayLike) -> Array:
        r"""
        :math:`\log p(v_i \mid v_{\setminus i})` of each unit.

        :param x: points, shape `(..., num_visible)`.
        :return: the shape of `x`.
        """
        x = self._checked("site_log_probs", x)
        fields = x @ self.weights
        of_hidden = summed_unit_weight(self.hidden_bias, fields)

        def of_unit(weights: Array, bias: Array, unit: Array) -> Array:
            flip = 1 - 2 * unit
            flipped = summed_unit_weight(self.hidden_bias, fields + flip[..., None] * weights)
            rise = flip * bias + jnp.sum(flipped - of_hidden, -1)
            return -softplus(rise)

        units = jnp.moveaxis(x, -1, 0)
        log_probs = lax.map(lambda args: of_unit(*args), (self.weights, self.visible_bias, units))
        return jnp.moveaxis(log_probs, 0, -1)

    def _given_hidden(self, hidden: Array) -> dist.Distribution:
        return BernoulliLogits(plus(hidden @ self.weights.T, self.visible_bias))

    def partition_sum(self) -> PartitionSum:
        num_visible, num_hidden = self.weights.shape
        # With the sides exchanged, Z is the same.
        smaller = (
            self
            if num_visible <= num_hidden
            else BernoulliRBM(self.weights.T, self.hidden_bias, self.visible_bias)
        )
        return PartitionSum(
            2, min(num_visible, num_hidden), lambda s: smaller._log_weight(s.astype(float))
        )


class GaussianBernoulliRBM(RestrictedBoltzmann):
    r"""
    A restricted Boltzmann machine with continuous visible and binary hidden units, of the energy

    .. math:: E(v, h) = \tfrac12 |(v - \mu) / \sigma|^2 - (v / \sigma^2)^T W h - b \cdot h,

    as a distribution of the visible ones: :math:`\log p(v) = -F(v) - \log Z`,
    :math:`F(v) = \tfrac12 |(v - \mu)/\sigma|^2 - \sum_j \operatorname{softplus}(b_j + (W^T (v /
    \sigma^2))_j)`, a mixture of :math:`2^{\text{num\_hidden}}` Gaussians (Cho, Ilin & Raiko 2011;
    Liao et al. 2022, "Gaussian-Bernoulli RBMs without tears"). It is differentiable in `v`, for
    `MALA` and `NUTS`. `joint()` is the distribution of both sides.

    `log_prob` is **unnormalised** unless `log_normalizer` is given. `conditional(visible=v)` is
    `Bernoulli(logits=b + W^T (v / sigma^2))`, of the hidden units; `conditional(hidden=h)` is
    `Normal(mu + W h, sigma)`, of the visible ones.

    :param weights: :math:`W`, shape `(num_visible, num_hidden)`, in units of the data.
    :param visible_mean: :math:`\mu`, shape `(num_visible,)` or `()`.
    :param visible_scale: :math:`\sigma`, positive, shape `(num_visible,)` or `()`.
    :param hidden_bias: :math:`b`, shape `(num_hidden,)`.
    :param log_normalizer: :math:`\log Z`, shape `()`, from `numpyro_scores.log_normalizer`.
    :param sampler: draws for `sample`, so that NumPyro's `Predictive` and `Gibbs` work: what makes
        a kernel of a model, such as `functools.partial(numpyro_scores.BlockGibbs, num_steps=500)`.
        Each draw is where a chain of its own ends, after one draw of the kernel without warmup.
    :raises ValueError: if a parameter has another shape, or a scale is not positive.
    """

    pytree_data_fields = ("visible_mean", "visible_scale")

    def __init__(
        self,
        weights: ArrayLike,
        visible_mean: ArrayLike,
        visible_scale: ArrayLike,
        hidden_bias: ArrayLike,
        *,
        log_normalizer: Any = None,
        sampler: Callable | None = None,
        validate_args: bool | None = None,
    ):
        super().__init__(
            weights,
            hidden_bias,
            constraints.real,
            log_normalizer,
            sampler,
            validate_args=validate_args,
        )
        self.visible_mean = as_parameter("visible_mean", visible_mean, self.event_shape, ())
        self.visible_scale = as_parameter("visible_scale", visible_scale, self.event_shape, ())
        if is_concrete(self.visible_scale):
            check_positive("the smallest visible_scale", jnp.min(self.visible_scale))

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return self._support

    def _gaussian_log_weight(self, x: Array) -> Array:
        return -0.5 * jnp.sum(((x - self.visible_mean) / self.visible_scale) ** 2)

    def _joint_log_weight(self, visible: Array, hidden: Array) -> Array:
        of_hidden = unit_weight(self.hidden_bias, hidden) + hidden @ self._hidden_fields(visible)
        return self._gaussian_log_weight(visible) + of_hidden

    def _log_weight(self, x: Array) -> Array:
        of_hidden = summed_unit_weight(self.hidden_bias, self._hidden_fields(x))
        return self._gaussian_log_weight(x) + jnp.sum(of_hidden)

    def _hidden_fields(self, visible: Array) -> Array:
        return (visible / self.visible_scale**2) @ self.weights

    def _hidden_logits(self, visible: Array) -> Array:
        return plus(self._hidden_fields(visible), self.hidden_bias)

    def _given_hidden(self, hidden: Array) -> dist.Distribution:
        return dist.Normal(self.visible_mean + hidden @ self.weights.T, self.visible_scale)

    def partition_sum(self) -> PartitionSum:
        num_visible, num_hidden = self.weights.shape
        mean, scale = (
            jnp.broadcast_to(p, (num_visible,)) for p in (self.visible_mean, self.visible_scale)
        )

        def log_weight(s: Array) -> Array:
            """The visible units of a Gaussian of mean `mean + shift` integrated out."""
            hidden = s.astype(float)
            shift = self.weights @ hidden
            exponent = shift * (2 * mean + shift) / (2 * scale**2)
            return unit_weight(self.hidden_bias, hidden) + jnp.sum(
                exponent + jnp.log(scale) + 0.5 * jnp.log(2 * jnp.pi)
            )

        return PartitionSum(2, num_hidden, log_weight)

    def free_parameters(
        self,
    ) -> tuple[dict[str, Array], Callable[[dict[str, Array]], "GaussianBernoulliRBM"]]:
        r"""
        What `fit` trains, without bounds: the parameters, with :math:`\log \sigma` in place of
        :math:`\sigma`; and the function from these to a machine.
        """
        params = {
            "weights": self.weights,
            "visible_mean": self.visible_mean,
            "log_visible_scale": jnp.log(self.visible_scale),
            "hidden_bias": self.hidden_bias,
        }
        if self.log_normalizer is not None:
            params["log_normalizer"] = jnp.asarray(self.log_normalizer, float)

        def machine(params: dict[str, Array]) -> GaussianBernoulliRBM:
            others = {k: v for k, v in params.items() if k != "log_visible_scale"}
            scale = jnp.exp(params["log_visible_scale"])
            return GaussianBernoulliRBM(
                visible_scale=scale,
                sampler=self.sampler,
                validate_args=self._validate_args,
                **others,
            )

        return params, machine
