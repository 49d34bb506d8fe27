# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A NumPyro run as an ArviZ object: every number arrives under ArviZ's name and survives netCDF."""

import warnings

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from diagnostics.helpers import CHAINS, DRAWS, Y, group_names, half_square, model, quick, run
from numpyro.infer import MCMC, NUTS, Predictive

from numpyro_scores.diagnostics import to_inference_data

# So short a warmup may leave steps that are too large.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Diverging draws"),
    pytest.mark.usefixtures("quick_compilation"),
]


@pytest.fixture(scope="module")
def mcmc():
    return run(NUTS(model), Y)


@pytest.fixture(scope="module")
def inference_data(mcmc):
    return to_inference_data(mcmc)


def test_container_is_arvizs_own(inference_data):
    if az.__version__.startswith("0."):
        assert isinstance(inference_data, vars(az)["InferenceData"])
    else:
        assert isinstance(inference_data, xarray.DataTree)


def test_groups_without_log_likelihood(inference_data):
    assert group_names(inference_data) == {"posterior", "sample_stats", "observed_data"}


def test_posterior_is_get_samples(mcmc, inference_data):
    samples = mcmc.get_samples(group_by_chain=True)
    assert set(inference_data["posterior"].data_vars) == set(samples) == {"x", "scale"}
    for name, values in samples.items():
        np.testing.assert_array_equal(inference_data["posterior"][name], values)
    assert inference_data["posterior"]["x"].dims == ("chain", "draw", "x_dim_0", "x_dim_1")


def test_sample_stats_are_extra_fields(mcmc, inference_data):
    fields = mcmc.get_extra_fields(group_by_chain=True)
    stats = inference_data["sample_stats"]
    expected = {
        "lp": -fields["potential_energy"],
        "acceptance_rate": fields["accept_prob"],
        "diverging": fields["diverging"],
        "energy": fields["energy"],
        "n_steps": fields["num_steps"],
        "step_size": fields["adapt_state.step_size"],
        "tree_depth": np.ceil(np.log2(fields["num_steps"] + 1)),
    }
    assert set(stats.data_vars) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(stats[name], values)
        assert stats[name].dims == ("chain", "draw")


def test_other_fields_keep_their_name_and_pytrees_are_unfolded():
    mcmc = run(quick(model), Y, extra_fields=("num_steps", "z.scale", "z_grad"))
    fields = mcmc.get_extra_fields(group_by_chain=True)
    stats = to_inference_data(mcmc)["sample_stats"]
    # No tree_depth: HMC builds no tree.
    assert set(stats.data_vars) == {"diverging", "n_steps", "z_scale", "z_grad_x", "z_grad_scale"}
    np.testing.assert_array_equal(stats["z_scale"], fields["z.scale"])
    np.testing.assert_array_equal(stats["z_grad_x"], fields["z_grad"]["x"])


def test_observed_data_is_the_data(inference_data):
    observed = inference_data["observed_data"]
    np.testing.assert_array_equal(observed["y"], Y)
    assert observed["y"].dims == ("group",)


def test_agrees_with_arvizs_own_converter(mcmc, inference_data):
    theirs = az.from_numpyro(mcmc, log_likelihood=False)
    for group in ("posterior", "sample_stats", "observed_data"):
        for name, values in inference_data[group].data_vars.items():
            xarray.testing.assert_equal(values, theirs[group][name])


def test_arviz_summarises_it(mcmc, inference_data):
    summary = az.summary(inference_data, round_to="none")
    scale = mcmc.get_samples()["scale"].astype(float)
    np.testing.assert_allclose(float(summary.loc["scale", "mean"]), scale.mean(), rtol=1e-5)
    assert len(summary) == 7


def test_netcdf_round_trip(inference_data, tmp_path):
    path = tmp_path / "posterior.nc"
    inference_data.to_netcdf(path, engine="h5netcdf")
    again = az.from_netcdf(path, engine="h5netcdf")
    assert group_names(again) == group_names(inference_data)
    for group in group_names(inference_data):
        for name, values in inference_data[group].data_vars.items():
            xarray.testing.assert_identical(again[group][name].load(), values)
    assert again["posterior"].attrs["inference_library"] == "numpyro"
    again.close()


def test_dims_and_coords(mcmc):
    result = to_inference_data(
        mcmc,
        dims={"x": ["row", "column"]},
        coords={"row": ["top", "bottom"], "group": [10, 20, 30], "unused": [1]},
    )
    x = result["posterior"]["x"]
    samples = mcmc.get_samples(group_by_chain=True)["x"]
    assert x.dims == ("chain", "draw", "row", "column")
    np.testing.assert_array_equal(x.sel(row="bottom", column=2), samples[:, :, 1, 2])
    np.testing.assert_array_equal(result["observed_data"]["y"].sel(group=20), Y[1])


