# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Noise-contrastive estimation: telling data from noise."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from numpyro_scores._validation import check_count
from numpyro_scores.objectives._energy import energy_of
from numpyro_scores.objectives._points import (
    as_float_points,
    as_points,
    check_event_shape,
    check_in_support,
    check_instance,
    contained,
    is_discrete,
    with_normalizers,
)


@dataclass(frozen=True)
class NoiseContrastiveEstimation:
    r"""
    Noise-contrastive estimation (Gutmann & Hyvarinen 2010, "Noise-contrastive estimation: a new
    estimation principle for unnormalized statistical models"): logistic regression of data `x`
    against :math:`\nu` times as many points `y` of a known density :math:`p_n`,

    .. math::
        -\mathbb E_x \log h(x) - \nu\, \mathbb E_y \log(1 - h(y)), \quad
        h(x) = \frac{e^{-E(x)}}{e^{-E(x)} + \nu\, p_n(x)}.

    Its minimum is at :math:`E = -\log p`, the **normaliser included**, which is learned as a
    parameter like the others. So the module needs a constant that can move. A distribution has
    one in its `log_normalizer`,
    `EnergyDistribution(energy, event_shape, log_normalizer=jnp.zeros(()))`, and comes out of `fit`
    normalised; an energy with a bias of its own will do as well. Of an energy that has none, such
    as `nn.MLPEnergy`, which is zero at zero, the minimum is elsewhere.

    Outside of the support of a distribution, where noise may fall, :math:`E = \infty` and `h` is 0.
    The noise in turn must have a density wherever the data are: where it has none nothing is
    learned, so that points of the data outside of *its* support are refused, within a compiled
    program by an infinite loss.

    Choose noise that covers the data, a Gaussian of their mean and covariance say: the variance of
    the estimate grows as noise and data come apart, so that in many dimensions
    :class:`ConditionalNoiseContrastiveEstimation` is the better choice.

    :param noise: :math:`p_n`: any object with `sample(key, sample_shape)` and `log_prob(value)`,
        such as a NumPyro distribution over points of the data's shape.
    :param num_noise: :math:`\nu`, points of noise for each point of the data, fresh at every call.
    """

    noise: Any
    num_noise: int = 10

    def __post_init__(self):
        check_count("num_noise", self.num_noise)
        if not (hasattr(self.noise, "sample") and hasattr(self.noise, "log_prob")):
            raise TypeError(
                "noise must have sample(key, sample_shape) and log_prob(value), such as a NumPyro "
                f"distribution over points of the data's shape, got {self.noise!r}."
            )

    def __call__(self, module: Any, x: Array, *, key: Array) -> Array:
        """
        :param module: an energy, `x -> ()`, with a constant of its own, or a distribution with a
            `log_normalizer`.
        :param x: points, shape `(n, *event_shape)`.
        :param key: key of the noise.
        :return: the loss, shape `()`; :math:`(1 + \\nu) \\log(1 + \\nu) - \\nu \\log \\nu` if noise
            and data are the same.
        :raises ValueError: if `x` is no batch, the module is not of such points or has no
            normaliser to learn, or the noise is not of such points or does not cover them.
        """
        check_instance(module)
        # Noise takes the type of the data, and is not to be rounded.
        x = as_points(x) if is_discrete(module) else as_float_points(x)
        for part in with_normalizers(module):
            if part.log_normalizer is None:
                raise ValueError(
                    f"{type(part).__name__} has no normaliser that could be learned: give it "
                    "log_normalizer=jnp.zeros(()). A ScoreDistribution takes none, an "
                    "EnergyDistribution does."
                )
        self._check_kinds(module)
        check_event_shape(module, x[0])
        for distribution in (module, self.noise):
            check_in_support(distribution, x)
        energy = jax.vmap(energy_of(module, x[0]))
        y = self._points_of_noise(key, x)

        def logit(points):
            inside = contained(module, points)
            if inside is None:
                log_density = -energy(points)
            else:
                # An energy outside of its support may be anything: it is not to be looked at.
                where = inside.reshape(-1, *[1] * (points.ndim - 1))
                log_density = jnp.where(inside, -energy(jnp.where(where, points, x[0])), -jnp.inf)
            return log_density - self.noise.log_prob(points) - jnp.log(self.num_noise)

        loss_of_data = jax.nn.softplus(-logit(x))
        covered = contained(self.noise, x)
        if covered is not None:
            loss_of_data = jnp.where(covered, loss_of_data, jnp.inf)
        return jnp.mean(loss_of_data) + self.num_noise * jnp.mean(jax.nn.softplus(logit(y)))

    def _check_kinds(self, module):
        both = module, self.noise
        kinds = ["discrete" if is_discrete(d) else "continuous" for d in both]
        if all(hasattr(d, "support") for d in both) and kinds[0] != kinds[1]:
            raise ValueError(
                f"noise must have a density where {type(module).__name__} has one, which is "
                f"{kinds[0]}, but the noise {type(self.noise).__name__} is {kinds[1]}: one of "
                "them has probabilities, the other a density."
            )

    def _points_of_noise(self, key, x):
        num_points = self.num_noise * len(x)
        y = jnp.asarray(self.noise.sample(key, (num_points,)))
        log_prob = jax.eval_shape(self.noise.log_prob, y)
        if y.shape[1:] != x.shape[1:] or log_prob.shape != (num_points,):
            raise ValueError(
                f"noise must be over points of shape {x.shape[1:]}: {num_points} draws came with "
                f"the shape {y.shape} and log_prob of shape {log_prob.shape}, not "
                f"({num_points},). Of a NumPyro distribution this is its event_shape: "
                ".expand(event_shape).to_event()."
            )
        return y.astype(x.dtype)
