# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What an integrator is: a pure one-step map, and what it hands from one step to the next."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array

Gradient: TypeAlias = Callable[[Array], Array]


class IntegratorState(NamedTuple):
    """
    - **x** - position, shape `(d,)`.
    - **grad** - gradient of the potential energy at `x`, shape `(d,)`. An integrator that has no
      use for it there keeps the last one that it evaluated, so that a step that left the finite
      numbers is seen; it must not use it, since a kernel may put the gradient at `x` in its place.
    - **memory** - what the integrator carries besides, a pytree of arrays, or None.
    """

    x: Array
    grad: Array
    memory: Any


class AbstractIntegrator(ABC):
    """What all integrators share. A subclass is a frozen dataclass: kernels compare and hash it."""

    num_noises: ClassVar[int] = 1
    """Standard normal numbers that a step takes for each entry of `x`."""

    @property
    def num_grad_evals(self) -> int:
        """Gradients that a step evaluates."""
        return 1

    def init(self, x: Array, noise: Array, gradient: Gradient) -> IntegratorState:
        """The state at `x`; `noise` is standard normal, of the shape of `x`."""
        return IntegratorState(x, gradient(x), None)

    @abstractmethod
    def safe_step(self, curvature: Array) -> Array:
        """
        A step size for a potential energy whose largest curvature is this: on a Gaussian the
        stationary variance is then off by at most 11%, in every direction.
        """


class OverdampedIntegrator(AbstractIntegrator):
    r"""
    One step of :math:`dx = -\nabla U dt + \sqrt 2\, dW` over the time `step_size`, the `h` of
    :math:`x - h \nabla U + \sqrt{2h}\, \xi`.
    """

    def safe_step(self, curvature: Array) -> Array:
        return 0.2 / curvature

    @abstractmethod
    def step(
        self, state: IntegratorState, noise: Array, gradient: Gradient, step_size: Array | float
    ) -> IntegratorState:
        """
        :param noise: standard normal, shape `(num_noises, *x.shape)`.
        :param gradient: :math:`\\nabla U` of one position.
        :param step_size: the step `h`, a number or one for each entry of `x`.
        """


class UnderdampedIntegrator(AbstractIntegrator):
    r"""
    One step of :math:`dx = p\, dt`, :math:`dp = -\nabla U dt - \gamma p\, dt + \sqrt{2\gamma}\, dW`
    over the time `step_size`; the momentum `p` is the state's memory.
    """

    def init(self, x: Array, noise: Array, gradient: Gradient) -> IntegratorState:
        """The state at `x`; `noise`, standard normal of the shape of `x`, is the momentum."""
        return IntegratorState(x, gradient(x), noise)

    def safe_step(self, curvature: Array) -> Array:
        return jnp.sqrt(0.4 / curvature)

    @abstractmethod
    def step(
        self,
        state: IntegratorState,
        noise: Array,
        gradient: Gradient,
        step_size: Array | float,
        friction: Array | float,
    ) -> IntegratorState:
        """
        :param noise: standard normal, shape `(num_noises, *x.shape)`.
        :param gradient: :math:`\\nabla U` of one position.
        :param step_size: the time step :math:`\\delta`, a number or one for each entry of `x`.
        :param friction: :math:`\\gamma`, per unit of time, likewise.
        """


Integrator: TypeAlias = OverdampedIntegrator | UnderdampedIntegrator
