# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""
Write `tests/data/draws.npz`: draws of one and the same exact denoiser, that of two Gaussians in the
plane, by schedulers of diffusers. Needs `torch` and `diffusers`, in an environment of their own;
the tests need neither.

    python tests/data/make_draws.py

Every run takes nine steps along the linear schedule of 1,000 steps and ends at its first level:
from step 900 down by a hundred (`leading`), or from step 999 down by 111 (`linspace`). All start at
`start` times the first level, those with noise take `noise`, and draws are in the units of the
data.

diffusers keeps its table of the chain in `float32`; here it is given one in `float64`, since the
first level would be off by a factor of 1.0003.
"""

from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_ddpm,
    scheduling_euler_ancestral_discrete,
)

NUM_STEPS = 9
MEANS = np.array([[1.0, 0.5], [-1.0, 0.0]])
WIDTHS = np.array([0.3, 0.1])
MIDPOINT = {"algorithm_type": "dpmsolver++", "final_sigmas_type": "sigma_min"}
MULTISTEP = {**MIDPOINT, "solver_type": "heun"}
LEADING = {"timestep_spacing": "leading", "clip_sample": False}


def denoise(x, sigma):
    """E[x_0 | x_0 + sigma z = x] for two Gaussians of equal odds."""
    variance = WIDTHS**2 + sigma**2
    apart = x[:, None] - MEANS
    log_odds = -(apart**2).sum(-1) / (2 * variance) - np.log(variance)
    odds = np.exp(log_odds - log_odds.max(1, keepdims=True))
    odds /= odds.sum(1, keepdims=True)
    each = MEANS + (WIDTHS**2 / variance)[:, None] * apart
    return (odds[..., None] * each).sum(1)


def output(prediction, x, sigma):
    """What a network of a kind of prediction would put out."""
    clean = denoise(x, sigma)
    noise, alpha = (x - clean) / sigma, 1 / np.sqrt(1 + sigma**2)
    kinds = {"epsilon": noise, "sample": clean, "v_prediction": alpha * (noise - sigma * clean)}
    return torch.tensor(kinds[prediction])


def run(scheduler, start, *, shrunken, num_steps=NUM_STEPS, **options):
    """
    :param shrunken: whether the scheduler's points are those of the chain, not those of the data.
    """
    betas = np.linspace(1e-4, 2e-2, 1000)
    alphas = np.cumprod(1 - betas)
    scheduler.alphas_cumprod = torch.tensor(alphas)
    # The solvers of DPM keep their own copies.
    scheduler.alpha_t, scheduler.sigma_t = (
        torch.tensor(alphas).sqrt(),
        torch.tensor(1 - alphas).sqrt(),
    )
    scheduler.set_timesteps(num_steps + (0 if options.pop("all_steps", False) else 1))
    level = np.sqrt(1 / alphas - 1)
    steps = scheduler.timesteps.numpy()
    x = torch.tensor(start * level[int(steps[0])])
    if shrunken:
        x = x * alphas[int(steps[0])] ** 0.5
    last = len(steps)
    if hasattr(scheduler, "prev_derivative"):
        last = 2 * num_steps  # two evaluations a step, and none of the step to zero
    elif last > num_steps:
        last = num_steps
    for t in scheduler.timesteps[:last]:
        sigma, alpha = level[int(t)], alphas[int(t)] ** 0.5
        if not shrunken:
            scheduler.scale_model_input(x, t)
        point = x.double().numpy() / (alpha if shrunken else 1)
        out = output(scheduler.config.prediction_type, point, sigma)
        x = scheduler.step(out, t, x, **options).prev_sample
    return x.double().numpy() / (alphas[0] ** 0.5 if shrunken else 1)


if __name__ == "__main__":
    rng = np.random.RandomState(0)
    start, noise = rng.normal(size=(5, 2)), rng.normal(size=(NUM_STEPS, 5, 2))
    for module in (scheduling_ddim, scheduling_ddpm, scheduling_euler_ancestral_discrete):
        module.randn_tensor = lambda shape, **_: torch.tensor(next(noises))
    found = {"start": start, "noise": noise}
    runs = {
        "DDIM": (diffusers.DDIMScheduler(**LEADING), {"shrunken": True}),
        "DDIM_half": (
            diffusers.DDIMScheduler(**LEADING, prediction_type="sample"),
            {"shrunken": True, "eta": 0.5},
        ),
        "DDPM": (
            diffusers.DDPMScheduler(**LEADING, prediction_type="v_prediction"),
            {"shrunken": True},
        ),
        "Euler": (diffusers.EulerDiscreteScheduler(), {"shrunken": False}),
        "EulerAncestral": (diffusers.EulerAncestralDiscreteScheduler(), {"shrunken": False}),
        "Heun": (
            diffusers.HeunDiscreteScheduler(beta_start=1e-4, beta_end=2e-2),
            {"shrunken": False},
        ),
    }
    for order in (1, 2, 3):
        scheduler = diffusers.DPMSolverMultistepScheduler(
            **MULTISTEP, solver_order=order, lower_order_final=False
        )
        runs[f"DPM{order}"] = (scheduler, {"shrunken": True, "all_steps": True})
    midpoint = diffusers.DPMSolverMultistepScheduler(**MIDPOINT, lower_order_final=False)
    runs["DPM2_midpoint"] = (midpoint, {"shrunken": True, "all_steps": True})
    for name, (scheduler, options) in runs.items():
        noises = iter(noise)
        found[name] = run(scheduler, start, **options)
    np.savez_compressed(Path(__file__).resolve().parent / "draws.npz", **found)
