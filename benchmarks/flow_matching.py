# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
Flow matching beside denoising score matching: the same network, the same digits (8 x 8 pixels in
[-1, 1]), as many steps, and the mean log likelihood of held-out digits with the noise of the least
level, by the probability flow with its exact trace, in nats a dimension.

`denoiser` is trained on `DenoisingScoreMatching` with the weight of EDM over levels uniform
in their logarithm; `velocity` on `FlowMatching`, the same network beneath `VelocityPrediction`;
`velocity, levels` on the loss of flow matching over the levels of the denoiser.
"""

import argparse
import time

import jax
import numpy as np
import optax
from flax import nnx
from jax import random

import numpyro_scores as ns
from examples.digits_deblurring import load_pictures

SIGMA_MIN, SIGMA_MAX = 0.08, 10.0
LEVELS = ns.VarianceExploding(SIGMA_MIN, SIGMA_MAX)
PATH = ns.RectifiedFlow(*(sigma / (1 + sigma) for sigma in (SIGMA_MIN, SIGMA_MAX)))
FLOW = ns.ProbabilityFlow(32, trace=ns.ExactTrace())


class PathNetwork(nnx.Module):
    """
    The network `F(c_in x, c_noise)` of a denoiser as the velocity of a path.

    :param denoiser: that holds it, with the standard deviation of the data.
    """

    def __init__(self, denoiser: ns.nn.MLPDenoiser):
        self.network, self.sigma_data = denoiser.denoiser.network, denoiser.sigma_data

    def __call__(self, x_t, t):
        scale = jax.numpy.sqrt(t**2 + ((1 - t) * self.sigma_data) ** 2)
        return self.network(x_t / scale, jax.numpy.log(t / (1 - t)) / 4)


def trainings(pictures, seed):
    """By name, a module, its objective, and its process."""

    def network():
        return ns.nn.MLPDenoiser(
            (8, 8),
            rngs=nnx.Rngs(seed),
            hidden_features=128,
            num_layers=3,
            sigma_data=float(pictures.std()),
        )

    def velocity():
        return ns.processes.VelocityPrediction(PathNetwork(network()))

    matching, weight = ns.objectives.DenoisingScoreMatching, ns.objectives.VelocityWeight()
    return {
        "denoiser": (network(), matching(LEVELS), LEVELS),
        "velocity": (velocity(), ns.objectives.FlowMatching(PATH), PATH),
        "velocity, levels": (velocity(), matching(LEVELS, weight), PATH),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-steps", type=int, default=12_000)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    for seed in range(args.seeds):
        pictures, held_out = load_pictures(seed)
        x = held_out + SIGMA_MIN * random.normal(random.key(seed), held_out.shape)
        for name, (module, objective, process) in trainings(pictures, seed).items():
            start = time.process_time()
            fitted = ns.fit(
                module,
                objective,
                pictures,
                key=random.key(seed),
                optimizer=optax.adamw(
                    optax.cosine_decay_schedule(2e-3, args.num_steps), weight_decay=0.3
                ),
                num_steps=args.num_steps,
                ema_decay=0.9995,
                progress_bar=False,
            )
            prior = ns.DiffusionPrior(fitted.module, process, (8, 8))
            nats = np.asarray(prior.log_likelihood(x, flow=FLOW, batch_size=32).nats) / 64
            print(
                f"seed {seed}, {name}: {nats.mean():.4f} +- {nats.std() / len(nats) ** 0.5:.4f} "
                f"nats a dimension, {time.process_time() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
