# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Annealed importance sampling both ways: exact means by enumeration, brackets by repetition."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilations import compilations
from jax import random
from normalizers.helpers import exact, gaussian_rbm, ising, points_of, potts, rbm, triangles
from scipy.special import softmax

import numpyro_scores as ns
from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.normalizers import annealed_importance, enumeration
from numpyro_scores.normalizers._path import path_to

pytestmark = pytest.mark.usefixtures("quick_compilation")

assert_close = np.testing.assert_allclose
AIS, ReverseAIS = ns.AnnealedImportanceSampling, ns.ReverseAnnealedImportanceSampling


class Enumerated:
    """A path's distributions and kernels, as vectors and matrices over all points."""

    def __init__(self, d):
        self.path = path_to(d, None, "AIS")
        self.points = points_of(self.path.end)
        self.blocks = tuple(self.path.end.split(self.points))

    @partial(jax.jit, static_argnums=0)
    def log_weight(self, beta):
        return self.path.log_weight(beta, self.blocks)

    @partial(jax.jit, static_argnums=0)
    def probabilities(self, beta):
        return jax.nn.softmax(self.path.at(beta).log_prob(self.points))

    @partial(jax.jit, static_argnums=0)
    def sweep(self, beta):
        """Row to column, the product of the updates in the order in which they are drawn."""
        d = self.path.at(beta)
        flat = [block.reshape(len(self.points), -1) for block in self.blocks]
        product = jnp.eye(len(self.points))
        for k in self.path.order():
            others = jnp.concatenate([b for j, b in enumerate(flat) if j != k], 1)
            stays = jnp.all(others[:, None] == others, -1)

            def probability(x, to, k=k):
                return jnp.sum(d.conditional(k, tuple(d.split(x))).log_prob(to))

            log_matrix = jax.vmap(
                lambda x, k=k: jax.vmap(lambda to: probability(x, to, k))(self.blocks[k])
            )(self.points)
            product = product @ jnp.where(stays, jnp.exp(log_matrix), 0.0)
        return product

    def moment(self, betas, power):
        """Of the weight of a chain through these levels, from draws of the first."""
        mean = self.probabilities(betas[0])
        for before, after in itertools.pairwise(betas):
            mean = mean * jnp.exp(power * (self.log_weight(after) - self.log_weight(before)))
            mean = mean @ self.sweep(after)
        return mean.sum()


@pytest.mark.parametrize(
    "make",
    [
        rbm,
        pytest.param(ising, marks=pytest.mark.slow),
        pytest.param(potts, marks=pytest.mark.slow),
        pytest.param(triangles, marks=pytest.mark.slow),
    ],
)
def test_the_mean_weight_is_the_ratio_of_the_normalisers(x64, make):
    d = make()
    enumerated = Enumerated(d)
    path = enumerated.path
    log_ratio = exact(d) - exact(path.start)
    assert_close(path.base_log_normalizer(enumerated.blocks), exact(path.start), rtol=1e-12)
    for betas, sign in (((0.0, 0.3, 0.8, 1.0), 1), ((1.0, 0.8, 0.3, 0.0), -1)):
        assert_close(jnp.log(enumerated.moment(betas, 1)), sign * log_ratio, rtol=1e-10)
        for beta in betas:
            p = enumerated.probabilities(beta)
            assert jnp.max(jnp.abs(p @ enumerated.sweep(beta) - p)) < 1e-12


@pytest.mark.parametrize("make, up", [(rbm, True), (triangles, False)])
def test_chains_have_the_moments_of_the_weight(make, up):
    enumerated = Enumerated(make())
    path, n = enumerated.path, 40_000
    betas = jnp.array([0.0, 0.3, 1.0] if up else [1.0, 0.3, 0.0])

    @jax.jit
    def weights(key):
        key_start, key_anneal = random.split(key)
        p = enumerated.probabilities(betas[0])
        points = enumerated.points[random.choice(key_start, len(p), (n,), p=p)]
        blocks = tuple(path.end.split(points))
        return jnp.exp(path.anneal(betas, key_anneal, blocks)[1])

    relative = weights(random.key(0)) / enumerated.moment(betas, 1)
    assert abs(relative.mean() - 1) < 4 * relative.std() / np.sqrt(n)
    second = relative**2 * enumerated.moment(betas, 1) ** 2 / enumerated.moment(betas, 2)
    assert abs(second.mean() - 1) < 4 * second.std() / np.sqrt(n)


