# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What each kernel reports has ArviZ's names in ArviZ's hands, and survives netCDF."""

from functools import partial

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray
from numpyro.infer import MCMC

import numpyro_scores as ns

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:Diverging draws"),
]

CHAINS, DRAWS = 2, 4
SHAPE = (2, 3)
AXES = {"event_dims": ["row", "column"]}
Y = jnp.linspace(-1.0, 1.0, 6).reshape(SHAPE)
PRIOR = ns.DiffusionPrior(
    lambda x, sigma: x / (1 + sigma**2), ns.VarianceExploding(0.1, 5.0), SHAPE
)


def observe(x, y):
    numpyro.sample("y", dist.Normal(x, 0.5).to_event(2), obs=y, infer=AXES)


def pictures(y=None):
    observe(numpyro.sample("x", dist.Normal(0, 1).expand(SHAPE).to_event(2), infer=AXES), y)


def energies(y=None):
    prior = ns.EnergyDistribution(lambda x: jnp.sum(x**2) / 2, SHAPE)
    observe(numpyro.sample("x", prior, infer=AXES), y)


def anneals(y=None):
    observe(numpyro.sample("x", PRIOR, infer=AXES), y)


def spins(y=None):
    observe(numpyro.sample("x", ns.Ising(SHAPE, coupling=0.3), infer=AXES), y)


def coupling(y=None):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", ns.Ising(SHAPE, coupling=x), obs=jnp.sign(Y + 0.1), infer=AXES)


def exchange(model):
    return ns.ReplicaExchange(ns.MALA(model, num_steps=1), ns.LikelihoodPowers([1.0, 0.5, 0.2]))


UNADJUSTED = {"step_size": (), "variance_error": (), "num_grad_evals": ()}
ADJUSTED = {"potential_energy": (), "accept_prob": (), "adapt_state.step_size": ()}
INFORMED = {"potential_energy": (), "accept_prob": ()}
# Model, kernel, and the fields of its state with their shape.
KERNELS = {
    "ULA": (pictures, partial(ns.ULA, num_steps=2), UNADJUSTED),
    "UnderdampedLangevin": (pictures, ns.UnderdampedLangevin, UNADJUSTED),
    "SKROCK": (pictures, ns.SKROCK, UNADJUSTED),
    "MALA": (energies, ns.MALA, ADJUSTED),
    "MALT": (pictures, ns.MALT, ADJUSTED),
    "AnnealedLangevin": (
        anneals,
        partial(ns.AnnealedLangevin, num_levels=3),
        {"num_grad_evals": ()},
    ),
    "ReplicaExchange": (
        pictures,
        exchange,
        {"swap_accept_prob": (2,), "num_round_trips": (), "round_trip_rate": (), "rungs": (3,)},
    ),
    "BlockGibbs": (spins, ns.BlockGibbs, {}),
    "GibbsWithGradients": (spins, ns.GibbsWithGradients, INFORMED),
    "DiscreteLangevin": (spins, ns.DiscreteLangevin, INFORMED | {"adapt_state.step_size": ()}),
    "SwendsenWang": (spins, ns.SwendsenWang, {}),
    "ExchangeKernel": (coupling, ns.ExchangeKernel, {"accept_prob": ()}),
}
# The schema's names; what it does not know keeps its own.
ARVIZ_NAMES = {
    "accept_prob": "acceptance_rate",
    "adapt_state.step_size": "step_size",
    "potential_energy": "lp",
}


def groups_of(data):
    return set(data.children if hasattr(data, "children") else data.groups())


@pytest.mark.parametrize("name", KERNELS)
def test_a_run_is_whole_in_arviz_and_in_a_file(name, tmp_path):
    model, kernel, fields = KERNELS[name]
    mcmc = MCMC(
        kernel(model),
        num_warmup=4,
        num_samples=DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), Y, extra_fields=tuple(fields))
    samples = mcmc.get_samples()
    drawn = {"y": np.ones((CHAINS * DRAWS, *SHAPE))}
    prior = {"x": np.zeros((3, *samples["x"].shape[1:])), "y": np.ones((3, *SHAPE))}
    data = ns.to_inference_data(mcmc, posterior_predictive=drawn, prior=prior)

    groups = {"posterior", "posterior_predictive", "prior", "prior_predictive", "observed_data"}
    reported = mcmc.get_extra_fields(group_by_chain=True)
    if reported:
        groups.add("sample_stats")
    # No log likelihood: of an unnormalised density it would mean nothing.
    assert groups_of(data) == groups
    axes = ("row", "column") if samples["x"].ndim == 3 else ()
    assert data["posterior"]["x"].dims == ("chain", "draw", *axes)
    assert data["prior"]["x"].dims == ("chain", "draw", *axes)
    assert data["observed_data"]["y"].dims == ("row", "column")
    for group in ("posterior_predictive", "prior_predictive"):
        assert data[group]["y"].dims == ("chain", "draw", "row", "column")
    np.testing.assert_array_equal(data["posterior"]["x"], mcmc.get_samples(True)["x"])

    stats = data["sample_stats"].data_vars if reported else {}
    assert set(reported) == set(fields) | ({"diverging"} & set(mcmc._default_fields))
    assert set(stats) == {ARVIZ_NAMES.get(field, field) for field in reported}
    for field, values in reported.items():
        stat = stats[ARVIZ_NAMES.get(field, field)]
        sign = -1 if field == "potential_energy" else 1
        np.testing.assert_array_equal(stat, sign * values)
        assert stat.shape == (CHAINS, DRAWS, *fields.get(field, ()))

    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    again = az.from_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    for group in groups:
        for variable, values in data[group].data_vars.items():
            xarray.testing.assert_equal(again[group][variable].load(), values)
    again.close()
