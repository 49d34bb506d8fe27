# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""How far a proposal goes whose reason is a first order, and how warmup finds that."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from numpyro.infer.hmc_util import dual_averaging

from numpyro_scores.infer.discrete.updates import SiteUpdate


class StepSizeState(NamedTuple):
    """
    - **step_size** - of the next draw.
    - **averaging** - state of NumPyro's `dual_averaging` of its logarithm.
    """

    step_size: Array
    averaging: tuple[Array, ...]

    @classmethod
    def of(cls, step_size: float) -> "StepSizeState":
        h = jnp.array(step_size, float)
        # The centre that NumPyro's own adaptation takes: it favours large steps.
        init, _ = dual_averaging()
        return cls(h, init(jnp.log(10 * h)))

    def adapted(self, error: Array, is_last: Array, ends: tuple[float, float]) -> "StepSizeState":
        """
        After a draw of warmup.

        :param error: by how much the acceptance fell short of its target.
        :param is_last: whether it was the last, after which the average is kept.
        :param ends: the smallest and the largest step.
        """
        _, update = dual_averaging()
        averaging = update(error, self.averaging)
        log_step, log_average, *_ = averaging
        step_size = jnp.exp(jnp.where(is_last, log_average, log_step))
        return StepSizeState(jnp.clip(step_size, *ends), averaging)


def distances(site: SiteUpdate, value: Array) -> Array:
    """How many states each state of each element is from where it is, `(num_states, *shape)`."""
    number = jnp.reshape(jnp.arange(len(site.states)), (-1, *[1] * value.ndim))
    return number - jnp.sum(jnp.where(site.is_at(value), number, 0), axis=0, keepdims=True)