def test_predictive_groups(mcmc):
    predictive = Predictive(model, mcmc.get_samples())(jax.random.key(1))
    prior = Predictive(model, num_samples=5)(jax.random.key(2))
    result = to_inference_data(mcmc, posterior_predictive=predictive, prior=prior)
    drawn = np.reshape(predictive["y"], (CHAINS, DRAWS, 3))
    np.testing.assert_array_equal(result["posterior_predictive"]["y"], drawn)
    assert result["posterior_predictive"]["y"].dims == ("chain", "draw", "group")
    assert set(result["prior"].data_vars) == {"x", "scale"}
    np.testing.assert_array_equal(result["prior"]["scale"], prior["scale"][None])
    np.testing.assert_array_equal(result["prior_predictive"]["y"], prior["y"][None])

    grouped = to_inference_data(
        mcmc, posterior_predictive={"y": drawn}, prior_predictive={"y": prior["y"]}
    )
    np.testing.assert_array_equal(grouped["posterior_predictive"]["y"], drawn)
    np.testing.assert_array_equal(grouped["prior_predictive"]["y"], prior["y"][None])

    # Predictions at another number of points are not those of the plate's members.
    elsewhere = to_inference_data(mcmc, posterior_predictive={"y": jnp.zeros((CHAINS * DRAWS, 4))})
    assert elsewhere["posterior_predictive"]["y"].dims == ("chain", "draw", "y_dim_0")


def test_warmup_is_kept_on_request(tmp_path):
    mcmc = MCMC(quick(model), num_warmup=5, num_samples=DRAWS, num_chains=2, progress_bar=False)
    fields = ("accept_prob", "potential_energy")
    mcmc.warmup(jax.random.key(0), Y, collect_warmup=True, extra_fields=fields)
    warmup = mcmc.get_samples(group_by_chain=True)
    stats = mcmc.get_extra_fields(group_by_chain=True)
    # Draws of warmup are none of the posterior.
    with pytest.raises(ValueError, match="as warmup_posterior"):
        to_inference_data(mcmc)
    mcmc.run(jax.random.key(1), Y)
    result = to_inference_data(mcmc, warmup_posterior=warmup, warmup_sample_stats=stats)
    result.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    again = az.from_netcdf(tmp_path / "run.nc", engine="h5netcdf")
    for data in (result, again):
        np.testing.assert_array_equal(data["warmup_posterior"]["x"], warmup["x"])
        of_warmup = data["warmup_sample_stats"]
        np.testing.assert_array_equal(of_warmup["lp"], -stats["potential_energy"])
        np.testing.assert_array_equal(of_warmup["acceptance_rate"], stats["accept_prob"])
        assert data["posterior"].sizes["draw"] == DRAWS
    again.close()
    with pytest.raises(ValueError, match="has 2 chains: take .* group_by_chain=True"):
        to_inference_data(mcmc, warmup_posterior=mcmc.get_samples())


@pytest.mark.slow
def test_more_chains_than_draws_are_no_cause_for_warnings():
    kernel = quick(potential_fn=half_square)
    mcmc = run(kernel, draws=2, chains=5, extra_fields=(), init_params=jnp.zeros(5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert to_inference_data(mcmc)["posterior"].sizes["chain"] == 5


def test_errors_say_what_to_do(mcmc):
    with pytest.raises(TypeError, match="numpyro.infer.MCMC that has run, got dict"):
        to_inference_data(mcmc.get_samples())
    kernel = quick(potential_fn=half_square)
    fresh = MCMC(kernel, num_warmup=3, num_samples=3, progress_bar=False)
    with pytest.raises(ValueError, match="no draws yet: call mcmc.run"):
        to_inference_data(fresh)
    fresh.warmup(jax.random.key(0), init_params=jnp.ones(1))
    with pytest.raises(ValueError, match="warmup only: call mcmc.run"):
        to_inference_data(fresh)
    with pytest.raises(ValueError, match=r"\['y'\] has shape \(7, 3\).*2 chains of 6 .* be 12"):
        to_inference_data(mcmc, posterior_predictive={"y": jnp.zeros((7, 3))})
    with pytest.raises(ValueError, match=r"names 1 dimensions, \['row'\].* shape \(2, 3\)"):
        to_inference_data(mcmc, dims={"x": ["row"]})
    with pytest.raises(ValueError, match=r"coords\['x_dim_1'\] has 2 values .* of size 3"):
        to_inference_data(mcmc, coords={"x_dim_1": ["a", "b"]})
    with pytest.raises(ValueError, match=r"prior\['scale'\] is a single number"):
        to_inference_data(mcmc, prior={"scale": 1.0})
    with pytest.raises(ValueError, match="would be called a.b: rename"):
        to_inference_data(mcmc, prior={"a/b": jnp.ones(3), "a.b": jnp.ones(3)})
