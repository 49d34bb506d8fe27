# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Discrete kernels under NumPyro's handlers and wrappers: each leaves the enumerated posterior as it
is, or refuses. Chains start from exact draws; after some steps they must be such draws again.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from infer.helpers import draw, enumerated
from jax import random
from numpyro import handlers
from numpyro.infer.util import log_density
from scipy.stats import chisquare

import numpyro_scores as ns

pytestmark = pytest.mark.usefixtures("x64", "quick_compilation")

KERNELS = {
    "BlockGibbs": partial(ns.BlockGibbs, num_steps=3),
    "SwendsenWang": partial(ns.SwendsenWang, num_steps=3),
    "GibbsWithGradients": partial(ns.GibbsWithGradients, num_steps=12),
    "DiscreteLangevin": partial(ns.DiscreteLangevin, num_steps=12, step_size=0.5),
}
NUM_CHAINS = 20_000
SOME = np.array([True, False])
POWERS = np.array([0.3, 2.0])
Y = np.array([[[0.3, -1.0]], [[1.2, 0.4]]])


def pair(coupling=0.9):
    """Two spins, for copies of few states."""
    return ns.Ising((1, 2), coupling, 0.3, periodic=False)


def observe(x):
    data = np.resize(Y, x.shape)
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(x.ndim), obs=data)


def scaled():
    with handlers.scale(scale=0.4):
        observe(numpyro.sample("x", ns.Ising((2, 2), 0.8, 0.2, periodic=False)))


def scaled_each():
    with numpyro.plate("copies", 2), handlers.scale(scale=POWERS):
        x = numpyro.sample("x", pair())
    observe(x)


def masked():
    with handlers.mask(mask=False):
        x = numpyro.sample("x", ns.Ising((2, 2), 0.8, 0.2, periodic=False))
    observe(x)


def masked_each():
    with numpyro.plate("copies", 2), handlers.mask(mask=SOME):
        x = numpyro.sample("x", pair())
    observe(x)


def mask_beneath_expand():
    with numpyro.plate("copies", 2), handlers.mask(mask=False):
        observe_in_plate(numpyro.sample("x", pair()))


def observe_in_plate(x):
    numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=Y)


def mask_beneath_event():
    observe(numpyro.sample("x", pair().expand([2]).mask(SOME).to_event(1)))


def expanded():
    observe(numpyro.sample("x", pair().expand([2])))


def to_event():
    observe(numpyro.sample("x", pair().expand([2]).to_event(1)))


def expanded_event():
    """Two axes of copies, of the batch and of the event, and a scale for each of the batch."""
    with handlers.scale(scale=POWERS):
        prior = ns.Ising((1, 2), 0.9, 0.3, False).expand([2]).to_event(1).expand([2])
        observe(numpyro.sample("x", prior))


def sample_shape():
    observe(numpyro.sample("x", pair(), sample_shape=(2,)))


def nested_plates():
    with numpyro.plate("rows", 2, dim=-2), handlers.scale(scale=POWERS[:, None]):
        with numpyro.plate("columns", 2, dim=-1), handlers.mask(mask=SOME):
            x = numpyro.sample("x", pair())
            numpyro.sample("y", dist.Normal(x, 1.0).to_event(2), obs=np.stack([Y, -Y]))


def likelihood():
    """A likelihood that is scaled and masked element by element, in a plate."""
    with numpyro.plate("copies", 2):
        x = numpyro.sample("x", pair())
        with handlers.scale(scale=POWERS):
            numpyro.sample("y", dist.Normal(x, 1.0).mask(SOME).to_event(2), obs=Y)


def antiferromagnet():
    with handlers.scale(scale=0.6), numpyro.plate("copies", 2):
        observe_in_plate(numpyro.sample("x", pair(-0.9)))


def labels():
    """Three states, of which neighbours favour different ones."""
    with numpyro.plate("copies", 2), handlers.scale(scale=POWERS):
        x = numpyro.sample("x", ns.Potts((1, 2), 3, -0.9, np.array([0.0, 0.3, -0.4])))
    observe(x)


def elements():
    with numpyro.plate("elements", 4), handlers.mask(mask=np.array([True, True, False, True])):
        with handlers.scale(scale=np.array([1.0, 2.0, 1.0, 0.5])):
            x = numpyro.sample("x", dist.Categorical(np.array([0.2, 0.5, 0.3])))
    observe(x)


def mixture():
    parts = dist.Bernoulli(np.array([0.2, 0.9]))
    of_element = dist.MixtureSameFamily(dist.Categorical(np.array([0.3, 0.7])), parts)
    observe(numpyro.sample("x", of_element.expand([4]).to_event(1)))


def machine():
    weights = np.array([[1.0, -0.5], [0.3, 2.0]])
    with numpyro.plate("copies", 2), handlers.mask(mask=SOME):
        x = numpyro.sample("x", ns.BernoulliRBM(weights, np.array([0.5, -0.5]), np.ones(2)))
    observe(x)


