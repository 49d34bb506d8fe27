# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The Metropolis-adjusted Langevin algorithm."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from numpyro.infer.hmc_util import HMCAdaptState, warmup_adapter
from numpyro.infer.initialization import init_to_uniform

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.curvature import curvature_at
from numpyro_scores.infer._base import LangevinKernel, PotentialFn
from numpyro_scores.infer._trees import select
from numpyro_scores.integrators import euler_maruyama, log_proposal_ratio


class MALAState(NamedTuple):
    """
    - **i** - number of draws so far, warmup included.
    - **z** - unconstrained values, a pytree.
    - **z_grad** - gradient of the potential energy at `z`, flat, shape `(d,)`.
    - **potential_energy** - at `z`, shape `()`.
    - **accept_prob** - mean acceptance probability of the steps of this draw.
    - **mean_accept_prob** - its mean over the draws of this phase.
    - **diverging** - whether a proposal of this draw was not finite, and so rejected.
    - **num_grad_evals** - number of gradients of this draw.
    - **adapt_state** - NumPyro's: `step_size`, `inverse_mass_matrix`, ...
    - **rng_key** - key of the next draw.
    """

    i: Array
    z: Any
    z_grad: Array
    potential_energy: Array
    accept_prob: Array
    mean_accept_prob: Array
    diverging: Array
    num_grad_evals: Array
    adapt_state: HMCAdaptState
    rng_key: Array


