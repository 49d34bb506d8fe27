# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Objectives of two: a generator against a discriminator, and against an energy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._callables import Energy
from numpyro_scores._coordinates import coordinates_of
from numpyro_scores._validation import as_event_shape
from numpyro_scores.objectives._energy import check_continuous, check_unnormalised, energy_of
from numpyro_scores.objectives._points import as_float_points, check_event_shape, is_distribution


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class AdversarialPair:
    """
    A generator and its critic as one module, so that `fit` trains both. Any callable or Flax module
    with these two attributes will do as well. If it is a Flax module, the optimizer can tell them
    apart, by the name that the path of a parameter begins with, and give each a rate of its own::

        optimizer = optax.partition(
            {"generator": optax.adam(3e-3, b1=0.5), "critic": optax.adam(3e-4, b1=0.5)},
            lambda params: jax.tree.map_with_path(lambda path, _: path[0].key, params),
        )

    :param generator: `generator(z) -> x`, on one unbatched latent point.
    :param critic: `critic(x) -> ()`: the logit of a discriminator, large for data, for
        `GenerativeAdversarial`; an energy, small for data, for `AdversarialLikelihood`.
    """

    generator: Callable[[Array], Array]
    critic: Callable[[Array], Array]

    def __call__(self, z: Array) -> Array:
        """The generated point, `generator(z)`."""
        return self.generator(z)


@dataclass(frozen=True)
class GenerativeAdversarial:
    r"""
    A generative adversarial network (Goodfellow et al. 2014). With `D` the sigmoid of the critic
    and `G` the generator, at standard normal `z`, the critic descends :math:`-V`,

    .. math:: V = \mathbb E_x \log D(x) + \mathbb E_z \log(1 - D(G(z))),

    and at the same step the generator the non-saturating :math:`-\mathbb E_z \log D(G(z))`, which
    has the same fixed points and a slope where the critic is sure. Each sees the other as fixed, so
    that one optimizer may minimise for both: gradients have their signs here.

    For generated points of density `q` the best critic is :math:`\log p / q`, and there
    :math:`V = 2\, JSD(p, q) - \log 4`. The loss is :math:`-V` plus the penalty: about
    :math:`\log 4 = 1.386` where this critic cannot tell data from generated points, and no measure
    of progress.

    Simultaneous descent circles about the solution. The penalty on the critic's slope at the data,
    :math:`\tfrac\gamma2 \mathbb E_x |\nabla \text{critic}(x)|^2`, makes it converge (Mescheder,
    Geiger & Nowozin 2018, "Which training methods for GANs do actually converge?"), as do an Adam
    with `b1=0` or 0.5 and the average of the parameters that `fit` returns.

    :param latent_shape: shape of `z`; an integer `k` means `(k,)`.
    :param gradient_penalty: :math:`\gamma`, in the squared units of the data.
    """

    latent_shape: Sequence[int] | int
    gradient_penalty: float = 1.0

    def __post_init__(self):
        object.__setattr__(self, "latent_shape", as_event_shape(self.latent_shape))
        if not 0 <= self.gradient_penalty < math.inf:
            raise ValueError(
                f"gradient_penalty must be finite and >= 0, got {self.gradient_penalty!r}."
            )

    def __call__(self, module: Any, x: Array, *, key: Array) -> Array:
        """
        :param module: an :class:`AdversarialPair`; its critic is a logit.
        :param x: points, shape `(n, *event_shape)`; as many are generated.
        :param key: key of the latent points.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch, or the pair is not of such points.
        """
        x, z = _prepared(module, x, self.latent_shape, key)
        if is_distribution(module.critic):
            raise ValueError(
                f"The critic of a GenerativeAdversarial pair is a logit, x -> (), large for data, "
                f"but it is the distribution {type(module.critic).__name__}: "
                "AdversarialLikelihood is the objective for that."
            )
        critic = energy_of(module.critic, x[0])
        generated = jax.vmap(module.generator)(z)
        loss_of_critic = jnp.mean(jax.nn.softplus(-jax.vmap(critic)(x))) + jnp.mean(
            jax.nn.softplus(jax.vmap(critic)(lax.stop_gradient(generated)))
        )
        if self.gradient_penalty:
            slopes = jax.vmap(jax.grad(critic))(x)
            loss_of_critic += self.gradient_penalty / 2 * jnp.sum(slopes**2) / len(x)
        return loss_of_critic + _descent(lambda x: jax.nn.softplus(-critic(x)), generated)


