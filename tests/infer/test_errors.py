# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Bad input is told in words."""

import warnings
from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

PRIOR = ns.DiffusionPrior(lambda x, sigma: x / (1 + sigma**2), ns.VarianceExploding(0.1, 5.0), 2)
KERNELS = [ns.ULA, ns.MALA, ns.MALT, ns.AnnealedLangevin]


def model(y=None):
    x = numpyro.sample("x", PRIOR)
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.Normal(x, scale).to_event(1), obs=y)


def plain_model():
    numpyro.sample("x", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("scale", dist.HalfNormal(1.0))


def energy(z):
    return jnp.sum(z**2) / 2


def run(kernel, *args, num_chains=1, **kwargs):
    mcmc = MCMC(
        kernel,
        num_warmup=0,
        num_samples=1,
        num_chains=num_chains,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(random.key(0), *args, **kwargs)
    return mcmc


# ---- what a kernel is made of ----


@pytest.mark.parametrize("kernel", [ns.ULA, ns.MALA, ns.MALT, ns.UnderdampedLangevin])
def test_a_model_or_a_potential_and_not_both(kernel):
    with pytest.raises(ValueError, match="either a model or a potential_fn, got neither"):
        kernel()
    with pytest.raises(ValueError, match="either a model or a potential_fn, got both"):
        kernel(plain_model, energy)
    with pytest.raises(TypeError, match="init_strategy must be one of NumPyro's.*got 'median'"):
        kernel(plain_model, init_strategy="median")


@pytest.mark.parametrize("kernel", [*KERNELS, ns.UnderdampedLangevin, ns.SKROCK])
@pytest.mark.parametrize("step_size", [0, -0.1, np.nan, np.inf, [0.1, 0.2], "0.1"])
def test_step_size(kernel, step_size):
    with pytest.raises(ValueError, match="step_size must be a finite positive number"):
        kernel(model, step_size=step_size)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("num_steps", [0, -1, 2.5, True])
def test_num_steps(kernel, num_steps):
    with pytest.raises(ValueError, match="num_steps must be a positive integer"):
        kernel(model, num_steps=num_steps)


@pytest.mark.parametrize("integrator", [ns.BAOAB(), ns.EulerMaruyama], ids=repr)
def test_an_integrator_that_is_not_overdamped(integrator):
    with pytest.raises(ValueError, match="overdamped one.*got .*use UnderdampedLangevin"):
        ns.OverdampedLangevin(model, integrator=integrator)


@pytest.mark.parametrize("integrator", [ns.EulerMaruyama(), ns.BAOAB, None], ids=repr)
def test_an_integrator_without_a_momentum(integrator):
    with pytest.raises(ValueError, match="with a momentum.*got .*use OverdampedLangevin"):
        ns.UnderdampedLangevin(model, integrator=integrator)


@pytest.mark.parametrize("integrator", [ns.BAOAB, None], ids=repr)
def test_what_is_no_integrator(integrator):
    with pytest.raises(ValueError, match=r"integrator must be one such as BAOAB\(\), got"):
        ns.AnnealedLangevin(model, integrator=integrator)


def test_friction():
    for friction in (0.0, -1.0, np.nan):
        for kernel in (ns.AnnealedLangevin, ns.UnderdampedLangevin, ns.MALT):
            with pytest.raises(ValueError, match="friction must be a finite positive number"):
                kernel(model, friction=friction)
    with pytest.raises(ValueError, match=r"EulerMaruyama\(\) has no friction, got friction=0.1"):
        ns.AnnealedLangevin(model, integrator=ns.EulerMaruyama(), friction=0.1)


ADAPTED = [ns.MALA, ns.MALT]


@pytest.mark.parametrize("kernel", ADAPTED)
@pytest.mark.parametrize("target", [0.0, 1.0, -0.5, np.nan])
def test_target_accept_prob(kernel, target):
    with pytest.raises(ValueError, match=r"target_accept_prob must be in \(0, 1\)"):
        kernel(model, target_accept_prob=target)


@pytest.mark.parametrize("kernel", ADAPTED)
@pytest.mark.parametrize("segment_integral", [4, None, ns.LineIntegral])
def test_segment_integral(kernel, segment_integral):
    with pytest.raises(
        ValueError, match="segment_integral must be a SegmentIntegral, such as .*got"
    ):
        kernel(model, segment_integral=segment_integral)


@pytest.mark.parametrize("kernel", ADAPTED)
@pytest.mark.parametrize(
    "matrix, dense_mass, message",
    [
        ([[1.0]], False, r"must have shape \(d,\), or a matrix with dense.*got shape \(1, 1\)"),
        ([1.0, 1.0], True, r"must have shape \(d, d\).*got shape \(2,\)"),
        ([[1.0, 0.5], [0.4, 1.0]], True, "must be symmetric"),
        ([[1.0, 2.0], [2.0, 1.0]], True, "must be positive.*got -1.0.* as its smallest eigenvalue"),
        ([1.0, 0.0], False, "must be positive.*got 0.0 as its smallest entry"),
        ([1.0, np.nan], False, "must be positive.*got nan"),
    ],
)
def test_inverse_mass_matrix(kernel, matrix, dense_mass, message):
    with pytest.raises(ValueError, match=f"inverse_mass_matrix {message}"):
        kernel(model, inverse_mass_matrix=matrix, dense_mass=dense_mass)


@pytest.mark.parametrize("kernel", ADAPTED)
def test_an_inverse_mass_matrix_for_another_model(kernel):
    kernel = kernel(plain_model, inverse_mass_matrix=np.ones(2))
    with pytest.raises(ValueError, match="is for 2 unconstrained numbers, but there are 3"):
        run(kernel)


@pytest.mark.parametrize("levels", [[1.0, 2.0], [2.0, 2.0], [1.0, 0.0], [1.0, -1.0], [np.inf, 1.0]])
def test_noise_levels_that_do_not_decrease(levels):
    with pytest.raises(ValueError, match="noise_levels must be .* strictly decreasing"):
        ns.AnnealedLangevin(model, noise_levels=levels)


@pytest.mark.parametrize("levels", [[], [[2.0, 1.0]]])
def test_noise_levels_of_another_shape(levels):
    with pytest.raises(ValueError, match="noise_levels must be a one-dimensional sequence"):
        ns.AnnealedLangevin(model, noise_levels=levels)


@pytest.mark.parametrize("levels", [[5.1, 1.0], [5.0, 0.01]])
def test_noise_levels_that_nobody_trained(levels):
    with pytest.raises(ValueError, match="processes only from 5.0 to 0.1: choose levels within"):
        run(ns.AnnealedLangevin(model, noise_levels=levels), jnp.ones(2))


def test_num_levels():
    with pytest.raises(ValueError, match="num_levels must be a positive integer"):
        ns.AnnealedLangevin(model, num_levels=0)
    for kernel in (ns.AnnealedLangevin, ns.DAPS):
        with pytest.raises(
            ValueError, match=r"at least 2.* got 1. For one .*noise_levels=\[sigma\]"
        ):
            kernel(model, num_levels=1)


def model_at_a_level(y):
    numpyro.sample("y", dist.Normal(numpyro.sample("x", PRIOR.at(1.0)), 1.0).to_event(1), obs=y)


@pytest.mark.parametrize(
    "kernel",
    [ns.AnnealedLangevin, ns.DAPS, ns.MomentMatching, partial(ns.SplitGibbs, coupling=2.0)],
)
def test_a_prior_whose_own_level_an_anneal_would_pass(kernel):
    message = "would draw 'x' at noise level 0.1, but its prior in the model is at 1. Write"
    with pytest.raises(ValueError, match=message):
        run(kernel(model_at_a_level), jnp.ones(2))


def test_an_anneal_may_end_at_the_level_of_its_prior():
    kernel = ns.AnnealedLangevin(model_at_a_level, noise_levels=[5.0, 1.0])
    kernel.init(random.key(0), 0, None, (jnp.ones(2),), {})


# ---- models and starts ----


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_discrete_site_names_the_block_to_use(kernel):
    def mixture():
        k = numpyro.sample("k", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(k, 1.0))

    with pytest.raises(ValueError, match=r"\['k'\] are discrete.*Gibbs\(\[\(DiscreteGibbs"):
        run(kernel(mixture))


def test_annealing_does_not_enumerate():
    def mixture():
        x = numpyro.sample("x", PRIOR)
        k = numpyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(x[0] + k, 1.0), obs=0.3)

    with pytest.raises(ValueError, match=r"\['k'\] are discrete.*Gibbs") as error:
        run(ns.AnnealedLangevin(mixture, num_levels=2, num_steps=1))
    assert "enumerate" not in str(error.value)


def test_annealing_needs_a_noise_conditional_prior():
    with pytest.raises(ValueError, match=r"\['scale', 'x'\] have none.*DiffusionPrior.*MALA"):
        run(ns.AnnealedLangevin(plain_model))


@pytest.mark.parametrize("kernel", [ns.ULA, ns.MALA])
def test_a_potential_needs_a_start(kernel):
    with pytest.raises(ValueError, match="pass init_params to MCMC.run, with a leading axis"):
        run(kernel(potential_fn=energy))


@pytest.mark.parametrize("kernel", [ns.MALA, ns.AnnealedLangevin])
@pytest.mark.parametrize(
    "init_params, message",
    [
        ({"x": np.zeros(2)}, r"latent sites \['scale', 'x'\], got \['x'\]"),
        ({"x": np.zeros(2), "scale": 0.0, "z": 0.0}, r"got \['scale', 'x', 'z'\]"),
        (
            {"x": np.zeros(3), "scale": 0.0},
            r"init_params\['x'\] must have shape \(2,\), got \(3,\)",
        ),
        ({"x": np.zeros((1, 2)), "scale": 0.0}, r"shape \(2,\), got \(1, 2\)"),
        (np.zeros(3), r"must be a dict of unconstrained values"),
    ],
)
def test_init_params_that_do_not_fit_the_model(kernel, init_params, message):
    target, args = (model, (jnp.ones(2),)) if kernel is ns.AnnealedLangevin else (plain_model, ())
    with pytest.raises(ValueError, match=message):
        kernel(target).init(random.key(0), 0, init_params, args, {})


def test_init_params_without_the_axis_of_the_chains():
    z = {"x": np.zeros((3, 2)), "scale": np.zeros(())}
    with pytest.raises(
        ValueError, match=r"init_params\['scale'\] must have shape \(3,\), got \(\)"
    ):
        ns.MALA(plain_model).init(random.split(random.key(0), 3), 0, z, (), {})


def logarithm(z):
    return jnp.log(z[0])  # its gradient, 1 / z, is finite where it is not


def root(z):
    return jnp.sqrt(z[0])  # finite at zero, where its gradient is not


@pytest.mark.parametrize("kernel", [ns.ULA, ns.MALA])
@pytest.mark.parametrize("potential_fn, z", [(logarithm, -1.0), (root, 0.0)])
def test_a_start_that_is_not_finite(kernel, potential_fn, z):
    with pytest.raises(ValueError, match="not finite at the start: start elsewhere"):
        run(kernel(potential_fn=potential_fn), init_params=jnp.array([z]))


@pytest.mark.parametrize("kernel", [ns.ULA, ns.MALA])
def test_the_chain_that_starts_badly_is_named(kernel):
    z = jnp.array([[1.0], [2.0], [-1.0]])
    with pytest.raises(ValueError, match=r"not finite at the start of chains \[2\]"):
        run(kernel(potential_fn=logarithm), num_chains=3, init_params=z)


@pytest.mark.parametrize("kernel", KERNELS)
def test_data_that_are_not_finite(kernel):
    # The second message is NumPyro's own, whose search for a start finds none.
    with (
        pytest.raises((ValueError, RuntimeError), match="not finite|Cannot find valid initial"),
        warnings.catch_warnings(action="ignore"),
    ):
        run(kernel(model), jnp.array([1.0, np.nan]))


@pytest.mark.parametrize("kernel", [ns.ULA, ns.MALA])
def test_a_potential_without_curvature_has_a_step_size(kernel):
    """The Hessian of |x| is zero wherever it exists."""
    kernel = kernel(potential_fn=lambda z: jnp.sum(jnp.abs(z)))
    state = kernel.init(random.key(0), 0, jnp.ones(2), (), {})
    state = kernel.sample(state, (), {})
    assert np.all(np.isfinite(state.z)) and np.any(state.z != 1.0)
