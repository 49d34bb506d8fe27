# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A distribution that is known by its energy."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.distributions import biject_to, constraints

from numpyro_scores._callables import Energy, as_pytree, check_energy, is_density
from numpyro_scores.distributions._base import PointwiseDistribution, check_log_normalizer
from numpyro_scores.distributions._short_runs import (
    as_sampler,
    checked_kernel,
    one_draw,
    short_runs,
)


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
        function or any callable pytree, such as a Flax module; or a distribution, whose energy is
        :math:`-\log p`, and whose support is taken.
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
        if is_density(energy):
            density: Any = energy
            if support is constraints.real:
                support = density.support
            energy = partial(_negative_log_prob, density)
        self.energy = as_pytree("energy", energy)
        self.log_normalizer = log_normalizer
        check_log_normalizer(log_normalizer)
        super().__init__(event_shape, support, validate_args=validate_args)
        point = jax.ShapeDtypeStruct(self.event_shape, jnp.result_type(float))
        check_energy("energy", self.energy, point)
        self.sampler = None if sampler is None else as_sampler(sampler, "MALA")
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
        return short_runs(self, key, sample_shape)

    def _kernel(self) -> Any:
        """A new kernel in the unconstrained space of the support: `init` writes on kernels."""
        assert self.sampler is not None
        to_support = biject_to(self.support)

        def potential_energy(z):
            x = to_support(z)
            return self.energy(x) - to_support.log_abs_det_jacobian(z, x)

        return checked_kernel(self.sampler(potential_fn=potential_energy))

    def _short_run(self, key: Array) -> Array:
        to_support = biject_to(self.support)
        key_start, key_kernel = random.split(key)
        start = random.normal(key_start, to_support.inverse_shape(self.event_shape))
        z = one_draw(self._kernel(), key_kernel, start)
        return jnp.where(jnp.any(z != start), to_support(z), jnp.nan)


def _negative_log_prob(distribution: Any, x: Array) -> Array:
    return -distribution.log_prob(x)
