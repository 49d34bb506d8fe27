# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The log likelihood of each datum at each draw, and leave-one-out by it against a closed form."""

import arviz as az
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from diagnostics.helpers import group_names, half_square, quick, run

import numpyro_scores as ns
from numpyro_scores.diagnostics import to_inference_data

pytestmark = [
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore:Diverging draws"),
]

Y = np.array([0.3, 1.9, 1.2, 0.7, -0.4, 2.2], np.float32)
SD, PRIOR = 0.8, 1.5


def squares(x):
    return jnp.sum(x**2) / (2 * PRIOR**2)


def model(y):
    # Known up to a constant, which cancels.
    mu = numpyro.sample("mu", ns.EnergyDistribution(squares, ()))
    with numpyro.plate("datum", len(y)):
        numpyro.sample("y", dist.Normal(mu, SD), obs=y)
    numpyro.factor("nothing", 0.0 * mu)


def test_leave_one_out_is_that_of_the_conjugate_model():
    mcmc = run(ns.MALA(model, num_steps=10), Y, draws=1_000, extra_fields=())
    data = to_inference_data(mcmc, log_likelihood=True)
    found = data["log_likelihood"]
    assert set(found.data_vars) == {"y"} and found["y"].dims == ("chain", "draw", "datum")
    mu = mcmc.get_samples(group_by_chain=True)["mu"]
    exact = scipy.stats.norm.logpdf(Y, np.asarray(mu)[..., None], SD)
    np.testing.assert_allclose(found["y"], exact, rtol=1e-4, atol=1e-5)

    loo = az.loo(data, pointwise=True)
    of_each = []
    for i in range(len(Y)):
        variance = 1 / (1 / PRIOR**2 + (len(Y) - 1) / SD**2)
        mean = variance * np.delete(Y, i).sum() / SD**2
        of_each.append(scipy.stats.norm.logpdf(Y[i], mean, np.sqrt(variance + SD**2)))
    found = loo.loo_i if hasattr(loo, "loo_i") else loo.elpd_i  # ArviZ 0.x and 1.x
    # Monte Carlo: 0.02 with some 1,000 effective draws.
    np.testing.assert_allclose(found, of_each, atol=0.1)


def two_data(y, z):
    x = numpyro.sample("x", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(x, 1).expand([3]).to_event(1), obs=y)
    numpyro.sample("z", ns.EnergyDistribution(half_square, 2), obs=z)


def test_an_observed_site_without_a_normaliser_is_left_out_and_named():
    mcmc = run(quick(two_data), jnp.ones(3), jnp.ones(2), extra_fields=())
    assert "log_likelihood" not in group_names(to_inference_data(mcmc))
    with pytest.warns(UserWarning, match=r"observed sites \['z'\] have no log_likelihood"):
        data = to_inference_data(mcmc, log_likelihood=True)
    # One number for a vector that is observed as a whole.
    assert data["log_likelihood"]["y"].dims == ("chain", "draw")
    assert set(data["log_likelihood"].data_vars) == {"y"}


def test_what_has_no_log_likelihood_is_refused():
    def only_energy(z):
        numpyro.sample("x", dist.Normal(0, 1))
        numpyro.sample("z", ns.EnergyDistribution(half_square, 2), obs=z)

    mcmc = run(quick(only_energy), jnp.ones(2), extra_fields=())
    with pytest.raises(ValueError, match=r"of \['z'\] \['z'\] are known up to a constant"):
        to_inference_data(mcmc, log_likelihood=True)
    mcmc = run(quick(potential_fn=half_square), chains=1, init_params=jnp.zeros(2))
    with pytest.raises(ValueError, match="built from a potential_fn"):
        to_inference_data(mcmc, log_likelihood=True)
    mcmc = run(quick(two_data), jnp.ones(3), jnp.ones(2), extra_fields=("~z.x",))
    mcmc._states["z"] = {"another": np.zeros((2, 6))}
    with pytest.raises(ValueError, match=r"but \['x'\] were not collected"):
        to_inference_data(mcmc, log_likelihood=True)
