# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
What every kernel promises as one of `numpyro.infer.MCMC`: `check_kernel` of
`numpyro_scores.testing`, and what ours say beside.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns

Y = jnp.array([0.5, -1.0, 2.0])
NUM_CHAINS, NUM_WARMUP, NUM_SAMPLES = 2, 3, 4
FIELDS = ("num_grad_evals", "z.scale")
TRACES = []  # of the models: whether the data were a tracer


def denoiser(x, sigma):
    return x / (1 + sigma**2)


def model_with(prior, y):
    TRACES.append(isinstance(y, jax.core.Tracer))
    x = numpyro.sample("x", prior)
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.deterministic("norm", jnp.linalg.norm(x))
    numpyro.sample("y", dist.Normal(x, 0.5 + scale).to_event(1), obs=y)


def potential_fn(z):
    x, scale = z["x"], z["scale"]
    return jnp.sum(x**2) / 2 + jnp.sum((x - Y) ** 2) * jnp.exp(-scale) + scale**2


MODEL = partial(model_with, dist.Normal(0.0, 1.0).expand([3]).to_event(1))


def replica_exchange(model):
    return ns.ReplicaExchange(
        ns.MALA(model, num_steps=1), ns.LikelihoodPowers([1.0, 0.3]), adapt_ladder=True
    )


PRIOR = ns.DiffusionPrior(denoiser, ns.VarianceExploding(0.1, 5.0), 3)
KERNELS = {
    "ULA": partial(ns.ULA, num_steps=2),
    # With a memory, a metric, and a step that is measured in warmup.
    "UnderdampedLangevin": partial(ns.UnderdampedLangevin, num_steps=2, adapt_mass_matrix=True),
    "MALA": partial(ns.MALA, num_steps=2),
    "MALT": partial(ns.MALT, num_steps=2),
    "MAMS": partial(ns.MAMS, max_num_steps=2),
    "MCLMC": partial(ns.MCLMC, num_steps=1),
    "AnnealedLangevin": partial(ns.AnnealedLangevin, num_steps=1, num_levels=3),
    "ReplicaExchange": replica_exchange,
    "MomentMatching": partial(ns.MomentMatching, sampler=ns.Heun(3), num_steps=1),
    "SplitGibbs": partial(ns.SplitGibbs, coupling=0.5, sampler=ns.Ancestral(2), num_steps=1),
}
OF_NOISE_LEVELS = ("AnnealedLangevin", "MomentMatching", "SplitGibbs")
TARGETS = {name: {"model": MODEL, "potential_fn": potential_fn} for name in KERNELS}
TARGETS |= dict.fromkeys(OF_NOISE_LEVELS, {"model": partial(model_with, PRIOR)})
# UnderdampedLangevin, MALT, MAMS and MCLMC are wired as ULA and MALA, MomentMatching and SplitGibbs
# nearly as AnnealedLangevin (and DiffusionPosteriorSampling and DAPS as these); ReplicaExchange has
# tests of its own.
MODELS = [
    (name, "model")
    if name in ("ULA", "AnnealedLangevin")
    else pytest.param((name, "model"), marks=pytest.mark.slow)
    for name in KERNELS
]
CASES = [*MODELS, ("MALA", "potential_fn")]
# All methods map chains in the same way: each of them once here, all of them in `make test-slow`
# for the kernels that are wired alike.
CHAIN_METHODS = {
    ("ULA", "model"): ["parallel", jax.vmap],
    ("MALA", "potential_fn"): ["sequential"],
    ("AnnealedLangevin", "model"): [],
}
ALL_METHODS = ["sequential", "parallel", jax.vmap]