def probabilities(d, points):
    """Of points that are all."""
    return softmax(np.asarray(jax.jit(d.log_prob)(points), float))


def assert_draws(points, d, num_draws):
    """Points are draws of a distribution, by the frequency of each state of all sites."""
    is_point = np.all(np.asarray(points)[:, None] == np.asarray(points_of(d)), -1)
    p = probabilities(d, points_of(d))
    error = np.abs(np.mean(is_point, 0) - p)
    assert np.all(error < 5 * np.sqrt(p * (1 - p) / num_draws) + 1 / num_draws)


@pytest.mark.parametrize("make", [rbm, triangles])
def test_a_sweep_leaves_draws_draws(make):
    path, n = path_to(make(), None, "AIS"), 20_000
    points = np.asarray(points_of(path.end))
    start = np.random.default_rng(0).choice(len(points), n, p=probabilities(path.end, points))
    blocks = jax.jit(path.sweep)(1.0, random.key(1), tuple(path.end.split(points[start])))
    assert_draws(path.end.join(blocks), path.end, n)


def test_weighted_chains_are_resampled_into_draws_of_the_target():
    # The hidden unit is on with a probability of 0.12 at the start, of 0.98 at the target.
    d = ns.BernoulliRBM(np.full((3, 1), 4.0), np.full(3, -2.0), [-2.0])
    path, n = path_to(d, None, "AIS"), 20_000
    blocks = jax.jit(path.base_blocks, static_argnums=1)(random.key(0), n)
    assert_draws(path.start.join(blocks), path.start, n)
    inputs = np.array([0.0, 1.0], np.float32), random.key(1)
    way = jax.jit(annealed_importance._resampled_way)
    blocks, log_weights = way(path, blocks, inputs)
    size = 1 / np.sum(softmax(np.asarray(log_weights)) ** 2)
    assert_draws(path.end.join(blocks), path.end, 0.9 * size)


@pytest.mark.parametrize("make", [rbm, ising, triangles, gaussian_rbm])
def test_the_value_of_the_block_that_is_summed_out_does_not_matter(x64, make):
    path = path_to(make(), None, "AIS")
    draw = jax.jit(lambda key: path.end.split(path.end.random_point(key, (5,))))
    x, other = (draw(random.key(i)) for i in (0, 1))
    changed = tuple(other[k] if k == path.summed() else block for k, block in enumerate(x))
    log_weight = jax.jit(path.log_weight)
    assert_close(log_weight(0.7, changed), log_weight(0.7, tuple(x)), rtol=1e-11)
    assert max(block.size for block in x) == x[path.summed()].size


def test_the_larger_side_of_a_machine_is_summed_out(x64):
    def log_weights(machine):
        path = path_to(machine, None, "AIS")
        blocks = path.base_blocks(random.key(0), 5)
        visible = machine.tempered(1.0).log_prob(blocks[0])
        hidden = jax.vmap(machine.partition_sum().log_weight)(blocks[1])
        return path.log_weight(1.0, blocks), visible, hidden

    found, visible, _ = jax.jit(log_weights)(gaussian_rbm())
    assert_close(found, visible, rtol=1e-11)
    wide = ns.GaussianBernoulliRBM(np.ones((5, 2)) / 3, 0.2, 0.7, [0.1, 0.4])
    found, _, hidden = jax.jit(log_weights)(wide)
    assert_close(found, hidden, rtol=1e-11)


EVERY = rbm, lambda: rbm(3, 4).joint(), ising, potts, triangles, gaussian_rbm


@pytest.mark.parametrize("make", EVERY)
def test_both_ways_agree_with_enumeration(make):
    d = make()
    log_z = exact(d)
    for method in (AIS(num_levels=100), ReverseAIS(num_levels=100)):
        found = ns.log_normalizer(d, key=random.key(1), method=method)
        assert abs(found.estimate - log_z) < 4.5 * found.standard_error < 0.3
        assert found.lower < log_z < found.upper
        assert found.upper - found.lower < 0.6


