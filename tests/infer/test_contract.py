# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every kernel promises as a kernel of `numpyro.infer.MCMC`, parametrised once."""

import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from jax.flatten_util import ravel_pytree
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
    "AnnealedLangevin": partial(ns.AnnealedLangevin, num_steps=1, num_levels=3),
    "ReplicaExchange": replica_exchange,
    "MomentMatching": partial(ns.MomentMatching, sampler=ns.Heun(3), num_steps=1),
    "SplitGibbs": partial(ns.SplitGibbs, coupling=0.5, sampler=ns.Ancestral(2), num_steps=1),
}
OF_NOISE_LEVELS = ("AnnealedLangevin", "MomentMatching", "SplitGibbs")
TARGETS = {name: {"model": MODEL, "potential_fn": potential_fn} for name in KERNELS}
TARGETS |= dict.fromkeys(OF_NOISE_LEVELS, {"model": partial(model_with, PRIOR)})
# UnderdampedLangevin, MALT and MAMS are wired as ULA and MALA, MomentMatching and SplitGibbs nearly as
# AnnealedLangevin (and DiffusionPosteriorSampling and DAPS as these); ReplicaExchange has tests of
# its own.
MODELS = [
    (name, "model")
    if name in ("ULA", "MALA", "AnnealedLangevin")
    else pytest.param((name, "model"), marks=pytest.mark.slow)
    for name in KERNELS
]
CASES = [*MODELS, ("MALA", "potential_fn")]


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


def make(case, chain_method="vectorized", **settings):
    settings = {"num_warmup": NUM_WARMUP, "num_samples": NUM_SAMPLES, **settings}
    return MCMC(make_kernel(case), num_chains=NUM_CHAINS, chain_method=chain_method, **settings)


def run(mcmc, key=None, y=Y):
    """Run with the data or, if there is no model, with a start; the draws by chain."""
    key = random.key(0) if key is None else key
    if mcmc.sampler.model is not None:
        mcmc.run(key, y, extra_fields=FIELDS)
    else:
        start = {"x": jnp.ones((NUM_CHAINS, 3)), "scale": jnp.zeros(NUM_CHAINS)}
        mcmc.run(key, init_params=start, extra_fields=FIELDS)
    return mcmc.get_samples(group_by_chain=True)


def assert_equal(draws, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), draws, expected
    )


def ran(mcmc):
    return mcmc, run(mcmc), mcmc.get_extra_fields(group_by_chain=True)


@pytest.fixture(scope="module")
def vectorized(case):
    """Two vectorized chains, their draws and fields: what others compare with."""
    # With a progress bar a second run of the same object does not compile again.
    return ran(make(case, progress_bar=True))


@pytest.fixture(scope="module")
def sequential(case):
    """The same two chains one by one, in a program that takes the data as arguments."""
    return ran(make(case, "sequential", progress_bar=True, jit_model_args=True))


def test_draws_are_constrained_and_fields_are_collected(case, vectorized):
    name, target = case
    _, draws, fields = vectorized
    assert draws["x"].shape == (NUM_CHAINS, NUM_SAMPLES, 3)
    assert set(fields) == {"diverging", *FIELDS}
    np.testing.assert_array_equal(fields["diverging"], False)
    if name in OF_NOISE_LEVELS:
        assert np.all(fields["num_grad_evals"] >= 6)
    else:
        np.testing.assert_array_equal(fields["num_grad_evals"], 2)
    if target == "model":
        np.testing.assert_allclose(draws["scale"], np.exp(fields["z.scale"]), rtol=1e-12)
        np.testing.assert_allclose(draws["norm"], np.linalg.norm(draws["x"], axis=-1), rtol=1e-12)
    assert np.all(draws["x"][0] != draws["x"][1])
    assert np.any(np.diff(draws["x"], axis=1) != 0)


