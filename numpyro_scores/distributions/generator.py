# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A prior that is known by a generator of its draws."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.typing import ArrayLike

from numpyro_scores._callables import as_pytree, mapped_over, name_of
from numpyro_scores._pytrees_by_fields import pytree_of
from numpyro_scores._validation import as_event_shape, as_sample_shape, check_key


@pytree_of("generator")
class GeneratorPrior:
    r"""
    The prior of :math:`x = G(z)`, `z` standard normal, for a generator `G`: that of an adversarial
    pair, the decoder of an autoencoder, or any other function. It has no density in `x`, so it is
    not a distribution: called in a model, it makes a site of `z` and one of `x`::

        def model(y=None):
            x = GeneratorPrior(generator, latent_shape=8)("x")  # sites x_latent and x
            numpyro.sample("y", dist.Normal(x, 0.1).to_event(1), obs=y)

    `x_latent` is what every kernel samples, NUTS among them; `x` is deterministic, and among the
    samples of `MCMC` and `Predictive`. In a `plate` there is one point for each index.

    A posterior lies where the generator goes: it has no more dimensions than `z`, and what `G`
    cannot make has no probability. Where `G` folds several regions of `z` onto one, the posterior
    of `z` has several modes.

    :param generator: `generator(z) -> x` for one unbatched latent point: a plain function or any
        callable pytree, such as a Flax module.
    :param latent_shape: shape of `z`; an integer `k` means `(k,)`.
    :raises ValueError: if the generator refuses a point of this shape.
    :raises TypeError: if it does not return one array.
    """

    def __init__(self, generator: Callable[[Array], Array], latent_shape: Sequence[int] | int):
        self.generator = as_pytree("generator", generator)
        self.latent_shape = as_event_shape(latent_shape)
        point = jax.ShapeDtypeStruct(self.latent_shape, jnp.result_type(float))
        try:
            made = jax.eval_shape(self.generator, point)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"generator can't take one latent point of shape {self.latent_shape}: {error}"
            ) from error
        if not hasattr(made, "shape"):
            raise TypeError(f"generator must return one array, got {type(made).__name__}.")
        self.event_shape = made.shape

    def __repr__(self) -> str:
        shapes = f"latent_shape={self.latent_shape}, event_shape={self.event_shape}"
        return f"GeneratorPrior({name_of(self.generator)}, {shapes})"

    @property
    def latent(self) -> dist.Distribution:
        """The distribution of `z`."""
        return dist.Normal().expand(self.latent_shape).to_event(len(self.latent_shape))

    def __call__(self, name: str) -> ArrayLike:
        """
        A point in a model.

        :param name: of the site of `x`; that of `z` is `{name}_latent`.
        :return: :math:`x`, shape `(*batch_shape, *event_shape)`, with the axes of plates first.
        """
        z = numpyro.sample(f"{name}_latent", self.latent)
        return numpyro.deterministic(name, self.generate(z))

    def generate(self, z: ArrayLike) -> Array:
        """:math:`G(z)` of latent points, shape `(*batch_shape, *latent_shape)`."""
        f: Any = self.generator
        num_axes = jnp.ndim(z) - len(self.latent_shape)
        if num_axes < 0 or jnp.shape(z)[num_axes:] != self.latent_shape:
            raise ValueError(
                "Latent points must have the shape (*batch_shape, "
                f"{', '.join(map(str, self.latent_shape))}), got shape {jnp.shape(z)}."
            )
        return mapped_over(f, num_axes)(z)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of the prior, independent and exact, shape `(*sample_shape, *event_shape)`."""
        key = check_key("GeneratorPrior.sample", key)
        return self.generate(self.latent.sample(key, as_sample_shape(sample_shape)))

    def log_joint(self, z: Array, x: Array, noise: ArrayLike) -> Array:
        r"""
        :math:`\log N(z; 0, I) + \log N(x; G(z), \sigma^2 I)`, of a generator that is the decoder of
        an autoencoder with observation noise: what `numpyro_scores.diagnostics.evidence_bounds`,
        `annealed_log_likelihood` and `importance_log_likelihood` take, as
        `lambda z, x: prior.log_joint(z, x, noise)`.

        :param z: one latent point, shape `latent_shape`.
        :param x: one observed point, shape `event_shape`.
        :param noise: :math:`\sigma`, shape `()` or `event_shape`.
        :return: shape `()`.
        """
        for name, value, shape in (("z", z, self.latent_shape), ("x", x, self.event_shape)):
            if jnp.shape(value) != shape:
                raise ValueError(
                    f"{name} must be one point of shape {shape}, got shape {jnp.shape(value)}. For "
                    "a batch of points use jax.vmap."
                )
        if jnp.shape(noise) not in ((), self.event_shape):
            raise ValueError(
                f"noise must be one number or have the shape {self.event_shape} of a point, got "
                f"shape {jnp.shape(noise)}."
            )
        of_x = dist.Normal(self.generate(z), noise).log_prob(x)
        return jnp.asarray(self.latent.log_prob(z)) + jnp.sum(of_x)
