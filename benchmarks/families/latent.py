# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Families with a latent point: a variational autoencoder, and a generative adversarial network."""

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array, lax, random
from jax.tree_util import Partial
from numpyro.contrib.module import nnx_module
from numpyro.distributions import constraints
from numpyro.infer import SVI, Trace_ELBO

import numpyro_scores as ns
from benchmarks.families.data import Data
from benchmarks.families.learned import Learned, Likelihood, likelihood
from benchmarks.families.networks import BATCH_SIZE, MLP, Pair, adam, at_rates, train

NUM_POINTS = 100  # held out, for estimates that take many draws for each


def latent_size_of(data: Data) -> int:
    return 2 if data.name == "moons" else 12


def posterior_of(encoder, x: Array) -> dist.Distribution:
    mean, log_scale = jnp.split(encoder(x), 2, axis=-1)
    return dist.Normal(mean, jnp.exp(log_scale)).to_event(1)


def trained_by_svi(data: Data, num_steps: int):
    """Encoder, decoder and observation noise, by NumPyro's `SVI`."""
    size, k = data.training.shape[1], latent_size_of(data)
    networks = MLP(k, size, 0), MLP(size, 2 * k, 1)

    def model(x: Array) -> None:
        decoder = nnx_module("decoder", networks[0])
        noise = numpyro.param("noise", 0.3, constraint=constraints.positive)
        with numpyro.plate("points", len(x)):
            z = numpyro.sample("z", dist.Normal().expand([k]).to_event(1))
            numpyro.sample("x", dist.Normal(decoder(z), noise).to_event(1), obs=x)

    def guide(x: Array) -> None:
        encoder = nnx_module("encoder", networks[1])
        with numpyro.plate("points", len(x)):
            numpyro.sample("z", posterior_of(encoder, x))

    # The losses are sums over a batch, which Adam does not mind.
    svi = SVI(model, guide, adam(2e-3, num_steps), Trace_ELBO())
    points = jnp.asarray(data.training)

    def step(state, key):
        key_rows, key_noise = random.split(key)
        x = points[random.randint(key_rows, (BATCH_SIZE,), 0, len(points))]
        return svi.update(state, data.noisy(key_noise, x))

    state = svi.init(random.key(0), points[:BATCH_SIZE])
    state, _ = lax.scan(step, state, random.split(random.key(1), num_steps))
    params = svi.get_params(state)
    decoder, encoder = (
        merged(network, params[f"{name}$params"])
        for network, name in zip(networks, ("decoder", "encoder"), strict=True)
    )
    return decoder, encoder, params["noise"]


def merged(network: MLP, params) -> MLP:
    """The network with the parameters that `SVI` found."""
    from flax import nnx

    graph, state = nnx.split(network)
    nnx.replace_by_pure_dict(state, params)
    return nnx.merge(graph, state)


def vae(data: Data) -> Learned:
    decoder, encoder, noise = trained_by_svi(data, 4_000 if data.name == "moons" else 3_000)
    prior = ns.GeneratorPrior(decoder, latent_size_of(data))
    proposal = Partial(posterior_of, encoder)

    def likelihoods(key: Array) -> list[Likelihood]:
        key_bounds, key_annealed = random.split(key)
        bounds = ns.diagnostics.evidence_bounds(
            Partial(_log_joint, prior, noise), proposal, data.held_out, key=key_bounds,
            num_draws=256,
        )  # fmt: skip
        return [
            likelihood(bounds.importance_weighted, "importance-weighted bound, 256 draws"),
            likelihood(bounds.elbo, "evidence lower bound"),
            annealed(prior, noise, proposal, data, key_annealed),
        ]

    return Learned(prior, _noisy_draws(prior, noise), likelihoods, float(noise))


def gan(data: Data) -> Learned:
    """
    Of the points without noise. Draws are given the noise of the data; on the moons, which have
    none besides, a density has to be that of a kernel.
    """
    size, k = data.training.shape[1], latent_size_of(data)
    num_steps = 6_000 if data.name == "moons" else 4_000
    pair = train(
        Pair(k, size, 0),
        ns.objectives.GenerativeAdversarial(k, 0.1),
        data,
        num_steps,
        at_rates({"generator": 1e-3, "critic": 1e-3}, num_steps),
        noisy=False,
    )
    prior = ns.GeneratorPrior(pair.generator, k)

    def likelihoods(key: Array) -> list[Likelihood]:
        if data.noise:
            standard = prior.latent
            return [annealed(prior, data.noise, lambda _: standard, data, key)]
        found = ns.diagnostics.kernel_density_log_likelihood(
            prior.sample(key, (5_000,)), data.held_out
        )
        how = f"kernel density of 5,000 draws, bandwidth {float(found.bandwidth):.3f}"
        return [likelihood(found.log_prob, how)]

    # A little observation noise, of the bandwidth's size, makes a posterior of it.
    noise = data.noise or 0.05
    return Learned(prior, _noisy_draws(prior, data.noise), likelihoods, noise)


def annealed(prior, noise, proposal, data: Data, key: Array) -> Likelihood:
    found = ns.diagnostics.annealed_log_likelihood(
        Partial(_log_joint, prior, noise),
        proposal,
        data.held_out[:NUM_POINTS],
        key=key,
        step_size=0.05,
        num_draws=16,
        num_levels=200,
        num_steps=3,
    )
    return likelihood(found.log_likelihood, f"annealing, {NUM_POINTS} points")


def _log_joint(prior, noise, z: Array, x: Array) -> Array:
    return prior.log_joint(z, x, noise)


def _noisy_draws(prior, noise):
    def draw(key: Array, num_draws: int) -> Array:
        key_draws, key_noise = random.split(key)
        x = prior.sample(key_draws, (num_draws,))
        return x + noise * random.normal(key_noise, x.shape)

    return draw
