# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Geweke's joint distribution test of any kernel on any NumPyro model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.infer import MCMC
from numpyro.infer.util import log_density, unconstrain_fn

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics.calibration.simulation_based import (
    KernelOf,
    draw_all,
    given,
    kernel_that_looked,
    latent_sites,
)
from numpyro_scores.diagnostics.two_sample.moment_tests import NUM_PERMUTATIONS, mean_test


class GewekeTest(NamedTuple):
    """
    What :func:`geweke_test` returns.

    - **statistic** - largest absolute `t` of the test functions, shape `()`.
    - **p_value** - of the hypothesis that kernel, prior and likelihood agree, shape `()`.
    - **first**, **second** - `t` of every entry of every site, and of its square: dicts of arrays
      of the sites' shapes, positive where the kernel's draws are larger.
    - **log_joint** - `t` of the log joint density, which sees whether parameters fit their data,
      shape `()`.
    """

    statistic: Array
    p_value: Array
    first: dict[str, Array]
    second: dict[str, Array]
    log_joint: Array


def geweke_test(
    model: Callable,
    kernel: KernelOf,
    *args: Any,
    observed: Sequence[str],
    key: Array,
    num_chains: int = 500,
    num_rounds: int = 10,
    num_steps: int = 1,
    num_permutations: int = NUM_PERMUTATIONS,
) -> GewekeTest:
    """
    Whether a kernel leaves the joint density of parameters and data as it is (Geweke 2004, "Getting
    it right"). Chains start from independent draws of the model, and alternate new data given the
    parameters with `num_steps` steps of the kernel given the data; after `num_rounds` the end of
    each chain must still be a draw of the model. The means of all sites, of their squares and of
    the log joint density are compared with those of fresh draws by :func:`mean_test`, whose p-value
    is exact since the chains are independent and begin stationary: neither burn-in nor
    autocorrelation matters.

    It is sharper than :func:`simulation_based_calibration` for a kernel without warmup, whose fault
    adds up from round to round; a kernel with an unadjusted bias fails it, as it must.

    :param model: a NumPyro model, called without data: all of its sites are drawn.
    :param kernel: the kernel of a model, with its step size given: there is no warmup.
    :param args: arguments of the model.
    :param observed: names of the sites that are the data.
    :param key: key of all that is random.
    :param num_chains: number of chains, and of fresh draws.
    :param num_rounds: how often parameters and data are renewed in turn.
    :param num_steps: steps of the kernel in a round.
    :param num_permutations: number of permutations of the test.
    :raises ValueError: if `observed` does not name stochastic sites of the model, or leaves none,
        if a number is not a positive integer, or if a chain is not finite.
    """
    check_key("geweke_test", key)
    for name, value in (("num_rounds", num_rounds), ("num_steps", num_steps)):
        check_count(name, value)
    latent = latent_sites(model, args, observed)
    looked = kernel_that_looked(kernel, model, args, observed, 0, random.fold_in(key, 0))

    def step(values, key):
        key_data, key_kernel = random.split(key)
        values = draw_all_given(model, args, {name: values[name] for name in latent}, key_data)
        data = {name: values[name] for name in observed}
        mcmc = MCMC(
            kernel(partial(given, model)) if looked is None else looked,
            num_warmup=0,
            num_samples=num_steps,
            thinning=num_steps,
            progress_bar=False,
        )
        parameters = {name: values[name] for name in latent}
        start = unconstrain_fn(partial(given, model), (data, *args), {}, parameters)
        mcmc.run(key_kernel, data, *args, init_params=start)
        draws = mcmc.get_samples()
        return {**data, **{name: draws[name][-1] for name in latent}}, None

    def moments(values):
        log_joint, _ = log_density(model, args, {}, values)
        flat, _ = ravel_pytree(as_floats(values))
        return jnp.concatenate([flat, flat**2, log_joint[None]])

    @jax.jit
    @jax.vmap
    def chain(key):
        key_fresh, key_start, key_rounds = random.split(key, 3)
        start = draw_all(model, args, key_start)
        end, _ = lax.scan(step, start, random.split(key_rounds, num_rounds))
        return end, moments(end), moments(draw_all(model, args, key_fresh))

    key_chains, key_test = random.split(key)
    ends, of_ends, of_fresh = chain(random.split(key_chains, num_chains))
    found = mean_test(of_ends, of_fresh, key=key_test, num_permutations=num_permutations)
    _, unravel = ravel_pytree(as_floats(jax.tree.map(lambda x: x[0], ends)))
    first, second = jnp.split(found.t[:-1], 2)
    return GewekeTest(found.statistic, found.p_value, unravel(first), unravel(second), found.t[-1])


def as_floats(values: dict[str, Array]) -> dict[str, Array]:
    """The values with discrete ones as floats, so that all have means."""
    return jax.tree.map(lambda x: x.astype(jnp.result_type(x, float)), values)


def draw_all_given(
    model: Callable, args: tuple, parameters: dict[str, Any], key: Array
) -> dict[str, Array]:
    """The parameters, and the values of all other sites of a run of the model with them."""
    # Substituted sites are drawn sites still, of a given value.
    return draw_all(handlers.substitute(model, data=parameters), args, key)
