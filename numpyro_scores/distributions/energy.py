# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A distribution that is known by its energy."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.distributions import biject_to, constraints

from numpyro_scores._callables import Energy, as_pytree
from numpyro_scores.distributions._base import PointwiseDistribution, check_log_normalizer


class EnergyDistribution(PointwiseDistribution):
    r"""
    :math:`p(x) = \exp(-E(x)) / Z` for an energy :math:`E`: an energy-based model.

    `log_prob` is **unnormalised**, :math:`-E(x)`, unless `log_normalizer` is given; MCMC in `x`
    does not need it. If parameters of the energy are themselves inferred, :math:`Z` depends on
    them, and leaving it out gives a wrong posterior: then pass `log_normalizer`.

    With a `sampler`, such as `functools.partial(MALA, step_size=0.1, num_steps=500)`, it can be
    drawn from by short-run MCMC (Nijkamp, Hill, Zhu & Wu 2019, "Learning non-convergent
    non-persistent short-run MCMC toward energy-based model"). Each draw is a chain of its own in
    the unconstrained space of the support, on :math:`E(x(z)) - \log |\det \partial x / \partial
    z|`: from a standard normal, one `kernel.sample` with all its inner steps, no warmup (so give
    the step size). The draws are independent but **biased** toward the start, and keep the mode
    that they fell into; MALA with enough steps lessens the first, and has no bias by its step size.

    :param energy: `energy(x) -> ()` for one unbatched point `x` of shape `event_shape`: a plain
        function or any callable pytree, such as a Flax module.
    :param event_shape: shape of one point.
    :param support: a NumPyro constraint of one point, or of one entry of it.
    :param log_normalizer: :math:`\log Z`, shape `()`, if known or estimated.
    :param sampler: makes a NumPyro kernel of a potential energy, `sampler(potential_fn=...)`: a
        class of kernels or a `functools.partial` of one, with hashable arguments.
    :raises ValueError: if the energy does not map `event_shape` to a scalar.
    :raises TypeError: if `sampler` is no such callable.
    """

    pytree_data_fields = ("energy", "log_normalizer")
    pytree_aux_fields = ("sampler",)

    def __init__(
        self,
        energy: Energy,
        event_shape: Sequence[int] | int,
        *,
        support: constraints.Constraint = constraints.real,
        log_normalizer: Any = None,
        sampler: Callable[..., Any] | None = None,
        validate_args: bool | None = None,
    ):
        self.energy = as_pytree("energy", energy)
        self.log_normalizer = log_normalizer
        check_log_normalizer(log_normalizer)
        super().__init__(event_shape, support, validate_args=validate_args)
        point = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        shape = jax.eval_shape(self.energy, point).shape
        if shape != ():
            raise ValueError(
                f"An energy maps one point to a scalar: energy(x) for x of shape "
                f"{self.event_shape} must have shape (), got {shape}."
            )

        self.sampler = None if sampler is None else _as_sampler(sampler)
        if sampler is not None:
            self._kernel()

    def _log_density(self, x: Array) -> Array:
        log_density = -self.energy(x)
        return log_density if self.log_normalizer is None else log_density - self.log_normalizer

    def sample(self, key: Array | None, sample_shape: tuple[int, ...] = ()) -> Array:
        """
        Draws by the `sampler`. One whose chain has not moved at all, because its steps left the
        finite numbers or were all rejected, was not made: it is NaN.

        :raises NotImplementedError: without a `sampler`.
        """
        if self.sampler is None:
            raise NotImplementedError(
                "EnergyDistribution cannot be sampled directly: its normaliser is unknown. Draw "
                "with MCMC(numpyro_scores.MALA(model), ...) or MCMC(numpyro.infer.NUTS(model), "
                "...), or give it a short-run sampler, EnergyDistribution(..., "
                "sampler=functools.partial(numpyro_scores.MALA, step_size=0.1, num_steps=500))."
            )
        if key is None:
            raise ValueError("EnergyDistribution.sample needs a random key, got None.")
        draws = _short_runs(self, key, math.prod(sample_shape))
        return draws.reshape(*sample_shape, *self.event_shape)

    def _kernel(self) -> Any:
        """A new kernel in the unconstrained space of the support: `init` writes on kernels."""
        assert self.sampler is not None
        to_support = biject_to(self.support)

        def potential_energy(z):
            x = to_support(z)
            return self.energy(x) - to_support.log_abs_det_jacobian(z, x)

        kernel = self.sampler(potential_fn=potential_energy)
        if not all(hasattr(kernel, name) for name in ("init", "sample", "sample_field")):
            raise TypeError(
                "sampler(potential_fn=...) must return a kernel, with init, sample and "
                f"sample_field of numpyro.infer.mcmc.MCMCKernel, got {type(kernel).__name__}."
            )
        return kernel

    def _draw(self, key: Array) -> Array:
        to_support = biject_to(self.support)
        key_start, key_kernel = random.split(key)
        start = random.normal(key_start, to_support.inverse_shape(self.event_shape))
        kernel = self._kernel()
        state = kernel.sample(kernel.init(key_kernel, 0, start, (), {}), (), {})
        z = getattr(state, kernel.sample_field)
        return jnp.where(jnp.any(z != start), to_support(z), jnp.nan)


# Compiled once for equal distributions: outside of a program, too, a draw is many steps.
@partial(jax.jit, static_argnames="num_draws")
def _short_runs(d: EnergyDistribution, key: Array, num_draws: int) -> Array:
    return jax.vmap(d._draw)(random.split(key, num_draws))


class _EqualByValue(partial):
    """A `functools.partial` that equals others of the same function and arguments, for jit."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _EqualByValue) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def _parts(self) -> tuple:
        return self.func, self.args, frozenset(self.keywords.items())


def _as_sampler(sampler: Any) -> _EqualByValue:
    if not callable(sampler):
        raise TypeError(
            "sampler must make a kernel of a potential energy, such as numpyro_scores.MALA or "
            f"functools.partial(numpyro_scores.MALA, num_steps=500), got {sampler!r}."
        )
    sampler = _EqualByValue(sampler)
    try:
        hash(sampler)
    except TypeError as error:
        raise TypeError(
            f"The arguments of sampler must be hashable, numbers in place of arrays: {error}."
        ) from error
    return sampler
