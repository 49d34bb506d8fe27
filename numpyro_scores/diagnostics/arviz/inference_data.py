# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A finished NumPyro run as an ArviZ object."""

import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.infer import MCMC, NUTS

from numpyro_scores.diagnostics.arviz.datasets import (
    SAMPLE_DIMS,
    Arrays,
    Dims,
    checked_dims,
    dataset,
    variable_name,
    without_clashes,
)
from numpyro_scores.diagnostics.arviz.log_likelihood import is_observed, log_likelihood_of
from numpyro_scores.diagnostics.arviz.versions import pack_groups
from numpyro_scores.diagnostics.report.bad_chains import bad_chains
from numpyro_scores.diagnostics.report.parts import ATTRIBUTE, Record, parts_of, written
from numpyro_scores.infer.smc.driver import ParticleSampler

# ArviZ's names for the fields of NumPyro's kernels.
STAT_NAMES = {
    "accept_prob": "acceptance_rate",
    "adapt_state.step_size": "step_size",
    "num_steps": "n_steps",
    "potential_energy": "lp",
}


def to_inference_data(
    mcmc: MCMC | ParticleSampler,
    *,
    posterior_predictive: Mapping[str, Any] | None = None,
    prior: Mapping[str, Any] | None = None,
    prior_predictive: Mapping[str, Any] | None = None,
    warmup_posterior: Any = None,
    warmup_sample_stats: Mapping[str, Any] | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Dims | None = None,
    log_likelihood: bool = False,
) -> Any:
    r"""
    Hand a finished run to ArviZ: an `InferenceData` under ArviZ 0.x, an `xarray.DataTree` under
    1.x. The groups are:

    * `posterior`: `mcmc.get_samples(group_by_chain=True)`, dimensions `(chain, draw, ...)`. A
      kernel built on a `potential_fn` may carry any pytree: a lone array is named `x`, the entries
      of a sequence `x.0`, `x.1`, nested entries by their path (`a.b`). A slash, which NumPyro's
      `scope` puts in names and netCDF forbids, becomes a dot.
    * `sample_stats`: the kernel's extra fields. `lp = -potential_energy`; `accept_prob` becomes
      `acceptance_rate`, `num_steps` `n_steps` (with `tree_depth` for NUTS), `adapt_state.step_size`
      `step_size`; others keep their name, dots replaced by underscores.
    * `observed_data`: the observed sites of the kernel's model, called with the run's arguments.
    * `posterior_predictive`, `prior`, `prior_predictive`: as given. Sites of `prior` that the
      posterior does not have, such as the observed ones, go to `prior_predictive`.
    * `warmup_posterior`, `warmup_sample_stats`: as given, under the same names; or what a
      :class:`~numpyro_scores.StoredMCMC` with `keep_warmup=True` has kept.
    * `log_likelihood`, if asked for: :math:`\log p(y_i \mid \theta)` of each datum at each draw,
      from which ArviZ compares models (`loo`, `waic`). A prior that is known up to a constant, an
      energy, does not enter; an *observed* site with such a density is left out, with a warning.

    The kernel's name and what its last state says of acceptance, swaps and step sizes are kept in
    an attribute of `posterior`, so that :func:`~numpyro_scores.diagnose` still knows them from a
    file. Flags among the draws become 0 and 1; a site called `chain` or `draw` gets an underscore.

    :param mcmc: a `numpyro.infer.MCMC` after `run`, or a :class:`~numpyro_scores.TemperedSMC`,
        whose draws are one chain, with its evidence and rounds as attributes of `sample_stats`.
    :param posterior_predictive: draws of shape `(chains * draws, ...)`, as
        `Predictive(model, mcmc.get_samples())` returns, or `(chains, draws, ...)`.
    :param prior: draws of shape `(draws, ...)`, as `Predictive(model, num_samples=draws)` returns.
    :param prior_predictive: draws of shape `(draws, ...)`.
    :param warmup_posterior: the draws of warmup, `mcmc.get_samples(group_by_chain=True)` between
        `mcmc.warmup(key, ..., collect_warmup=True)` and `mcmc.run`, which forgets them.
    :param warmup_sample_stats: likewise, `mcmc.get_extra_fields(group_by_chain=True)`.
    :param coords: coordinate values by dimension; integers from 0 by default.
    :param dims: names of a variable's own dimensions (all but chain and draw), one for each axis.
        By default a plate's name, the site's `infer={"event_dims": [...]}`, else `x_dim_0`, ...
    :param log_likelihood: whether to run the model at each draw for that group.
    :return: `InferenceData` or `DataTree`.
    :raises TypeError: if `mcmc` is neither.
    :raises ValueError: if it has not run, if the shape of some draws or dims does not fit, if dims
        name a variable that there is not, or if there is no log likelihood that was asked for.

    A warning names the chains that have draws that are not finite or `diverging`, and those that
    never moved.
    """
    samples, fields = collected(mcmc)
    posterior = _without_flags(named_leaves(samples))
    if not posterior:
        raise ValueError("The run collected no site: its extra_fields exclude all of them (~).")
    num_chains, num_draws = next(iter(posterior.values())).shape[:2]
    for message in bad_chains(posterior, fields, getattr(mcmc, "sampler", mcmc)):
        warnings.warn(message, stacklevel=2)
    trace = _trace(mcmc, jax.tree.map(lambda x: x[0, 0], samples))
    observed = {
        name: np.asarray(site["value"]) for name, site in trace.items() if is_observed(site)
    }

    kept = getattr(mcmc, "_kept_warmup", None)
    if kept is not None and warmup_posterior is None and warmup_sample_stats is None:
        warmup_posterior, warmup_sample_stats = kept()
    prior_draws = _prior_draws("prior", prior)
    is_nuts = isinstance(getattr(mcmc, "sampler", None), NUTS)
    groups: dict[str, Arrays] = {
        "posterior": posterior,
        "sample_stats": _sample_stats(fields, is_nuts),
        "warmup_posterior": _without_flags(
            _of_warmup("warmup_posterior", warmup_posterior, num_chains)
        ),
        "warmup_sample_stats": _sample_stats(
            _of_warmup("warmup_sample_stats", warmup_sample_stats, num_chains), is_nuts
        ),
        "posterior_predictive": {
            name: _by_chain(name, values, num_chains, num_draws)
            for name, values in named_leaves(posterior_predictive or {}).items()
        },
        "prior": {name: x for name, x in prior_draws.items() if name in posterior},
        "prior_predictive": {name: x for name, x in prior_draws.items() if name not in posterior}
        | _prior_draws("prior_predictive", prior_predictive),
        "observed_data": observed,
    }
    if log_likelihood:
        model = getattr(getattr(mcmc, "sampler", mcmc), "model", None)
        groups["log_likelihood"] = log_likelihood_of(model, mcmc._args, mcmc._kwargs, samples)
    groups, trace, renamed = without_clashes(groups, trace)
    for old, new in renamed.items():
        warnings.warn(
            f"Site {old!r} is called {new!r} in ArviZ, whose axes are called chain and draw.",
            stacklevel=2,
        )
    dims = checked_dims(dims, groups, renamed)
    datasets = {
        group: dataset(
            variables, () if group == "observed_data" else SAMPLE_DIMS, trace, coords, dims
        )
        for group, variables in groups.items()
        if variables
    }
    datasets["posterior"].attrs[ATTRIBUTE] = written(record_of(mcmc))
    if isinstance(mcmc, ParticleSampler):
        rounds = {f"round_{k}": v for k, v in mcmc.rounds._asdict().items()}
        datasets["sample_stats"].attrs.update(mcmc.statistics | rounds)
    return pack_groups(datasets)


