# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Every latent site arrives in ArviZ under its own name, with its own dimensions."""

from typing import NamedTuple

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from diagnostics.helpers import CHAINS, Y, group_names, half_square, model, quick, run
from numpyro.contrib.control_flow import scan

from numpyro_scores.diagnostics import to_inference_data

# So short a warmup may leave steps that are too large.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Diverging draws"),
    pytest.mark.usefixtures("quick_compilation"),
]


def test_plates_and_event_dims_name_dimensions():
    def model(y):
        with numpyro.plate("outer", 2, dim=-2), numpyro.plate("inner", 3):
            x = numpyro.sample(
                "x",
                dist.Normal(0.0, 1.0).expand([4]).to_event(1),
                infer={"event_dims": ["feature"]},
            )
            numpyro.deterministic("total", x.sum(axis=-1))
            numpyro.deterministic("constant", jnp.ones(()))
        with numpyro.plate("lone", 2, dim=-2):
            numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(x.sum(), 1.0), obs=y)

    posterior = to_inference_data(run(quick(model), 0.5, extra_fields=()))["posterior"]
    dims = {name: values.dims[2:] for name, values in posterior.data_vars.items()}
    assert dims == {
        "x": ("outer", "inner", "feature"),
        "total": ("outer", "inner"),
        "constant": (),
        "z": ("lone", "z_dim_1"),
    }


@pytest.mark.slow
def test_a_prior_that_cannot_draw_is_not_asked_to():
    class Unsampled(dist.Normal):
        def sample(self, key, sample_shape=()):
            raise RuntimeError("cannot draw")

    def model(y):
        x = numpyro.sample("x", Unsampled(0.0, 1.0))
        # Positive only at draws of x, and the observation is scaled by it to show which.
        numpyro.sample("y", dist.Normal(x, 1.0), obs=y + 0.0 * x)
        numpyro.factor("weight", -(x**2))

    mcmc = run(quick(model), 0.5, extra_fields=(), init_params={"x": jnp.zeros(CHAINS)})
    observed = to_inference_data(mcmc)["observed_data"]
    assert set(observed.data_vars) == {"y"}
    assert float(observed["y"]) == 0.5


def test_excluded_sites_are_drawn_from_the_prior():
    mcmc = run(quick(model), Y, extra_fields=("~z.x",))
    result = to_inference_data(mcmc)
    assert set(result["posterior"].data_vars) == {"scale"}
    np.testing.assert_array_equal(result["observed_data"]["y"], Y)
    mcmc._states["z"] = {}
    with pytest.raises(ValueError, match="collected no site"):
        to_inference_data(mcmc)


class Point(NamedTuple):
    q: jax.Array
    r: jax.Array


@pytest.mark.parametrize(
    "start, names",
    [
        (jnp.zeros(2), {"x": lambda z: z}),
        ([jnp.zeros(()), jnp.zeros(2)], {"x.0": lambda z: z[0], "x.1": lambda z: z[1]}),
        (Point(jnp.zeros(()), jnp.zeros(2)), {"q": lambda z: z.q, "r": lambda z: z.r}),
        ({"a": {"b": jnp.zeros(2)}}, {"a.b": lambda z: z["a"]["b"]}),
    ],
    ids=["array", "list", "namedtuple", "nested"],
)
def test_potential_fn_kernels_name_leaves_by_path(start, names):
    mcmc = run(quick(potential_fn=half_square), chains=1, init_params=start)
    result = to_inference_data(mcmc)
    assert group_names(result) == {"posterior", "sample_stats"}
    assert set(result["posterior"].data_vars) == set(names)
    samples = mcmc.get_samples(group_by_chain=True)
    for name, get in names.items():
        np.testing.assert_array_equal(result["posterior"][name], get(samples))


def test_scoped_names_survive_netcdf(tmp_path):
    scoped = numpyro.handlers.scope(model, prefix="one")
    mcmc = run(quick(scoped), Y, extra_fields=())
    result = to_inference_data(mcmc)
    samples = mcmc.get_samples(group_by_chain=True)
    np.testing.assert_array_equal(result["posterior"]["one.x"], samples["one/x"])
    np.testing.assert_array_equal(result["observed_data"]["one.y"], Y)
    result.to_netcdf(tmp_path / "scoped.nc", engine="h5netcdf")


def test_a_site_within_a_scan_arrives_with_its_axis():
    def series(y):
        def step(x, y_t):
            x = numpyro.sample("x", dist.Normal(0.9 * x, 0.7))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=y_t)
            return x, None

        scan(step, jnp.zeros(()), y)
        numpyro.prng_key()

    mcmc = run(quick(series), Y, extra_fields=())
    data = to_inference_data(mcmc, log_likelihood=True)
    samples = mcmc.get_samples(group_by_chain=True)["x"]
    np.testing.assert_array_equal(data["posterior"]["x"], samples)
    np.testing.assert_array_equal(data["observed_data"]["y"], Y)
    # The data of each step are judged by the state of that step.
    exact = scipy.stats.norm.logpdf(Y, np.asarray(samples), 0.5)
    np.testing.assert_allclose(data["log_likelihood"]["y"], exact, rtol=1e-4)


def awkward(y):
    chain = numpyro.sample("chain", dist.Normal(0, 1))
    draw = numpyro.sample("draw", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1))
    numpyro.sample("x_dim_0", dist.Normal(0, 1))
    numpyro.deterministic("is_positive", draw > 0)
    numpyro.sample("y", dist.Normal(chain, 1.0), obs=y)


@pytest.mark.filterwarnings("ignore:Site .* is called")
def test_sites_called_as_axes_arrive_under_another_name(tmp_path):
    mcmc = run(quick(awkward), 0.5, extra_fields=())
    with pytest.warns(UserWarning, match="Site 'chain' is called 'chain_' in ArviZ"):
        data = to_inference_data(mcmc, dims={"chain": [], "draw": ["two"]})
    samples = mcmc.get_samples(group_by_chain=True)
    posterior = data["posterior"]
    np.testing.assert_array_equal(posterior["chain_"], samples["chain"])
    np.testing.assert_array_equal(posterior["draw_"], samples["draw"])
    assert posterior["draw_"].dims == ("chain", "draw", "two")
    assert posterior["x"].dims == ("chain", "draw", "x_dim_0_")
    np.testing.assert_array_equal(posterior["x_dim_0"], samples["x_dim_0"])
    np.testing.assert_array_equal(posterior["is_positive"], samples["is_positive"])
    assert posterior["is_positive"].dtype == np.int32
    assert len(az.summary(data)) == 8
    data.to_netcdf(tmp_path / "run.nc", engine="h5netcdf")


def test_dims_are_of_variables_that_there_are():
    mcmc = run(quick(numpyro.handlers.scope(model, prefix="one")), Y, extra_fields=())
    for key in ("one/x", "one.x"):
        data = to_inference_data(mcmc, dims={key: ["row", "column"]})
        assert data["posterior"]["one.x"].dims == ("chain", "draw", "row", "column")
    with pytest.raises(ValueError, match=r"names 'x', but no variable .* 'one.scale', 'one.x'"):
        to_inference_data(mcmc, dims={"x": ["row", "column"]})
    with pytest.raises(ValueError, match=r"a sequence of names: \['row'\]"):
        to_inference_data(mcmc, dims={"one.y": "row"})
    with pytest.raises(ValueError, match=r"names \['draw'\], which variables or the axes"):
        to_inference_data(mcmc, dims={"one.x": ["draw", "column"]})
