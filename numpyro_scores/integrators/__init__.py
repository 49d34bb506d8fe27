# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

r"""One-step maps of Langevin dynamics: the formulas that the kernels share.

The target is :math:`\exp(-U)`, `gradient` is :math:`\nabla U`, and :math:`\xi` is standard normal.
The `step_size` of an overdamped integrator is the `h` of :math:`x \leftarrow x - h \nabla U +
\sqrt{2h}\, \xi` (half of the :math:`\epsilon` of the papers on noise-conditional score networks).
That of an underdamped one is the time step :math:`\delta` of :math:`dx = p\, dt`,
:math:`dp = -\nabla U dt - \gamma p\, dt + \sqrt{2\gamma}\, dW`, with the friction
:math:`\gamma` per unit of time; :math:`h = \delta^2 / 2` compares the two.
"""

from numpyro_scores.integrators._base import (
    Gradient,
    Integrator,
    IntegratorState,
    OverdampedIntegrator,
    UnderdampedIntegrator,
)
from numpyro_scores.integrators.gaussian import stationary_variance
from numpyro_scores.integrators.isokinetic import (
    LEAPFROG,
    MINIMAL_NORM,
    Splitting,
    partly_refreshed,
    random_direction,
    turned,
)
from numpyro_scores.integrators.overdamped import (
    EulerMaruyama,
    LeimkuhlerMatthews,
    euler_maruyama,
    log_proposal_ratio,
)
from numpyro_scores.integrators.skrock import SKROCK
from numpyro_scores.integrators.underdamped import BAOAB, OBABO, UBU, free_flow, friction_flow

__all__ = [
    "BAOAB",
    "LEAPFROG",
    "MINIMAL_NORM",
    "OBABO",
    "SKROCK",
    "UBU",
    "EulerMaruyama",
    "Gradient",
    "Integrator",
    "IntegratorState",
    "LeimkuhlerMatthews",
    "OverdampedIntegrator",
    "Splitting",
    "UnderdampedIntegrator",
    "euler_maruyama",
    "free_flow",
    "friction_flow",
    "log_proposal_ratio",
    "partly_refreshed",
    "random_direction",
    "stationary_variance",
    "turned",
]
