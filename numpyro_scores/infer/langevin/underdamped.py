# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Unadjusted underdamped Langevin dynamics."""

from collections.abc import Callable
from typing import Any

from numpyro_scores._validation import check_positive
from numpyro_scores.infer.langevin.base import PotentialFn
from numpyro_scores.infer.langevin.stiffness import FRICTION
from numpyro_scores.infer.langevin.unadjusted import UnadjustedKernel
from numpyro_scores.infer.settings import takes_settings_of
from numpyro_scores.integrators import BAOAB, UnderdampedIntegrator


class UnderdampedLangevin(UnadjustedKernel):
    r"""
    Unadjusted Langevin dynamics with a momentum,

    .. math:: dz = M^{-1} p\, dt, \qquad
              dp = -\nabla U dt - \gamma p\, dt + \sqrt{2 \gamma M}\, dW,

    in the unconstrained space of a model. What the data say little about is forgotten in some
    :math:`\sqrt\kappa` steps, for a condition number :math:`\kappa`, where overdamped dynamics
    takes :math:`\kappa`. There is no Metropolis test: the draws are biased by the step size (see
    the integrators), and a score is all it needs.

    :param model: a NumPyro model with continuous latent sites.
    :param potential_fn: a potential energy, in place of a model.
    :param step_size: the time step :math:`\delta`, in the metric. By default a safe one,
        :math:`\sqrt{0.4}` over the root of the largest curvature: at the start, and if there is a
        warmup the largest on the way since the metric changed last. The state's `variance_error`
        tells the bias that this implies for a Gaussian.
    :param num_steps: number of steps between two draws.
    :param integrator: the one-step map.
    :param friction: :math:`\gamma`, per unit of time; by default 0.2 over the time step. Best is
        twice the root of the smallest curvature.
    :param settings: `inverse_mass_matrix`, `adapt_mass_matrix`, `dense_mass` and `init_strategy`,
        as of :class:`~numpyro_scores.OverdampedLangevin`.
    :raises ValueError: if the integrator is an overdamped one, if the friction is not positive, or
        for a metric that is none.

    Steps that leave the finite numbers are not made: the chain stays at its last draw, and
    `diverging` says so.
    """

    @takes_settings_of(UnadjustedKernel)
    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        integrator: UnderdampedIntegrator = BAOAB(),
        friction: float | None = None,
        **settings: Any,
    ):
        if not isinstance(integrator, UnderdampedIntegrator):
            raise ValueError(
                "integrator must be one with a momentum, such as BAOAB() or OBABO(), got "
                f"{integrator!r}. For one without use OverdampedLangevin."
            )
        if friction is not None:
            check_positive("friction", friction)
        self._friction = friction
        super().__init__(model, potential_fn, integrator=integrator, **settings)

    def _dynamics(self, step_size):
        return {"friction": FRICTION / step_size if self._friction is None else self._friction}
