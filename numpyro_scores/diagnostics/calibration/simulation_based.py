# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Simulation-based calibration of any kernel on any NumPyro model."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro import handlers
from numpyro.infer import MCMC, Gibbs
from tqdm.auto import trange

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics.calibration.coverage import Coverage, coverage
from numpyro_scores.diagnostics.calibration.ranks import family_p_value
from numpyro_scores.infer.discrete.base import DiscreteKernel

KernelOf = Callable[[Callable], Any]


class SimulationBasedCalibration(NamedTuple):
    """
    What :func:`simulation_based_calibration` returns.

    - **statistic** - least two-sided tail probability of the ranks of any quantity.
    - **p_value** - of the hypothesis that all are uniform, by the least of the `k` quantities:
      :math:`1 - (1 - p)^k` (Šidák 1967).
    - **sites** - the :class:`Coverage` of each latent site: ranks, intervals, bands, p-values of
      its entries.
    """

    statistic: float
    p_value: float
    sites: dict[str, Coverage]


def simulation_based_calibration(
    model: Callable,
    kernel: KernelOf,
    *args: Any,
    observed: Sequence[str],
    key: Array,
    num_simulations: int = 200,
    num_draws: int = 63,
    num_warmup: int = 300,
    thinning: int = 1,
    batch_size: int = 200,
    progress_bar: bool = True,
) -> SimulationBasedCalibration:
    """
    Draw parameters and data from the model, draw from the posterior given those data, and compare
    the parameters with the draws, many times (Talts et al. 2018): if model, kernel and code are
    right the ranks are uniform. A p-value near 0 tells that they are not; a draw that depends on
    the last one too, so choose `thinning` such that it does not.

    All simulations run in one program. A kernel that looks at values when it starts, as those of
    discrete sites do, alone or in :class:`numpyro.infer.Gibbs`, looks at one simulation before:
    which sites depend on which must not depend on the values of the data.

    :param model: a NumPyro model, called without data: all of its sites are drawn.
    :param kernel: the kernel of a model, such as `NUTS`, or
        `lambda model: ns.MALA(model, num_steps=20)`.
    :param args: arguments of the model.
    :param observed: names of the sites that are the data.
    :param key: key of all that is random.
    :param num_simulations: number of parameters drawn.
    :param num_draws: number of posterior draws kept of each.
    :param num_warmup: number of warmup steps of each run.
    :param thinning: number of steps between two draws that are kept.
    :param batch_size: simulations in one vectorised run.
    :param progress_bar: whether to show the batches that are done.
    :raises ValueError: if `observed` does not name stochastic sites of the model, or leaves none,
        if a number is not a positive integer, or if a draw is not finite.
    """
    check_key("simulation_based_calibration", key)
    for name, value in (("thinning", thinning), ("batch_size", batch_size)):
        check_count(name, value)
    check_count("num_draws", num_draws)
    check_count("num_simulations", num_simulations)
    latent = latent_sites(model, args, observed)
    looked = kernel_that_looked(kernel, model, args, observed, num_warmup, random.fold_in(key, 0))

    @jax.jit
    @jax.vmap
    def simulate(key):
        key_truth, key_run = random.split(key)
        values = draw_all(model, args, key_truth)
        data = {name: values[name] for name in observed}
        mcmc = MCMC(
            kernel(partial(given, model)) if looked is None else looked,
            num_warmup=num_warmup,
            num_samples=num_draws * thinning,
            thinning=thinning,
            progress_bar=False,
        )
        mcmc.run(key_run, data, *args)
        draws = mcmc.get_samples()
        return {name: values[name] for name in latent}, {name: draws[name] for name in latent}

    key_simulations, key_ranks = random.split(key)
    num_batches = -(-num_simulations // batch_size)
    # Batches of one size compile once; what is too many is left out.
    size = -(-num_simulations // num_batches)
    keys = random.split(key_simulations, (num_batches, size))
    done = [
        jax.device_get(simulate(keys[i])) for i in trange(num_batches, disable=not progress_bar)
    ]
    truth, draws = jax.tree.map(lambda *x: np.concatenate(x)[:num_simulations], *done)
    sites = {
        name: coverage(draws[name], truth[name], key=key_site)
        for name, key_site in zip(latent, random.split(key_ranks, len(latent)), strict=True)
    }
    p_values = np.concatenate([np.ravel(site.p_value) for site in sites.values()])
    statistic = min(float(np.min(site.statistic)) for site in sites.values())
    return SimulationBasedCalibration(statistic, family_p_value(p_values), sites)


def kernel_that_looked(
    kernel: KernelOf,
    model: Callable,
    args: tuple,
    observed: Sequence[str],
    num_warmup: int,
    key: Array,
) -> Any:
    """
    The kernel of all simulations after its `init` on one of them, if it has discrete sites of this
    package, which `init` must find outside of the program; or else None.
    """
    made = kernel(partial(given, model))
    blocks = made._kernels if isinstance(made, Gibbs) else [made]
    if not any(isinstance(block, DiscreteKernel) for block in blocks):
        return None
    key_data, key_init = random.split(key)
    values = draw_all(model, args, key_data)
    data = {name: values[name] for name in observed}
    made.init(key_init, num_warmup, None, (data, *args), {})
    return made


def given(model: Callable, data: dict[str, Any], *args: Any) -> Any:
    """The model with these sites observed."""
    return handlers.condition(model, data=data)(*args)


def draw_all(model: Callable, args: tuple, key: Array) -> dict[str, Array]:
    """The values of all stochastic sites of one run of the model."""
    trace = handlers.trace(handlers.seed(model, key)).get_trace(*args)
    return {
        name: jnp.asarray(site["value"])
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def latent_sites(model: Callable, args: tuple, observed: Sequence[str]) -> list[str]:
    """The stochastic sites that are not `observed`, which must be among them."""
    names = list(jax.eval_shape(partial(draw_all, model, args), random.key(0)))
    if isinstance(observed, str):
        raise ValueError(
            f"observed must be a sequence of site names, got {observed!r}: ({observed!r},)"
        )
    missing = sorted(set(observed) - set(names))
    latent = [name for name in names if name not in observed]
    if missing or not observed or not latent:
        raise ValueError(
            "observed must name sites that the model draws when it is called without data, and "
            f"leave others: got {list(observed)}, where the model draws {names}."
        )
    return latent
