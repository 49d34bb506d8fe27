# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a finished sampler of particles answers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.diagnostics import print_summary

from numpyro_scores._validation import is_concrete
from numpyro_scores.infer.smc.population import Population, Rounds


class ParticleResults:
    """The draws of a run, its evidence and its statistics."""

    def __init__(self, num_prior_draws: int):
        self._num_prior_draws = num_prior_draws
        self._state: Population | None = None
        self._samples: dict[str, Array] = {}
        self._latent: tuple[str, ...] = ()

    @property
    def _finished(self) -> Population:
        if self._state is None:
            raise ValueError(f"This {type(self).__name__} has no draws: call run(key, ...) first.")
        return self._state

    def get_samples(self, group_by_chain: bool = False) -> dict[str, Array]:
        """
        Equally weighted draws of the posterior by site, deterministic sites included, shape
        `(num_particles, ...)`.

        :param group_by_chain: whether to put the axis of one chain in front, as NumPyro's `MCMC`.
        """
        _ = self._finished
        if not group_by_chain:
            return self._samples
        return {name: values[None] for name, values in self._samples.items()}

    @property
    def log_evidence(self) -> float | Array:
        r"""
        The logarithm of :math:`p(y) = \int p(z)\, p(y | z)\, dz`, estimated; an array if the run
        was traced, by `jax.vmap` for example.
        """
        return _number(self._finished.log_evidence)

    @property
    def log_evidence_error(self) -> float | Array:
        """
        Standard error of :attr:`log_evidence`, from the lines of descent of the particles of this
        one run (Chan & Lai 2013; Lee & Whiteley 2018). Infinite if in one round fewer than ten of
        them had all the weight: their spread tells nothing then.
        """
        return _number(jnp.sqrt(jnp.maximum(self._finished.relative_variance, 0)))

    @property
    def rounds(self) -> Rounds:
        """
        Power or noise level, effective sample size, acceptance and cost of each round; zeros follow
        these if the run was traced.
        """
        state = self._finished
        if not is_concrete(state.i):
            return state.rounds
        return jax.tree.map(lambda values: values[: int(state.i)], state.rounds)

    @property
    def num_grad_evals(self) -> int:
        """Gradients and scores that each particle has cost, without the draws of the prior."""
        return int(self.rounds.num_grad_evals.sum())

    @property
    def statistics(self) -> dict[str, Any]:
        """What :meth:`print_summary` prints of the run, and ArviZ gets as attributes."""
        state, rounds = self._finished, self.rounds
        return {
            "log_evidence": self.log_evidence,
            "log_evidence_error": self.log_evidence_error,
            "num_rounds": int(state.i),
            "num_prior_draws": self._num_prior_draws,
            "num_ancestors": len(np.unique(state.ancestor)),
            "num_dead_draws": int(state.num_dead),
            "num_grad_evals": self.num_grad_evals,
            "num_diverging": int(rounds.num_diverging.sum()),
            "largest_unresolved": float(rounds.unresolved.max()),
            "num_stuck": int(rounds.num_stuck[-1]),
            "smallest_ess": float(rounds.ess.min()),
            "smallest_accept_prob": float(rounds.accept_prob.min()),
        }

    def print_summary(self, prob: float = 0.9, exclude_deterministic: bool = True) -> None:
        """
        Print NumPyro's summary of the draws, and what is known of the run. The draws are no chain:
        `n_eff` and `r_hat` in it do not know that particles share ancestors.
        """
        samples = self.get_samples(group_by_chain=True)
        if exclude_deterministic:
            samples = {name: samples[name] for name in self._latent}
        print_summary(samples, prob=prob)
        for name, value in self.statistics.items():
            print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")

    def get_extra_fields(self, group_by_chain: bool = False) -> dict[str, Array]:
        """By draw: its log likelihood, and the draw of the prior that it descends from."""
        state = self._finished
        fields = {"log_likelihood": state.log_likelihood, "ancestor": state.ancestor}
        return {k: v[None] for k, v in fields.items()} if group_by_chain else fields


def _number(value: Any) -> Any:
    return float(value) if is_concrete(value) else value