@pytest.mark.parametrize("make", [rbm, lambda: ns.Ising((3, 3), 0.5, 0.2)])
def test_chains_go_back_from_given_samples(make):
    d = make()
    points = np.asarray(points_of(d)) if isinstance(d, ns.Ising) else _binary(d.event_shape[0])
    p = probabilities(d, points)
    samples = points[np.random.default_rng(0).choice(len(p), 2000, p=p)]
    found = ns.log_normalizer(
        d, key=random.key(1), method=ReverseAIS(4, num_levels=20, samples=samples)
    )
    assert abs(found.estimate - exact(d)) < 4 * found.standard_error < 0.1
    assert found.upper - found.estimate < 4 * found.standard_error + 6 / 2000


def _binary(n):
    return np.array(list(itertools.product([0, 1], repeat=n)))


def test_samples_of_another_distribution_can_make_the_bracket_cross():
    d = ns.Ising((4, 4), 0.8, -0.3)
    method = AIS(num_levels=200, samples=jnp.ones((128, 4, 4)))  # the mode that has no weight
    found = ns.log_normalizer(d, key=random.key(0), method=method)
    assert found.upper < found.lower < exact(d)


def test_any_base_gives_the_same_normaliser():
    d = rbm()
    base = ns.BernoulliRBM(d.weights, [1.0, -1.0, 0.0, 2.0], d.hidden_bias, log_normalizer=7.0)
    found = ns.log_normalizer(d, key=random.key(0), method=AIS(num_levels=100, base=base))
    assert abs(found.estimate - exact(d)) < 4.5 * found.standard_error < 0.2
    path = path_to(d, base, "AIS")
    assert_close(path.at(0.0).rbm.visible_bias, base.visible_bias)
    assert_close(path.at(1.0).rbm.visible_bias, d.visible_bias)


def test_without_an_exact_method_the_default_is_to_anneal(monkeypatch):
    d = rbm()
    monkeypatch.setattr(enumeration, "MAX_STATES", 2)
    with pytest.raises(ValueError, match="No exact method fits this BernoulliRBM.* a random key"):
        ns.log_normalizer(d)
    found = ns.log_normalizer(d, key=random.key(0))
    assert found == ns.log_normalizer(d, key=random.key(0), method=AIS())


def test_equal_shapes_are_compiled_once():
    method = AIS(num_chains=3, num_levels=7)
    ns.log_normalizer(rbm(5, 2), key=random.key(0), method=method)
    with compilations() as names:
        ns.log_normalizer(rbm(5, 2), key=random.key(1), method=method)
    assert not names


class WithoutBlocks(BoltzmannDistribution):
    def _log_weight(self, x):
        return jnp.sum(x)

    def partition_sum(self):
        raise NotImplementedError


def call(method, d=None, key=random.key(0)):
    return ns.log_normalizer(d or rbm(), key=key, method=method)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: AIS(1), "num_chains must be at least 2, for a standard error, got 1"),
        (lambda: AIS(2.5), "num_chains must be a positive integer, got 2.5"),
        (lambda: ReverseAIS(num_levels=0), "num_levels must be a positive integer, got 0"),
        (lambda: call(AIS(), key=None), "AnnealedImportanceSampling draws at random and needs one"),
        (lambda: call(ReverseAIS(), key=7), "ReverseAnnealedImp.*key=jax.random.key.*got 7"),
        (
            lambda: call(AIS(), WithoutBlocks((2,), rbm().support, None)),
            "draws block by block, but WithoutBlocks has no blocks",
        ),
        (lambda: call(AIS(base=rbm().joint())), "base must be a BernoulliRBM.*got JointRBM"),
        (lambda: call(AIS(base=rbm(3, 3))), r"parameters of the shapes .*\(4, 3\).*got .*\(3, 3\)"),
        (lambda: call(AIS(samples=np.ones(4))), r"shape \(m, 4\), got shape \(4,\)"),
        (lambda: call(AIS(samples=np.ones((1, 4)))), r"two or more points.*got shape \(1, 4\)"),
        (lambda: call(AIS(samples=-np.ones((5, 4)))), "samples must be points of .*support"),
    ],
)
def test_a_bad_argument_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("method", [AIS(), ReverseAIS(), ns.ThermodynamicIntegration()])
def test_an_estimate_is_not_differentiated(method):
    def estimate(coupling):
        return call(method, ns.Ising((2, 2), coupling)).estimate

    with pytest.raises(TypeError, match="cannot be differentiated. Use an exact method"):
        jax.grad(estimate)(0.3)