SPIN, TERNARY, BINARY = (-1, 1), (0, 1, 2), (0, 1)
# Models, with the states and the shape of the site.
LATTICES = {
    "scale": (scaled, SPIN, (2, 2)),
    "array scale": (scaled_each, SPIN, (2, 1, 2)),
    "mask": (masked, SPIN, (2, 2)),
    "array mask": (masked_each, SPIN, (2, 1, 2)),
    "mask beneath expand": (mask_beneath_expand, SPIN, (2, 1, 2)),
    "mask beneath to_event": (mask_beneath_event, SPIN, (2, 1, 2)),
    "expand": (expanded, SPIN, (2, 1, 2)),
    "to_event": (to_event, SPIN, (2, 1, 2)),
    "expand of to_event": (expanded_event, SPIN, (2, 2, 1, 2)),
    "sample_shape": (sample_shape, SPIN, (2, 1, 2)),
    "nested plates": (nested_plates, SPIN, (2, 2, 1, 2)),
    "likelihood": (likelihood, SPIN, (2, 1, 2)),
    "negative coupling": (antiferromagnet, SPIN, (2, 1, 2)),
    "three states": (labels, TERNARY, (2, 1, 2)),
}
OTHERS = {
    "elements": (elements, TERNARY, (4,)),
    "mixture": (mixture, BINARY, (4,)),
    "machine": (machine, BINARY, (2, 2)),
}
# One kernel for each wrapper here, the other cells in `make test-slow`.
QUICK = {
    ("BlockGibbs", "mask beneath expand"),
    ("BlockGibbs", "expand of to_event"),
    ("SwendsenWang", "nested plates"),
    ("SwendsenWang", "three states"),
    ("GibbsWithGradients", "mask beneath to_event"),
    ("DiscreteLangevin", "likelihood"),
    ("BlockGibbs", "machine"),
}
CELLS = [
    pytest.param(k, m, marks=() if (k, m) in QUICK else pytest.mark.slow)
    for k in KERNELS
    for m in LATTICES | OTHERS
    if k != "SwendsenWang" or m in LATTICES
]


def posterior(model, values):
    """The probabilities of all values of the site, from NumPyro's log density."""
    seeded = handlers.seed(handlers.substitute(model, {"x": values[0]}), 0)
    log_prob = jax.vmap(lambda x: log_density(seeded, (), {}, {"x": x})[0])
    return np.asarray(jax.jit(lambda values: jax.nn.softmax(log_prob(values)))(values))


@pytest.mark.parametrize("kernel, model", CELLS)
def test_exact_draws_stay_exact_draws(kernel, model):
    model, states, shape = (LATTICES | OTHERS)[model]
    values = enumerated(states, shape)
    pi = posterior(model, values)
    start = np.random.default_rng(0).choice(len(values), NUM_CHAINS, p=pi)
    z = {"x": jnp.asarray(values[start])}
    drawn = draw(KERNELS[kernel](model), random.key(0), NUM_CHAINS, z).z["x"]
    assert drawn.shape == (NUM_CHAINS, *shape)
    base = len(states) ** np.arange(values[0].size)[::-1]
    numbers = np.searchsorted(states, np.asarray(drawn).reshape(NUM_CHAINS, -1)) @ base
    assert np.mean(numbers == start) < 0.9
    counts, expected = np.bincount(numbers, minlength=len(values)), pi * NUM_CHAINS
    often = expected > 8
    counts, expected = (np.append(n[often], n[~often].sum()) for n in (counts, expected))
    rest = slice(None) if expected[-1] > 0 else slice(-1)
    assert chisquare(counts[rest], expected[rest]).pvalue > 1e-5


def subsampled():
    with numpyro.plate("copies", 3, subsample_size=2):
        numpyro.sample("x", pair())


def transformed():
    shift = dist.transforms.AffineTransform(1.0, 2.0)
    numpyro.sample("x", dist.TransformedDistribution(dist.Bernoulli(0.3), shift))


def wrong_shape():
    x = numpyro.sample("x", pair().expand([3]).to_event(1))
    numpyro.sample("y", dist.Normal(x[:, 0, 0], 1.0), obs=np.ones((3, 1)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "model, message",
    [
        (subsampled, r"cannot subsample: the plates \['copies'\]"),
        (transformed, r"\['x'\] are continuous"),
        (wrong_shape, r"observation of site 'y' has shape \(3, 1\)"),
    ],
)
def test_what_is_refused(kernel, model, message):
    with pytest.raises(ValueError, match=message):
        KERNELS[kernel](model).init(random.key(0), 0, None, (), {})


@pytest.mark.parametrize("kernel", ["BlockGibbs"])
def test_a_scaled_machine_with_hidden_units_summed_out_is_refused(kernel):
    def model():
        with handlers.scale(scale=2.0):
            machine()

    with pytest.raises(ValueError, match="scaled"):
        draw(KERNELS[kernel](model), random.key(0), 2, None)
