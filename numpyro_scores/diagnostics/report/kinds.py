# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What is known of a kernel beforehand: whether its draws depend, its bias, what to try next."""

from numpyro.infer import HMC, SA, BarkerMH

from numpyro_scores.diagnostics.report.runs import Run
from numpyro_scores.infer.diffusion.base import NoiseLevelKernel
from numpyro_scores.infer.diffusion.split_gibbs import SplitGibbs
from numpyro_scores.infer.discrete.base import DiscreteKernel
from numpyro_scores.infer.replica_exchange import ReplicaExchange
from numpyro_scores.infer.smc.noise_level_smc import NoiseLevelSMC

# Samplers of particles that come down the noise levels by values.
BY_VALUES = (NoiseLevelSMC.__name__,)


def has_independent_draws(run: Run) -> bool:
    """Whether each draw is made from fresh noise, and no chain is followed."""
    return bool(run.parts) and (
        issubclass(run.parts[0].kind, NoiseLevelKernel)
        and not issubclass(run.parts[0].kind, SplitGibbs)
    )


def has_metropolis_test(run: Run) -> bool:
    """Whether all of it is drawn by kernels that are exact, as far as is known."""
    kinds = [part.kind for part in run.parts if not hasattr(part.state, "block_states")]
    return (
        bool(kinds) and all(map(_is_exact, kinds)) and all(part.is_adjusted for part in run.parts)
    )


def is_unadjusted(run: Run) -> bool:
    """Whether there is a kernel without a Metropolis test."""
    return any(_is_exact(part.kind) is False for part in run.parts)


def _is_exact(kind: type) -> bool | None:
    """Whether a kernel with its Metropolis test draws the density itself; None if nobody says."""
    return issubclass(kind, HMC | SA | BarkerMH) or getattr(kind, "_is_exact", None)


def follows_scores(run: Run) -> bool:
    """
    Whether draws come down the noise levels by the score of each; particles of `NoiseLevelSMC` do
    by the values, whose last alone is the target.
    """
    by_particles = run.particles is not None and run.sampler not in BY_VALUES
    return by_particles or any(issubclass(part.kind, NoiseLevelKernel) for part in run.parts)


def bias_of(run: Run) -> tuple[str, bool] | None:
    """The known bias of the run's kernel in words, and whether it is of other sites too."""
    kinds = [part.kind for part in run.parts if issubclass(part.kind, NoiseLevelKernel)]
    found = [(kind.approximation, kind.biases_other_sites) for kind in kinds if kind.approximation]
    return found[0] if found else None


def how_to_draw_more(run: Run) -> str:
    """What gives a larger effective sample size."""
    kind = run.parts[0].kind if run.parts else object
    if has_independent_draws(run):
        return "Draws are independent, so that more of them is all that it takes."
    if issubclass(kind, ReplicaExchange):
        return (
            "Draw more, or swap better: more rungs, or warmup that places them (adapt_ladder=True)."
        )
    if issubclass(kind, SplitGibbs):
        return "Draw more, or take a larger coupling, which forgets faster and is biased more."
    if issubclass(kind, DiscreteKernel):
        return "Draw more, or make each draw count for more: more steps a draw (num_steps)."
    if issubclass(kind, HMC):
        return (
            "Draw more, or make each draw count for more: a longer warmup, dense_mass=True, or "
            "another parametrisation (non-centred, of a hierarchy)."
        )
    return (
        "Draw more, or make each draw count for more: more steps a draw (num_steps), a metric "
        "learned in warmup (adapt_mass_matrix), another parametrisation."
    )


def how_to_mix(run: Run) -> str:
    """What makes chains agree."""
    kind = run.parts[0].kind if run.parts else object
    if has_independent_draws(run):
        return (
            "Chains of independent draws differ by chance, or because some of their draws have "
            "failed: look at the trace of this element for draws far off, and draw more."
        )
    if issubclass(kind, ReplicaExchange):
        return (
            "The chains do not agree yet. Add rungs, or a last one at which the modes are one, and "
            "draw longer."
        )
    if issubclass(kind, DiscreteKernel):
        return (
            "The chains do not agree yet. Take more steps a draw (num_steps), run longer, or "
            "temper with ReplicaExchange; SwendsenWang passes between the phases of a lattice."
        )
    return (
        "The chains do not agree yet. Look at the trace of this element: if they drift, run "
        "longer; if each stays where it is, the posterior has modes that they do not pass between: "
        "temper it with ReplicaExchange, or anneal a diffusion prior with AnnealedLangevin."
    )


def what_draws_another_density(run: Run) -> str:
    """What may be behind draws that are not of the model's density."""
    if run.particles is not None:
        return (
            "The particles are not of this model's density: with too few moves in each round they "
            "do not get everywhere, down the neck of a small noise scale above all. More moves "
            "(num_steps) or particles, TwistedDiffusionSampler for a diffusion prior, or another "
            "parametrisation; compare with MALA or NUTS."
        )
    if bias_of(run) is not None:
        return (
            "The draws are not of this model's density, as this kernel is biased: compare with "
            "TemperedSMC or TwistedDiffusionSampler, or with MALA if the posterior has one mode."
        )
    if has_metropolis_test(run):
        return (
            "The draws are not of this model's density, though the kernel is exact for it: the "
            "chains have not been everywhere yet (start elsewhere, run longer), or the model or "
            "its data were others when it ran, or a density has a gradient that is not its own."
        )
    if is_unadjusted(run):
        return (
            "The draws are not of this model's density: the steps are too large. Take smaller "
            "ones, or compare with MALA or NUTS."
        )
    return (
        "The draws are not of this model's density: a kernel with a bias (an unadjusted step that "
        "is too large, an anneal that is too fast), a broken one, or another model. Compare with "
        "MALA or NUTS, and try the kernel by geweke_test."
    )
