# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Contrastive divergence, from the data or by persistent chains."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax, random

from numpyro_scores._callables import as_pytree
from numpyro_scores._validation import check_count
from numpyro_scores.objectives._energy import (
    check_continuous,
    free_energy_of,
    unnormalised_energy_of,
)
from numpyro_scores.objectives._points import (
    as_points,
    check_in_support,
    check_instance,
    of_floats,
)


@dataclass(frozen=True)
class ContrastiveDivergence:
    r"""
    Contrastive divergence, CD-k (Hinton 2002, "Training products of experts by minimizing
    contrastive divergence"): the gradient in the parameters of

    .. math:: \operatorname{mean}_i E(x_i) - \operatorname{mean}_i E(\tilde x_i),

    where :math:`\tilde x_i` is the end of a chain of `num_steps` steps from the point :math:`x_i`,
    held fixed. With chains that forget their start it is the gradient of minus the log likelihood,
    :math:`E_{\text{data}}[\nabla E] - E_{\text{model}}[\nabla E]`; shorter ones bias it. The
    *value* of the loss is no measure of fit: compare the likelihood, by `log_normalizer`, or the
    `PseudoLikelihood` of held-out data.

    Chains of a `sampler` on a distribution with a bounded support run in its unconstrained
    coordinates `z`, on :math:`E(x(z)) - \log |\det \partial x / \partial z|`, so that none leaves
    it and their law is the distribution's. The loss has the energies of the points :math:`x(z)`
    themselves.

    :param num_steps: k, steps of a chain: sweeps of block Gibbs sampling, or draws of `sampler`.
    :param sampler: for a continuous energy, makes a kernel of a potential energy, such as
        `functools.partial(numpyro_scores.ULA, step_size=0.01, num_steps=20)`, its step size in the
        units of the unconstrained coordinates. By default a module
        with `gibbs_steps` (the lattices, random fields and machines of this package) makes its own.
    """

    num_steps: int = 1
    sampler: Callable[..., Any] | None = None

    def __post_init__(self):
        check_count("num_steps", self.num_steps)

    def __call__(self, module: Any, x: Array, *, key: Array) -> Array:
        """
        :param module: an energy, `x -> ()`, or an unnormalised distribution.
        :param x: points, shape `(n, *event_shape)`.
        :param key: for the chains.
        :return: the loss, shape `()`.
        :raises ValueError: if `x` is no batch, or nothing says how to run chains of the module.
        """
        x = as_points(x)
        moved = moved_points(module, self.sampler, key, x, self.num_steps)
        return contrast(module, x, moved)


@dataclass(frozen=True)
class PersistentContrastiveDivergence:
    r"""
    Persistent contrastive divergence (Tieleman 2008, "Training restricted Boltzmann machines using
    approximations to the likelihood gradient"; Younes 1989): as `ContrastiveDivergence`, but with
    chains that go on from step to step of the training, where the parameters move slowly enough
    for them to follow. `fit` carries the chains; their number is independent of the batch.

    With `restart_prob` each chain starts again from a point of the batch with this probability at
    each step: a replay buffer (Du & Mordatch 2019), for energies whose chains get stuck.

    :param num_chains: how many chains.
    :param num_steps: steps of each chain in a step of the training.
    :param sampler: as of `ContrastiveDivergence`.
    :param restart_prob: in [0, 1).
    """

    num_chains: int = 128
    num_steps: int = 1
    sampler: Callable[..., Any] | None = None
    restart_prob: float = 0.0

    def __post_init__(self):
        check_count("num_chains", self.num_chains)
        check_count("num_steps", self.num_steps)
        if not 0 <= self.restart_prob < 1:
            raise ValueError(f"restart_prob must be in [0, 1), got {self.restart_prob!r}.")

    def init(self, data: Array, key: Array) -> Array:
        """The chains at the start: points of the data, shape `(num_chains, *event_shape)`."""
        chains = data[random.randint(key, (self.num_chains,), 0, len(data))]
        return chains if self.sampler is None else of_floats(chains)

    def __call__(self, module: Any, x: Array, chains: Array, *, key: Array) -> tuple[Array, Array]:
        """
        :param module: an energy, `x -> ()`, or an unnormalised distribution.
        :param x: points, shape `(n, *event_shape)`.
        :param chains: shape `(num_chains, *event_shape)`.
        :param key: for the chains.
        :return: the loss, shape `()`, and the chains.
        """
        x = as_points(x)
        key_restart, key_point, key_steps = random.split(key, 3)
        if self.restart_prob:
            restart = random.bernoulli(key_restart, self.restart_prob, (len(chains),))
            points = x[random.randint(key_point, (len(chains),), 0, len(x))]
            chains = jnp.where(restart.reshape(-1, *[1] * (x.ndim - 1)), points, chains)
        chains = moved_points(module, self.sampler, key_steps, chains, self.num_steps)
        return contrast(module, x, chains), chains


def contrast(module: Any, x: Array, moved: Array) -> Array:
    """The mean energy of the points minus that of moved ones."""
    energy = unnormalised_energy_of(module, x[0])
    return jnp.mean(jax.vmap(energy)(x)) - jnp.mean(jax.vmap(energy)(moved))


def moved_points(
    module: Any, sampler: Callable[..., Any] | None, key: Array, x: Array, num_steps: int
) -> Array:
    """Where chains end that start at the points; nothing of it is differentiated."""
    check_instance(module)
    module = lax.stop_gradient(as_pytree("module", module))
    if sampler is None:
        if not hasattr(module, "gibbs_steps"):
            raise ValueError(
                f"{type(module).__name__} has no gibbs_steps of its own: give a sampler, such as "
                "functools.partial(numpyro_scores.ULA, step_size=0.01, num_steps=20)."
            )
        check_in_support(module, x)
        return module.gibbs_steps(key, x, num_steps)

    check_continuous(module)
    energy, z, to_support = free_energy_of(module, of_floats(x))

    def chain(key: Array, z: Array) -> Array:
        kernel = sampler(potential_fn=energy)
        state = kernel.init(key, 0, z, (), {})
        state, _ = lax.scan(lambda s, _: (kernel.sample(s, (), {}), None), state, length=num_steps)
        return to_support(getattr(state, kernel.sample_field))

    return jax.vmap(chain)(random.split(key, len(x)), z)