class MALA(LangevinKernel):
    r"""
    The Metropolis-adjusted Langevin algorithm (Besag 1994; Roberts & Tweedie 1996) in the
    unconstrained space of a model: propose

    .. math:: y = z - h M^{-1} \nabla U(z) + \sqrt{2h}\, M^{-1/2} \xi,

    accept with probability :math:`\min(1, e^{U(z) - U(y)} q(z | y) / q(y | z))`. Exact for the
    target. Step size and metric are adapted during warmup by NumPyro's own scheme (dual averaging,
    and the covariance in windows of doubling length).

    :param model: a NumPyro model with continuous latent sites.
    :param potential_fn: a potential energy, in place of a model.
    :param step_size: the step size `h`, in the metric; where adaptation starts, by default from
        the largest curvature at the start.
    :param num_steps: number of proposals between two draws.
    :param adapt_step_size: whether warmup adapts the step size.
    :param adapt_mass_matrix: whether warmup adapts the metric `M`.
    :param dense_mass: a full metric in place of a diagonal one.
    :param target_accept_prob: 0.574 is optimal in high dimensions (Roberts & Rosenthal 1998).
    :param init_strategy: NumPyro's, where a model starts.
    """

    _shared_fields = ("i",)  # or the adaptation would be computed after warmup too

    def __init__(
        self,
        model: Callable | None = None,
        potential_fn: PotentialFn | None = None,
        *,
        step_size: float | None = None,
        num_steps: int = 10,
        adapt_step_size: bool = True,
        adapt_mass_matrix: bool = True,
        dense_mass: bool = False,
        target_accept_prob: float = 0.574,
        init_strategy: Callable = init_to_uniform,
    ):
        super().__init__(model, potential_fn, init_strategy=init_strategy)
        if step_size is not None:
            check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        if not 0 < target_accept_prob < 1:
            raise ValueError(f"target_accept_prob must be in (0, 1), got {target_accept_prob!r}.")
        self._step_size = step_size
        self._num_steps = num_steps
        self._adapt_step_size = adapt_step_size
        self._adapt_mass_matrix = adapt_mass_matrix
        self._dense_mass = dense_mass
        self._target_accept_prob = target_accept_prob
        self._num_warmup = 0

    def _adapter(self, num_warmup: int) -> tuple[Callable, Callable]:
        return warmup_adapter(
            num_warmup,
            adapt_step_size=self._adapt_step_size,
            adapt_mass_matrix=self._adapt_mass_matrix,
            dense_mass=self._dense_mass,
            target_accept_prob=self._target_accept_prob,
        )

    def _init_chain(self, rng_key, z, num_warmup, model_args, model_kwargs):
        self._num_warmup = num_warmup
        x, _, potential = self._flat(z, model_args, model_kwargs)
        potential_energy, grad = jax.value_and_grad(potential)(x)
        key_adapt, key_curvature, rng_key = random.split(rng_key, 3)
        step_size = self._step_size
        if step_size is None:
            curvature = curvature_at(jax.grad(potential), x, key_curvature)
            # Half the squared step 1.65^2 d^(-1/3) that is optimal on a Gaussian of this curvature.
            step_size = 1.36 * x.size ** (-1 / 3) / jnp.where(curvature > 0, curvature, 1.0)
        init_adapter, _ = self._adapter(num_warmup)
        adapt_state = init_adapter(
            (z,), key_adapt, jnp.asarray(step_size, x.dtype), mass_matrix_size=x.size
        )
        zero = jnp.zeros((), x.dtype)
        state = MALAState(
            i=jnp.array(0),
            z=z,
            z_grad=grad,
            potential_energy=potential_energy,
            accept_prob=zero,
            mean_accept_prob=zero,
            diverging=jnp.array(False),
            num_grad_evals=jnp.array(0),
            adapt_state=adapt_state,
            rng_key=rng_key,
        )
        return state, (potential_energy, grad)

    def _sample_chain(self, state, model_args, model_kwargs):
        x, unravel, potential = self._flat(state.z, model_args, model_kwargs)
        value_and_grad = jax.value_and_grad(potential)
        h = state.adapt_state.step_size
        root = state.adapt_state.mass_matrix_sqrt_inv  # M^-1 = root^T root
        rng_key, key_steps = random.split(state.rng_key)

        def whitened(grad):
            return root @ grad if self._dense_mass else root * grad

        def step(carry, key):
            x, potential_energy, grad = carry
            key_proposal, key_accept = random.split(key)
            noise = random.normal(key_proposal, x.shape, x.dtype)
            jump = euler_maruyama(jnp.zeros_like(x), whitened(grad), h, noise)
            x_new = x + (root.T @ jump if self._dense_mass else root * jump)
            potential_energy_new, grad_new = value_and_grad(x_new)
            log_ratio = log_proposal_ratio(whitened(grad), whitened(grad_new), h, noise)
            log_ratio = log_ratio + potential_energy - potential_energy_new
            # Not finite: the proposal left the support or the finite numbers, in its potential
            # energy or its gradient. Reject, an energy of -inf too: it would never be left.
            finite = jnp.isfinite(log_ratio)
            accept_prob = jnp.where(finite, jnp.exp(jnp.minimum(log_ratio, 0.0)), 0.0)
            accept = random.uniform(key_accept, dtype=x.dtype) < accept_prob
            carry = select(accept, (x_new, potential_energy_new, grad_new), carry)
            return carry, (accept_prob, ~finite)

        start = (x, state.potential_energy, state.z_grad)
        keys = random.split(key_steps, self._num_steps)
        (x, potential_energy, grad), (accept_prob, diverging) = lax.scan(step, start, keys)
        z = unravel(x)
        accept_prob = jnp.mean(accept_prob)
        _, update_adapter = self._adapter(self._num_warmup)
        adapt_state = lax.cond(
            state.i < self._num_warmup,
            lambda: update_adapter(state.i, accept_prob, (z,), state.adapt_state),
            lambda: state.adapt_state,
        )
        i = state.i + 1
        n = jnp.where(i <= self._num_warmup, i, i - self._num_warmup)
        return MALAState(
            i=i,
            z=z,
            z_grad=grad,
            potential_energy=potential_energy,
            accept_prob=accept_prob,
            mean_accept_prob=state.mean_accept_prob + (accept_prob - state.mean_accept_prob) / n,
            diverging=jnp.any(diverging),
            num_grad_evals=jnp.array(self._num_steps),
            adapt_state=adapt_state,
            rng_key=rng_key,
        )

    def refresh(self, state, model_args, model_kwargs):
        """Potential energy and gradient at the current point for other arguments of the model."""
        x, _, potential = self._flat(state.z, model_args, model_kwargs)
        potential_energy, grad = jax.value_and_grad(potential)(x)
        return state._replace(potential_energy=potential_energy, z_grad=grad)

    def get_diagnostics_str(self, state):
        step_size, accept_prob = state.adapt_state.step_size, state.mean_accept_prob
        return f"step size {step_size:.2e}. acc. prob={accept_prob:.2f}"