def test_chains_are_the_same_one_by_one(case, vectorized, sequential, capfd):
    _, expected, expected_fields = vectorized
    mcmc, draws, fields = sequential
    assert_equal(draws, expected)
    assert_equal(fields, expected_fields)
    capfd.readouterr()
    run(mcmc)
    printed = capfd.readouterr().err
    assert printed.count("sample: 100%") == NUM_CHAINS
    assert ("step size" in printed) == (case[0] not in (*OF_NOISE_LEVELS, "ReplicaExchange"))
    assert ("smallest swap prob=" in printed) == (case[0] == "ReplicaExchange")
    assert ("acc. prob=" in printed) == (case[0] in ("MALA", "MALT"))


@pytest.mark.parametrize("chain_method", ["parallel", jax.vmap], ids=["parallel", "vmap"])
def test_chains_are_the_same_in_parallel_or_mapped(case, vectorized, chain_method):
    if chain_method == "parallel" and jax.local_device_count() < NUM_CHAINS:
        pytest.skip("needs a device for each chain")
    _, expected, fields = vectorized
    mcmc = make(case, chain_method, progress_bar=False)
    assert_equal(run(mcmc), expected)
    assert_equal(mcmc.get_extra_fields(group_by_chain=True), fields)


@of_a_model
def test_new_data_of_the_same_shape_compile_no_loop(case, sequential):
    mcmc, expected, _ = sequential
    TRACES.clear()
    mcmc.sampler.init(random.key(0), NUM_WARMUP, None, (Y,), {})
    of_init = sum(TRACES)  # anew each time: a model may read data that have changed
    TRACES.clear()
    other = run(mcmc, y=-Y)
    again = run(mcmc)
    assert sum(TRACES) == 2 * NUM_CHAINS * of_init
    assert np.any(np.abs(other["x"] - expected["x"]) > 1e-3)
    jax.tree.map(np.testing.assert_array_equal, again, expected)


def test_a_key_decides_the_draws(vectorized):
    mcmc, expected, _ = vectorized
    mcmc.post_warmup_state = None
    jax.tree.map(np.testing.assert_array_equal, run(mcmc), expected)
    assert np.all(run(mcmc, random.key(1))["x"] != expected["x"])


@of_a_model
def test_warmup_then_run_is_one_run(case, vectorized):
    mcmc, expected, _ = vectorized
    mcmc.warmup(random.key(0), Y, extra_fields=FIELDS)
    assert_equal(run(mcmc, mcmc.post_warmup_state.rng_key), expected)


@of_a_model
def test_a_resumed_run_goes_on_where_it_stopped_and_thinning_keeps_every_second(case, vectorized):
    mcmc, first, _ = vectorized
    mcmc.post_warmup_state = None
    run(mcmc)
    mcmc.post_warmup_state = mcmc.last_state
    TRACES.clear()
    second = run(mcmc, mcmc.last_state.rng_key)
    assert not any(TRACES)
    both = jax.tree.map(lambda a, b: np.concatenate([a, b], axis=1), first, second)
    thinned = run(make(case, num_samples=2 * NUM_SAMPLES, thinning=2, progress_bar=False))
    assert_equal(thinned, jax.tree.map(lambda a: a[:, 1::2], both))


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
def test_arviz_reads_it(case, vectorized):
    mcmc, draws, _ = vectorized
    mcmc.post_warmup_state = None
    run(mcmc)
    data = ns.to_inference_data(mcmc)
    for site in ("x", "scale", "norm"):
        np.testing.assert_allclose(data["posterior"][site].values, draws[site], rtol=1e-6)
    assert {"diverging", "num_grad_evals"} <= set(data["sample_stats"].data_vars)
    np.testing.assert_array_equal(data["observed_data"]["y"].values, Y)


@of_a_model
def test_pickled_before_and_after_a_run(case, vectorized):
    mcmc, _, _ = vectorized
    fresh = pickle.loads(pickle.dumps(make_kernel(case)))
    again = pickle.loads(pickle.dumps(mcmc))
    draws = mcmc.get_samples(group_by_chain=True)
    assert_equal(again.get_samples(group_by_chain=True), draws)
    assert again.sampler._sample_fn is None  # so that a copy that resumes begins with `init`
    starts = [
        ravel_pytree(kernel.init(random.key(1), 0, None, (Y,), {}).z)[0]
        for kernel in (make_kernel(case), fresh, again.sampler)
    ]
    np.testing.assert_array_equal(starts[1:], starts[:1] * 2)
