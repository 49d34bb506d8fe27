# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The law of what a Metropolis kernel draws by a score: that of the density, although segments across
the gap between two modes are not resolved by the nodes of any rule here.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from infer.helpers import assert_no_rejection
from jax import random
from scipy import stats

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("quick_compilation")

WEIGHTS, MODES, SCALE = np.array([0.8, 0.2]), np.array([-1.5, 1.5]), 0.5
NUM_CHAINS = 20_000
FIXED = dict(adapt_step_size=False, adapt_mass_matrix=False)


def energy(x):
    return -jax.nn.logsumexp(jnp.log(WEIGHTS) - (x[0] - MODES) ** 2 / (2 * SCALE**2))


def distribution_function(x):
    return stats.norm.cdf((np.asarray(x)[..., None] - MODES) / SCALE) @ WEIGHTS


def two_modes():
    numpyro.sample("x", ns.ScoreDistribution(lambda x: -jax.grad(energy)(x), 1))


def exact_draws(n):
    rng = np.random.default_rng(0)
    return np.float32(rng.choice(MODES, (n, 1), p=WEIGHTS) + SCALE * rng.normal(size=(n, 1)))


def moved(kernel, num_draws):
    """Exact draws after some draws of the kernel, and the share of proposals that it refused."""
    z = {"x": exact_draws(NUM_CHAINS)}
    state = kernel.init(random.split(random.key(0), NUM_CHAINS), 0, z, (), {})

    @jax.jit
    def run(state):
        return jax.lax.fori_loop(0, num_draws, lambda _, s: kernel.sample(s, (), {}), state)

    state = run(state)
    # Each of which was independent of the others.
    crossed = np.mean(np.sign(state.z["x"]) != np.sign(z["x"]))
    return np.asarray(state.z["x"][:, 0], np.float64), crossed, state


def pvalues(x):
    left = distribution_function(0.0)
    error = np.sqrt(left * (1 - left) / len(x))
    return {
        "distribution": stats.kstest(x, distribution_function).pvalue,
        "share on the left": 2 * stats.norm.sf(abs(np.mean(x < 0) - left) / error),
    }


KERNELS = {
    "mala": lambda **rule: ns.MALA(two_modes, step_size=0.5, num_steps=60, **rule, **FIXED),
    "malt": lambda **rule: ns.MALT(two_modes, step_size=0.8, num_steps=4, **rule, **FIXED),
}
NUM_DRAWS = {"mala": 1, "malt": 25}


@pytest.mark.parametrize(
    "name, rule",
    [
        ("mala", {}),
        pytest.param(
            "mala", {"segment_integral": ns.SegmentIntegral(num_nodes=5)}, marks=pytest.mark.slow
        ),
        pytest.param(
            "mala", {"segment_integral": ns.SegmentIntegral(num_nodes=13)}, marks=pytest.mark.slow
        ),
        ("malt", {}),
    ],
)
def test_exact_draws_stay_exact(name, rule):
    x, crossed, state = moved(KERNELS[name](**rule), NUM_DRAWS[name])
    assert_no_rejection(pvalues(x))
    assert crossed > 0.01  # chains have gone from one mode to the other
    assert state.mean_unresolved.mean() > 0.01


def test_a_rule_that_does_not_know_its_error_changes_the_law():
    """Four nodes of Gauss: what this test has power for."""
    kernel = KERNELS["mala"](segment_integral=ns.LineIntegral(num_nodes=4))
    x, _, state = moved(kernel, 1)
    assert pvalues(x)["share on the left"] < 1e-12
    assert np.all(state.unresolved == 0)


def test_what_is_refused_is_counted_and_no_divergence():
    """Where the score is steep and turns, all is refused; where it is straight, nothing is."""
    kernel = ns.MALA(
        two_modes,
        step_size=0.5,
        num_steps=8,
        segment_integral=ns.SegmentIntegral(tolerance=1e-30),
        **FIXED,
    )
    state = kernel.init(random.key(0), 0, {"x": jnp.array([0.1])}, (), {})
    state = jax.jit(kernel.sample)(state, (), {})
    assert state.unresolved == state.mean_unresolved == 1 and state.accept_prob == 0
    assert not state.diverging
    assert kernel.get_diagnostics_str(state).endswith("unresolved=100%")

    def straight():
        numpyro.sample("x", ns.ScoreDistribution(jnp.negative, 1))

    kernel = ns.MALA(straight, step_size=0.5, num_steps=8, **FIXED)
    state = jax.jit(kernel.sample)(kernel.init(random.key(0), 0, None, (), {}), (), {})
    assert state.unresolved == 0 and state.accept_prob > 0.5
    assert "unresolved" not in kernel.get_diagnostics_str(state)