def record_of(mcmc: MCMC | ParticleSampler) -> Record:
    """What drew a run."""
    if isinstance(mcmc, ParticleSampler):
        rounds = {"num_particles": mcmc._num_particles}
        return Record(type(mcmc).__name__, particles=mcmc.statistics | rounds)
    parts = parts_of(mcmc.sampler, mcmc.last_state, mcmc.num_chains)
    return Record(type(mcmc.sampler).__name__, parts)


def collected(mcmc: MCMC | ParticleSampler) -> tuple[dict[str, Any], Arrays]:
    """The samples, as the kernel names them, and the extra fields by path, on the host."""
    if isinstance(mcmc, ParticleSampler):
        return jax.device_get((mcmc.get_samples(True), mcmc.get_extra_fields(True)))
    if not isinstance(mcmc, MCMC):
        raise TypeError(
            "to_inference_data takes a TemperedSMC or a numpyro.infer.MCMC that has run, got "
            f"{type(mcmc).__name__}. For draws from elsewhere use arviz.from_dict."
        )
    if mcmc.last_state is None:
        raise ValueError("This MCMC has no draws yet: call mcmc.run(key, ...) first.")
    samples = jax.device_get(mcmc.get_samples(group_by_chain=True))
    if mcmc.post_warmup_state is mcmc.last_state and (
        # `warmup` alone leaves zeros where the draws will be, unless it collects its own.
        not any(np.any(x) for x in jax.tree.leaves(samples))
        or np.all(getattr(mcmc.last_state, "i", mcmc.num_warmup + 1) == mcmc.num_warmup)
    ):
        raise ValueError(
            "This MCMC has run its warmup only: call mcmc.run(key, ...) first. To keep what warmup "
            "has collected, give mcmc.get_samples(group_by_chain=True) of now as warmup_posterior."
        )
    samples = _as_dict(samples)
    fields = jax.device_get(mcmc.get_extra_fields(group_by_chain=True))
    return samples, named_leaves(fields)