# In float64 all ways to run a chain agree.
pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def progress_bars():
    """With `CI`, or under pytest-xdist, NumPyro would show none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CI", raising=False)
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        yield


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    """A kernel and what it is built from; pytest runs the tests of one case together."""
    return request.param


of_a_model = pytest.mark.parametrize("case", MODELS, ids="-".join, indirect=True, scope="module")


def make_kernel(case):
    name, target = case
    return KERNELS[name](**{target: TARGETS[name][target]})


def assert_equal(draws, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), draws, expected
    )


@pytest.fixture(scope="module")
def vectorized(case):
    """Two vectorized chains that keep the contract, their draws and fields."""
    of_a_model = case[1] == "model"
    mcmc = ns.testing.check_kernel(
        partial(make_kernel, case),
        *([Y] if of_a_model else []),
        key=random.key(0),
        init_params=None if of_a_model else {"x": jnp.ones(3), "scale": jnp.zeros(())},
        extra_fields=FIELDS,
        chain_methods=CHAIN_METHODS.get(case, ALL_METHODS),
        num_chains=NUM_CHAINS,
        num_warmup=NUM_WARMUP,
        num_samples=NUM_SAMPLES,
    )
    return mcmc, mcmc.get_samples(True), mcmc.get_extra_fields(True)


def test_draws_are_constrained_and_fields_are_collected(case, vectorized):
    name, target = case
    _, draws, fields = vectorized
    assert draws["x"].shape == (NUM_CHAINS, NUM_SAMPLES, 3)
    assert set(fields) == {"diverging", *FIELDS}
    np.testing.assert_array_equal(fields["diverging"], False)
    if name in OF_NOISE_LEVELS:
        assert np.all(fields["num_grad_evals"] >= 6)
    elif name == "MAMS":
        assert set(np.unique(fields["num_grad_evals"])) <= {1, 2, 3}
    else:
        np.testing.assert_array_equal(fields["num_grad_evals"], 2)
    if target == "model":
        np.testing.assert_allclose(draws["scale"], np.exp(fields["z.scale"]), rtol=1e-12)
        np.testing.assert_allclose(draws["norm"], np.linalg.norm(draws["x"], axis=-1), rtol=1e-12)
    assert np.all(draws["x"][0] != draws["x"][1])
    assert np.any(np.diff(draws["x"], axis=1) != 0)


@of_a_model
def test_new_data_of_the_same_shape_compile_no_loop(case, vectorized, capfd):
    """And the progress bar says what the kernel does."""
    mcmc = MCMC(
        make_kernel(case),
        num_warmup=NUM_WARMUP,
        num_samples=NUM_SAMPLES,
        num_chains=NUM_CHAINS,
        chain_method="sequential",
        jit_model_args=True,
    )

    def run(y):
        mcmc.run(random.key(0), y, extra_fields=FIELDS)
        return mcmc.get_samples(group_by_chain=True)

    first = run(Y)
    assert_equal(first, vectorized[1])
    TRACES.clear()
    mcmc.sampler.init(random.key(0), NUM_WARMUP, None, (Y,), {})
    of_init = sum(TRACES)  # anew each time: a model may read data that have changed
    TRACES.clear()
    capfd.readouterr()
    other = run(-Y)
    printed = capfd.readouterr().err
    again = run(Y)
    assert sum(TRACES) == 2 * NUM_CHAINS * of_init
    assert np.any(np.abs(other["x"] - first["x"]) > 1e-3)
    jax.tree.map(np.testing.assert_array_equal, again, first)
    assert printed.count("sample: 100%") == NUM_CHAINS
    assert ("step size" in printed) == (case[0] not in (*OF_NOISE_LEVELS, "ReplicaExchange"))
    assert ("smallest swap prob=" in printed) == (case[0] == "ReplicaExchange")
    assert ("acc. prob=" in printed) == (case[0] in ("MALA", "MALT", "MAMS"))


@of_a_model
def test_init_params_are_where_a_chain_starts(case):
    kernel = make_kernel(case)
    z = {"x": jnp.array([1.0, 2.0, 3.0]), "scale": jnp.array(-0.5)}
    state = kernel.init(random.key(0), 0, z, (Y,), {})
    assert_equal(state.z, z)
    constrained = {"x": z["x"], "scale": np.exp(-0.5), "norm": np.sqrt(14.0)}
    assert_equal(kernel.postprocess_fn((Y,), {})(state.z), constrained)
    both = jax.tree.map(lambda a: jnp.stack([a, a + 1]), z)
    assert_equal(kernel.init(random.split(random.key(0)), 0, both, (Y,), {}).z, both)


@of_a_model
def test_arviz_reads_it(vectorized):
    mcmc, draws, _ = vectorized
    data = ns.to_inference_data(mcmc)
    for site in ("x", "scale", "norm"):
        np.testing.assert_allclose(data["posterior"][site].values, draws[site], rtol=1e-6)
    assert {"diverging", "num_grad_evals"} <= set(data["sample_stats"].data_vars)
    np.testing.assert_array_equal(data["observed_data"]["y"].values, Y)
