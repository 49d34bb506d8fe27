# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A warning where a Metropolis test is made with a score that is not a gradient."""

import warnings
from collections.abc import Callable, Sequence

from jax import Array, random
from numpyro.handlers import seed, substitute, trace

from numpyro_scores._validation import is_concrete
from numpyro_scores.densities.conservativeness import jacobian_asymmetry
from numpyro_scores.infer.langevin.segments import score_distribution

# Exact scores measure below 1e-5 in float32, learned ones some 0.05 to 0.1.
LARGEST_ASYMMETRY = 0.01

# Enough for a share of the Jacobian to some percent, and no long wait with many chains.
MAX_POINTS = 64


def warn_unless_gradient(
    kernel: str,
    sites: Sequence[str],
    model: Callable,
    model_args: tuple,
    model_kwargs: dict,
    values: dict[str, Array],
    starts: dict[str, Array],
) -> None:
    """
    Warn of each site of a `ScoreDistribution` whose score has an asymmetric Jacobian at the start.

    :param kernel: name of the kernel.
    :param sites: names of the sites.
    :param values: constrained values of the latent sites of one chain.
    :param starts: the same of all chains, with any leading axes.
    """
    seeded = substitute(seed(model, random.key(0)), data=values)
    model_trace = trace(seeded).get_trace(*model_args, **model_kwargs)
    for name in sites:
        fn = score_distribution(model_trace[name]["fn"])
        assert fn is not None
        points = starts[name].reshape(-1, *fn.event_shape)[:MAX_POINTS]
        asymmetry = jacobian_asymmetry(fn.score, points, key=random.key(0))
        if is_concrete(asymmetry) and asymmetry > LARGEST_ASYMMETRY:
            warnings.warn(
                f"The score of site {name!r} is not a gradient: the antisymmetric part of its "
                f"Jacobian, measured where the chains start, is {asymmetry:.2g} of the whole (0 if "
                f"it is a gradient, 1 at most). {kernel} accepts by differences of a log density; "
                "no density has this score, its differences depend on the path, and what is drawn "
                "has no formula. Train an energy (nn.MLPEnergy in an EnergyDistribution), or draw "
                "with ULA or OverdampedLangevin, which need the score alone. "
                "diagnostics.conservativeness measures it where the draws are.",
                UserWarning,
                stacklevel=3,
            )