def _as_dict(samples: Any) -> dict[str, Any]:
    """Samples by name; a kernel on a potential energy may have any pytree."""
    if hasattr(samples, "_asdict"):
        samples = samples._asdict()
    return samples if isinstance(samples, dict) else {"x": samples}


def _without_flags(draws: Arrays) -> Arrays:
    """Flags as 0 and 1: ArviZ 1.x cannot subtract them."""
    return {name: x.astype(np.int32) if x.dtype == bool else x for name, x in draws.items()}


def _of_warmup(group: str, draws: Any, num_chains: int) -> Arrays:
    named = {} if draws is None else named_leaves(_as_dict(draws))
    for name, values in named.items():
        if values.ndim < 2 or len(values) != num_chains:
            raise ValueError(
                f"{group}[{name!r}] has shape {values.shape}, but the run has {num_chains} chains: "
                "take what get_samples or get_extra_fields return with group_by_chain=True."
            )
    return named


def named_leaves(tree: Any) -> Arrays:
    """The leaves of a pytree by their path."""
    leaves = [
        (variable_name(jax.tree_util.keystr(path, simple=True, separator=".")), np.asarray(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    named = dict(leaves)
    if len(named) < len(leaves):
        names = [name for name, _ in leaves]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"Several sites would be called {', '.join(twice)}: rename all but one.")
    return named


def _trace(mcmc: MCMC | ParticleSampler, point: Mapping[str, Any]) -> dict[str, Any]:
    """The sites of the kernel's model at one draw, under the names of `named_leaves`."""
    model = getattr(getattr(mcmc, "sampler", mcmc), "model", None)
    if model is None:
        return {}

    # By data, not by a function: a `scan` cuts data along its axis, and its message has no name.
    values = jax.tree.map(jnp.asarray, dict(point))
    filled = handlers.substitute(handlers.seed(model, rng_seed=0), data=values)
    # A draw that is not finite has been warned of.
    with numpyro.validation_enabled(False):
        trace = handlers.trace(filled).get_trace(*mcmc._args, **mcmc._kwargs)
    return {variable_name(name): site for name, site in trace.items()}


def _sample_stats(fields: Arrays, is_nuts: bool) -> Arrays:
    stats = {
        STAT_NAMES.get(name, name.replace(".", "_")): values for name, values in fields.items()
    }
    if "lp" in stats:
        stats["lp"] = -stats["lp"]
    if is_nuts and "n_steps" in stats:
        # A trajectory of depth d takes from 2^(d-1) to 2^d - 1 steps.
        stats["tree_depth"] = np.log2(stats["n_steps"]).astype(int) + 1
    return stats


def _by_chain(name: str, values: np.ndarray, num_chains: int, num_draws: int) -> np.ndarray:
    if values.shape[:2] == (num_chains, num_draws):
        return values
    if values.shape[:1] == (num_chains * num_draws,):
        return values.reshape(num_chains, num_draws, *values.shape[1:])
    raise ValueError(
        f"posterior_predictive[{name!r}] has shape {values.shape}, but the posterior has "
        f"{num_chains} chains of {num_draws} draws: the leading dimension must be "
        f"{num_chains * num_draws}, as from Predictive(model, mcmc.get_samples())(key, ...)."
    )


def _prior_draws(group: str, draws: Mapping[str, Any] | None) -> Arrays:
    """Prior draws as one chain."""
    named = named_leaves(draws or {})
    for name, values in named.items():
        if not values.ndim:
            raise ValueError(f"{group}[{name!r}] is a single number; draws lie along axis 0.")
    return {name: values[None] for name, values in named.items()}
