# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
The U-Net of `mnist_unet.py` learns the energy of handwritten digits at every noise level.

Of the same 4,500 digits, by dual score matching: a density of pictures that is one evaluation. Its
denoising errors on 500 digits that it never saw are printed beside those of the denoiser and of the
Wiener filter. The training goes on where it stopped if it is started again with the same
checkpoints, and its weights are kept in a safetensors file.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import random
from mnist_unet import PROCESS, SIGMAS, Digits, MiddleLevels, learned_prior, load, rmse, wiener

import numpyro_scores as ns

WEIGHTS = Path(__file__).parent / "mnist_energy.safetensors"


def make_energy(seed: int, centred: np.ndarray) -> ns.nn.UNetNoiseEnergy:
    sigma_data = float(centred.std())
    return ns.nn.UNetNoiseEnergy((28, 28), rngs=nnx.Rngs(seed), sigma_data=sigma_data)


def of_pixels(energy: ns.nn.UNetNoiseEnergy, mean: float, x: jax.Array, sigma: jax.Array):
    """The energy of pixels in [-1, 1]; the network's are centred."""
    return energy(x - mean, sigma)


def prior_of(energy: ns.nn.UNetNoiseEnergy, train: Digits, **settings: Any) -> ns.DiffusionPrior:
    mean = float(train.pictures.mean())
    centred = jax.tree_util.Partial(of_pixels, energy, mean)
    return ns.DiffusionPrior(centred, PROCESS, (28, 28), **settings)


def learned_energy_prior(train: Digits, **settings: Any) -> ns.DiffusionPrior:
    """The prior of the weights beside this file, which were learned from `load(0)`."""
    centred = train.pictures - train.pictures.mean()
    energy = ns.load_weights(WEIGHTS, make_energy(0, centred))
    return prior_of(energy, train, **settings)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default="demo", metavar="FOLDER")
    parser.add_argument(
        "--checkpoints", type=Path, metavar="FOLDER", help="in --output if not given"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-steps", type=int, default=5_000, help="training steps")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    train, held_out = load(args.seed)
    # One number, not the mean picture: the background, most of a digit, stays one number, too.
    pictures, truth = (digits.pictures - train.pictures.mean() for digits in (train, held_out))
    energy = make_energy(args.seed, pictures)
    weight = MiddleLevels(energy.sigma_data)

    start, weights = time.process_time(), args.output / "mnist_energy.safetensors"

    def note(at: ns.FitProgress) -> None:
        ns.save_weights(weights, at.module)  # so that what is learnt can be looked at
        print(f"{at!r}, {time.process_time() - start:.0f} s of CPU", flush=True)

    rate = optax.warmup_cosine_decay_schedule(0.0, 6e-3, args.num_steps // 20, args.num_steps)
    fitted = ns.fit(
        energy,
        # One noise a digit: where these are few, more of them in a batch do more than pairs.
        ns.objectives.DualScoreMatching(PROCESS, weight=weight, antithetic=False),
        pictures,
        key=random.key(args.seed),
        optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        num_steps=args.num_steps,
        batch_size=16,
        ema_decay=0.999,
        validation=truth,
        validate_every=max(1, args.num_steps // 10),
        checkpoint_dir=args.checkpoints or args.output / "mnist_energy_checkpoints",
        checkpoint_every=200,
        progress_bar=False,
        callbacks=note,
    )
    ns.save_weights(weights, fitted.module)
    report(prior_of(fitted.module, train), train, held_out.pictures, args.seed)


def report(prior: ns.DiffusionPrior, train: Digits, held_out: np.ndarray, seed: int) -> None:
    """Held-out denoising errors, those of the denoiser, and of the best linear one."""
    rng = np.random.default_rng(seed)
    for sigma in SIGMAS:
        noisy = held_out + sigma * rng.standard_normal(held_out.shape).astype(np.float32)
        denoised = [denoise(p, noisy, sigma) for p in (prior, learned_prior(train))]
        estimates = [*denoised, wiener(train.pictures, noisy, sigma)]
        energy, denoiser, linear = (rmse(estimate, held_out) for estimate in estimates)
        print(
            f"sigma {sigma:.1f}: error {energy:.4f}, denoiser {denoiser:.4f}, Wiener filter "
            f"{linear:.4f}; {energy / denoiser:.3f} and {energy / linear:.2f} of theirs"
        )


@jax.jit
def denoise(prior: ns.DiffusionPrior, noisy: jax.Array, sigma: float) -> jax.Array:
    return jax.lax.map(lambda x: prior.denoise(x, sigma), jnp.asarray(noisy), batch_size=50)


if __name__ == "__main__":
    main()
