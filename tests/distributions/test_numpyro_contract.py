# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What every distribution promises to NumPyro: shapes, masks, plates, checks, draws."""

import warnings

import jax
import numpy as np
import numpyro
import pytest
from distributions.helpers import (
    CAN_DRAW,
    CANNOT_DRAW,
    DISCRETE,
    TOLERANCE,
    assert_close,
    continuous,
    diffusion,
    every,
    exact_score,
    log_prob,
    points,
)
from jax import random
from numpyro import handlers
from numpyro.infer.util import log_density

pytestmark = [
    pytest.mark.filterwarnings("error:Out-of-support"),
    pytest.mark.usefixtures("quick_compilation"),
]


@continuous
def test_a_mask_hides_points_and_their_gradients(make):
    d, x = make(), points(make)[0]
    mask = np.array([True, False, True])
    broken = x.copy()
    broken[1] = np.nan

    @jax.jit
    @jax.value_and_grad
    def total(x):
        return d.mask(mask).log_prob(x).sum()

    value, grad = total(broken)
    assert_close(value, log_prob(d, x)[mask].sum(), **TOLERANCE)
    expected = jax.jit(jax.vmap(lambda x: exact_score(d, x)))(x)
    assert_close(grad[mask], expected[mask], **TOLERANCE)
    assert not grad[~mask].any()


@every
def test_plates_in_a_model(make):
    d, points_ = make(), points(make)

    def model(scale):
        with numpyro.plate("rows", 2, dim=-2), numpyro.plate("columns", 6, 3, dim=-1):
            x = numpyro.sample("x", d)
        numpyro.sample("y", numpyro.distributions.Normal(x.sum(), scale), obs=1.0)

    seeded = handlers.seed(model, 0)
    value = jax.jit(lambda x: log_density(seeded, (2.0,), {}, {"x": x})[0])(points_)
    likelihood = -((1 - points_.sum()) ** 2) / 8 - np.log(2 * np.sqrt(2 * np.pi))
    # A subsample of three of six columns stands for all of them.
    assert_close(value, 2 * log_prob(d, points_).sum() + likelihood, **TOLERANCE)


@every
def test_a_model_is_drawn_as_a_graph(make):
    def model(d, y=None):
        with numpyro.plate("columns", 3):
            x = numpyro.sample("x", d)
        numpyro.sample("y", numpyro.distributions.Normal(x.sum(), 1.0), obs=y)

    if make in DISCRETE:  # NumPyro starts a continuous site that cannot be drawn by itself
        model = handlers.substitute(model, {"x": points(make)[0]})
    graph = numpyro.render_model(model, (make(), 1.0), render_distributions=True)
    assert "x -> y" in graph.source
    assert f"x ~ {type(make()).__name__}" in graph.source


@pytest.mark.parametrize("make", [*CANNOT_DRAW, diffusion, *DISCRETE])
def test_values_are_validated_on_request(make):
    # Only where nothing is traced can NumPyro look at the values.
    d, x = make(validate_args=True), points(make)[0, 0]
    outside = np.full(d.event_shape, np.nan if not d.is_discrete else 0.5, np.float32)
    with pytest.warns(UserWarning, match="Out-of-support values"):
        d.log_prob(outside)
    with warnings.catch_warnings(action="error"):
        assert_close(d.log_prob(x), log_prob(make(), x), **TOLERANCE)
        make(validate_args=False).log_prob(outside)


@every
def test_intermediates_are_accepted(make):
    d, x = make(), points(make)
    program = str(jax.make_jaxpr(d.log_prob)(x))
    assert str(jax.make_jaxpr(lambda x: d.log_prob(x, None))(x)) == program
    assert str(jax.make_jaxpr(lambda x: d.log_prob(x, intermediates=[]))(x)) == program


@every
def test_it_is_discrete_or_continuous_and_not_reparametrised(make):
    d = make()
    assert d.is_discrete == type(d).support.is_discrete == (make in DISCRETE)
    assert not d.has_rsample
    assert d.event_dim == d.support.event_dim == len(d.event_shape)
    assert d.support(d.support.feasible_like(points(make)[0, 0]))


@pytest.mark.parametrize("make", DISCRETE)
def test_a_discrete_one_that_cannot_draw_names_its_kernel(make):
    with pytest.raises(
        NotImplementedError, match=r"cannot be sampled directly.*MCMC\(numpyro_scores.BlockGibbs"
    ):
        make().sample(random.key(0))


@pytest.mark.parametrize("make", CANNOT_DRAW)
def test_one_that_cannot_draw_names_a_kernel(make):
    for d in (make(), make().expand((3,)), make().mask(False)):
        with pytest.raises(NotImplementedError, match=r"cannot be sampled directly.*MCMC\(.*MALA"):
            d.sample(random.key(0), (2,))


@pytest.mark.parametrize("make", CAN_DRAW)
def test_one_that_can_draw_needs_a_key(make):
    with pytest.raises(ValueError, match="needs a random key, got None"):
        make().sample(None)
