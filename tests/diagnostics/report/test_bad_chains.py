# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Chains that cannot be trusted are named when a run goes to ArviZ."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import HMC, MCMC

import numpyro_scores as ns
from numpyro_scores.diagnostics.report.bad_chains import bad_chains

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)


def quartic(x):
    return jnp.sum(x**4) / 4


def walled(x):
    return jnp.where(x > 0, x**2 / 2, jnp.nan)


def run(kernel, init_params=None, *, draws=12, chains=2):
    mcmc = MCMC(
        kernel,
        num_warmup=0,
        num_samples=draws,
        num_chains=chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(0), init_params=init_params)
    return mcmc


def messages(mcmc):
    """What it warns of, all in one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ns.to_inference_data(mcmc)
    assert all(warning.filename == __file__ for warning in caught)
    return [str(warning.message) for warning in caught]


def test_chains_with_non_finite_draws_are_named():
    def model():
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.deterministic("ratio", x[0] / x[1])
        numpyro.sample("y", dist.Normal(x.sum(), jnp.exp(x[0])), obs=0.0)

    mcmc = run(HMC(model, step_size=0.1, trajectory_length=None, num_steps=1), draws=6)
    mcmc._states["z"]["x"] = mcmc._states["z"]["x"].at[0, :4, 0].set(jnp.nan)
    mcmc._states["z"]["ratio"] = jnp.zeros((2, 6)).at[1, 0].set(jnp.inf)
    message = r"not finite: chain 0 \(4 of 6\), chain 1 \(1 of 6\), at the sites ratio, x\."
    with pytest.warns(UserWarning, match=message) as caught:
        result = ns.to_inference_data(mcmc)
    assert caught[0].filename == __file__
    assert float(result["observed_data"]["y"]) == 0.0


def test_a_chain_whose_steps_were_not_made_is_diverging_and_stuck():
    kernel = ns.ULA(potential_fn=quartic, step_size=0.05, num_steps=5)
    diverging, stuck = messages(run(kernel, jnp.array([0.0, 100.0, 0.5]), chains=3))
    assert diverging.startswith("Diverging draws: chain 1 (12 of 12). Under Langevin kernels steps")
    assert "HMC" not in diverging
    assert stuck.startswith("Stuck, with all draws at one point: chain 1 (12 of 12). Try a smaller")


@pytest.mark.slow
def test_rejections_at_a_wall_are_no_reason_to_drop_draws():
    """Of MALA: `diverging` counts the draws with a proposal beyond the wall."""
    mcmc = run(
        ns.MALA(potential_fn=walled, step_size=0.5, num_steps=2), jnp.array([0.5, 1.5]), draws=50
    )
    counts = np.sum(mcmc.get_extra_fields(group_by_chain=True)["diverging"], axis=1)
    assert np.all(0 < counts) and np.all(counts < 50)
    (message,) = messages(mcmc)
    named = f"chain 0 ({counts[0]} of 50), chain 1 ({counts[1]} of 50)"
    assert message.startswith(f"Diverging draws: {named}. Under Langevin kernels")
    assert "MALA, MALT) only rejected such proposals" in message


def test_a_divergence_of_numpyros_own_is_an_energy_error():
    kernel = HMC(potential_fn=quartic, step_size=0.3, trajectory_length=None, num_steps=3)
    diverging, stuck = messages(run(kernel, jnp.array([0.1, 50.0])))
    assert diverging.startswith(
        "Diverging draws: chain 1 (12 of 12). Under HMC and NUTS the energy"
    )
    assert "raise target_accept_prob" in diverging and "Langevin" not in diverging
    assert "chain 1 (12 of 12)" in stuck


def test_blocks_of_a_composite_kernel_are_looked_at():
    fields = {
        f"block_states.{i}.diverging": np.eye(2, 20, k=k, dtype=bool) for i, k in [(0, 0), (2, 3)]
    }
    posterior = {"x": RNG.normal(size=(2, 20, 3))}
    (message,) = bad_chains(posterior, fields, object())
    assert message.startswith("Diverging draws: chain 0 (2 of 20), chain 1 (2 of 20). Under HMC")
    assert "Under Langevin kernels" in message


def test_a_chain_is_stuck_only_if_nothing_in_it_moves():
    moving, still = RNG.normal(size=(20, 3)), np.ones((20, 3))

    def named(*chains, **sites):
        return list(bad_chains({"x": np.stack(chains), **sites}, {}, object()))

    (message,) = named(moving, still, still)
    assert "chain 1 (20 of 20), chain 2 (20 of 20)." in message
    # A site that is constant, one entry, one draw of many, few draws, no numbers.
    assert not named(moving, constant=np.ones((1, 20)))
    assert not named(np.where(np.eye(20, 3, k=-19) == 1, 2.0, still))
    assert not named(still[:9])
    assert "Stuck" not in " ".join(named(np.nan * still))
    assert named(still[:10])
    assert not named(moving, moving, diverging=np.ones((2, 20)))
