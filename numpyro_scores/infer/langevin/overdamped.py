# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Unadjusted overdamped Langevin dynamics."""

from collections.abc import Callable
from typing import Any

from numpyro_scores import integrators
from numpyro_scores.infer.langevin.base import PotentialFn
from numpyro_scores.infer.langevin.unadjusted import UnadjustedKernel
from numpyro_scores.infer.settings import takes_settings_of
from numpyro_scores.integrators import EulerMaruyama, OverdampedIntegrator


class OverdampedLangevin(UnadjustedKernel):
    r"""
    Unadjusted Langevin dynamics, :math:`dz = -M^{-1} \nabla U dt + \sqrt{2 M^{-1}}\, dW` in the
    unconstrained space of a model; with Euler-Maruyama steps and no metric,
    :math:`z \leftarrow z - h \nabla U(z) + \sqrt{2h}\, \xi`. There is no Metropolis test: the draws
    are biased by the step size (see the integrators) and the potential energy itself is never
    evaluated, only its gradient, so that a score is all it needs.

    :param model: a NumPyro model with continuous latent sites.
    :param potential_fn: a potential energy, in place of a model.
    :param step_size: the step size `h`, in the metric. By default a safe one, 0.2 over the largest
        curvature: at the start, and if there is a warmup the largest on the way since the metric
        changed last. The state's `variance_error` tells the bias that this implies for a Gaussian.
    :param num_steps: number of steps between two draws.
    :param integrator: the one-step map.
    :param inverse_mass_matrix: :math:`M^{-1}`, ideally the covariance of the unconstrained values,
        sites in alphabetical order: shape `(d,)`, or `(d, d)` with `dense_mass`.
    :param adapt_mass_matrix: whether warmup learns the metric, in NumPyro's windows.
    :param dense_mass: a full metric, or one by blocks of sites: see :class:`~numpyro_scores.MALA`.
    :param init_strategy: NumPyro's, where a model starts.
    :raises ValueError: if the integrator is an underdamped one, or for a metric that is none.

    Steps that leave the finite numbers are not made: the chain stays at its last draw, and
    `diverging` says so.
    """

    @takes_settings_of(UnadjustedKernel)
    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        integrator: OverdampedIntegrator = EulerMaruyama(),
        **settings: Any,
    ):
        if not isinstance(integrator, OverdampedIntegrator):
            raise ValueError(
                "integrator must be an overdamped one, such as EulerMaruyama() or "
                f"LeimkuhlerMatthews(), got {integrator!r}. For one with a momentum use "
                "UnderdampedLangevin."
            )
        super().__init__(model, potential_fn, integrator=integrator, **settings)

    def _dynamics(self, step_size):
        return {}


@takes_settings_of(OverdampedLangevin, but=["integrator"])
def ULA(
    model: Callable | None = None, potential_fn: PotentialFn | None = None, **settings: Any
) -> OverdampedLangevin:
    """
    The unadjusted Langevin algorithm: :class:`OverdampedLangevin` with
    :class:`~numpyro_scores.integrators.EulerMaruyama`. On a Gaussian of precision `l` its
    stationary variance is `1 / l / (1 - h l / 2)` (Roberts & Tweedie 1996).
    """
    return OverdampedLangevin(model, potential_fn, integrator=EulerMaruyama(), **settings)


@takes_settings_of(OverdampedLangevin, but=["integrator"])
def SKROCK(
    model: Callable | None = None,
    potential_fn: PotentialFn | None = None,
    *,
    num_stages: int = 5,
    eta: float = 0.05,
    **settings: Any,
) -> OverdampedLangevin:
    """
    Stabilised Langevin dynamics: :class:`OverdampedLangevin` with
    :class:`~numpyro_scores.integrators.SKROCK`, `num_stages` gradients a step.

    By default the step is 0.37 for each stage, but at most 2, over the largest curvature, where no
    direction of a Gaussian comes out more than 11% too narrow: twice as far a gradient as
    :func:`ULA`. A longer step, up to the integrator's `stable_step` over the largest curvature,
    goes on forgetting the soft directions faster; the stiff ones are then far too narrow.
    """
    integrator = integrators.SKROCK(num_stages, eta)
    return OverdampedLangevin(model, potential_fn, integrator=integrator, **settings)