@dataclass(frozen=True)
class AdversarialLikelihood:
    r"""
    Maximum likelihood of an energy, with a generator in place of its sampler (Kim & Bengio 2016,
    "Deep directed generative models with energy-based probability estimation"; the entropy is exact
    here). With the entropy `H` of the generated points :math:`G(z)`, `z` standard normal, the value

    .. math::
        \mathbb E_x E(x) - \mathbb E_z E(G(z)) + H(G)
        \le \mathbb E_x E(x) + \log \int e^{-E}, \quad
        H(G) = \mathbb E_z \log \left| \det \nabla G(z) \right| + \tfrac d2 \log 2 \pi e,

    is minimised in the energy and maximised in the generator, at the same step. The bound is the
    negative log likelihood in nats, with equality where the generator draws from the energy; there
    the gradient of the energy is that of the likelihood, as of contrastive divergence with perfect
    chains. At the solution both are the density of the data.

    Give the energy a tenth of the generator's rate (see :class:`AdversarialPair`), and let both
    fall to zero: at one rate for both it runs away from a generator that cannot follow, and at
    constant rates it may do so late. On the mixture of `benchmarks.objectives` the loss then
    settles within 0.1 of the entropy of the data, where it diverges otherwise.

    The latent points have the shape of the data and the Jacobian is exact, which costs `d`
    Jacobian-vector products and :math:`O(d^3)`: for tens to hundreds of dimensions. The formula is
    the entropy where `G` is one-to-one, and too large by what it folds together otherwise;
    :class:`VariationalEnergy` has a flow in its place, which cannot fold. A distribution with a
    bounded support, which the generator would leave, is refused.
    """

    def __call__(self, module: Any, x: Array, *, key: Array) -> Array:
        """
        :param module: an :class:`AdversarialPair`; its critic is an energy, and its generator maps
            points of the shape of the data to such points.
        :param x: points, shape `(n, *event_shape)`; as many are generated.
        :param key: key of the latent points.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch, or the pair is not of such points.
        """
        x, z = _prepared(module, x, jnp.shape(x)[1:], key)
        energy = _energy_without_bounds(module.critic, x)
        generated = jax.vmap(module.generator)(z)

        def log_volume(z):
            jacobian = jax.jacfwd(module.generator)(z).reshape(z.size, z.size)
            return jnp.linalg.slogdet(jacobian)[1]

        entropy = jnp.mean(jax.vmap(log_volume)(z)) + z[0].size / 2 * math.log(2 * math.pi * math.e)
        contrast = jnp.mean(jax.vmap(energy)(x)) - jnp.mean(
            jax.vmap(energy)(lax.stop_gradient(generated))
        )
        # Up the entropy and down the energy: the value has the other sign.
        return contrast + 2 * lax.stop_gradient(entropy) - entropy + _descent(energy, generated)


def _energy_without_bounds(critic: Any, x: Array) -> Energy:
    """
    :raises ValueError: of a distribution whose support the generator would have to keep to.
    """
    if is_distribution(critic):
        check_continuous(critic)
        check_unnormalised(critic)
        check_event_shape(critic, x[0])
        if coordinates_of(critic) is not None:
            raise ValueError(
                f"The generator makes points of all real numbers, but {type(critic).__name__} has "
                f"the support {critic.support}: train in its unconstrained coordinates, "
                "biject_to(support).inv(x), or on another objective."
            )
    return energy_of(critic, x[0])


def _prepared(module: Any, x: Array, latent_shape: Any, key: Array) -> tuple[Array, Array]:
    """The points, and as many latent points."""
    x = as_float_points(x)
    for name in ("generator", "critic"):
        if not callable(getattr(module, name, None)):
            raise ValueError(
                f"{type(module).__name__} has no {name}: give an "
                "AdversarialPair(generator, critic), or a module with these two attributes."
            )
    z = random.normal(key, (len(x), *latent_shape), x.dtype)
    shape = jax.eval_shape(module.generator, z[0]).shape
    if shape != x.shape[1:]:
        raise ValueError(
            f"The generator must map one latent point of shape {z.shape[1:]} to a point of shape "
            f"{x.shape[1:]}, but the output has shape {shape}."
        )
    return x, z


def _descent(f: Energy, generated: Array) -> Array:
    """
    Zero, with the gradient of the mean of `f(generated)` in what the points depend on; parameters
    of `f`, wherever they are held, get none.
    """
    slopes = jax.vmap(jax.grad(f))(generated)
    mean = jnp.sum(lax.stop_gradient(slopes) * generated) / len(generated)
    return mean - lax.stop_gradient(mean)
