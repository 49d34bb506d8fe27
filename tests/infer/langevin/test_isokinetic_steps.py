# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Isokinetic steps: what a metric costs, a flat potential, and what MAMS and MCLMC cannot move."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import draw
from jax import random
from numpyro.infer import MCMC

import numpyro_scores as ns
from numpyro_scores.infer.langevin.isokinetic import isokinetic_step, set_out
from numpyro_scores.infer.langevin.targets import Target, init
from numpyro_scores.integrators import LEAPFROG, MINIMAL_NORM

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = random.key(0)
KERNELS = (ns.MAMS, ns.MCLMC)


@pytest.mark.parametrize("splitting", [LEAPFROG, MINIMAL_NORM], ids=["leapfrog", "minimal norm"])
def test_a_matrix_whitens_each_gradient_once(splitting):
    """Once there and once back for each gradient, of 2 d^2 operations each."""
    d = 400
    target = Target(lambda x: jnp.vdot(x, x) / 2)

    def two_steps(x, u, root):
        course = set_out(init(x, target), u, root)
        for _ in range(2):
            course, *_ = isokinetic_step(course, target, 0.1, root, splitting, False)
        return course.point.x, course.direction

    x = jnp.ones(d)
    flops = jax.jit(two_steps).lower(x, x, jnp.eye(d)).cost_analysis()["flops"]
    # And that of the start.
    products = 1 + 2 * 2 * len(splitting.moves)
    assert products <= flops / (2 * d**2) < products + 0.5
    assert set_out(init(x, target), x, x).slope is None


@pytest.mark.parametrize("kernel", KERNELS)
def test_in_a_flat_potential_the_way_is_straight(kernel):
    """A gradient of zero turns nothing: all is accepted, and the energy does not change."""
    length = "trajectory_length" if kernel is ns.MAMS else "decoherence_length"
    flat = kernel(potential_fn=lambda x: 0 * jnp.sum(x), step_size=0.5, **{length: 1e6})
    state = draw(flat, KEY, 3, jnp.zeros((3, 5)))
    steps = np.asarray(state.num_grad_evals) / (1 if kernel is ns.MAMS else 2)
    way = np.linalg.norm(state.z, axis=1)
    np.testing.assert_allclose(way, 0.5 * np.sqrt(5) * steps, rtol=1e-2)
    assert not np.any(state.diverging)
    if kernel is ns.MAMS:
        np.testing.assert_array_equal(state.accept_prob, 1)
    else:
        np.testing.assert_array_equal(state.energy_variance, 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_discrete_site_names_the_block_to_use(kernel):
    def model():
        numpyro.sample("x", dist.Normal().expand([2]))
        numpyro.sample("flag", dist.Bernoulli(0.5))

    mcmc = MCMC(kernel(model), num_warmup=1, num_samples=1, progress_bar=False)
    with pytest.raises(ValueError, match=r"(?s)flag.*Gibbs"):
        mcmc.run(KEY)
