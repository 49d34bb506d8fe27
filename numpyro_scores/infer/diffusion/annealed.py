# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Annealed Langevin dynamics through the noise levels of a diffusion prior."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree

from numpyro_scores._validation import check_count, check_positive
from numpyro_scores.curvature import NUM_FIRST_ITERATIONS, NUM_ITERATIONS
from numpyro_scores.infer.diffusion.base import NoiseLevelKernel
from numpyro_scores.infer.diffusion.draws import Draw, independent_draws
from numpyro_scores.infer.diffusion.gauss_newton import (
    GaussNewton,
    LevelMetric,
    standard_locations,
)
from numpyro_scores.infer.diffusion.walk import GroupedLangevin
from numpyro_scores.infer.model import FlatModel
from numpyro_scores.integrators import BAOAB, Integrator, OverdampedIntegrator


class AnnealedLangevin(NoiseLevelKernel):
    r"""
    Annealed Langevin dynamics (Song & Ermon 2019, algorithm 1) for a model with one or more
    noise-conditional priors (:class:`~numpyro_scores.DiffusionPrior`) and any likelihood.

    Each draw is one full anneal from fresh prior draws, so the draws are **independent**: the
    priors start at the largest noise level, all other sites (a noise scale, say) at a draw of
    their own prior, and then all sites move together by Langevin steps at each noise level. The
    draws of a warmup, which would serve nothing, are not made (but within NumPyro's `Gibbs` they
    are). The draws of a diffusion site are of the smallest noise level.

    A `TransformedDistribution` of such a prior (other units, say) is annealed in the prior's own
    coordinates, and a prior whose log density is scaled (`numpyro.handlers.scale`) to that power.

    The result is **approximate**: the dynamics lags behind the noise levels, and with
    `denoised=True` the likelihood at noise level :math:`\sigma` is that of
    :math:`E[x_0 \mid x_\sigma]` (diffusion posterior sampling; Chung et al. 2023), which is exact
    only as :math:`\sigma \to 0`. More levels and more steps lessen both.

    :param model: a NumPyro model with a noise-conditional prior; its other latent sites must be
        continuous.
    :param step_size: by default the steps follow the curvature. In bursts of `num_steps` steps,
        Hessian-vector products measure the largest curvature of each group of sites
        (:func:`~numpyro_scores.curvature.largest_curvature`), and the group steps by half its
        inverse, :math:`1 / \Lambda`, or half of :math:`\sigma / \sqrt\Lambda` if that is less; the
        diffusion priors are one group, each other site is one, with :math:`\sigma = 1`. All that
        is in the coordinates of the `metric`. A number is, without a metric, the step `h` at the
        smallest noise level, times :math:`\sigma^2 / \sigma_{\min}^2` at the others and the same
        for all sites (half of the :math:`\epsilon` of Song & Ermon).
    :param num_steps: number of steps at each noise level. With a momentum and no `step_size` there
        are more where the data make the steps small: bursts of as many, up to 20, in proportion to
        :math:`\sigma \sqrt\Lambda` for a curvature :math:`\Lambda`. So a small noise scale costs
        time and asks for no tuning, but less of it with a `metric`.
    :param num_levels: number of geometric noise levels, at least 2, over the range of the priors'
        processes.
    :param noise_levels: the noise levels themselves, decreasing, in place of `num_levels`.
    :param denoised: whether the likelihood sees the denoised value or the noisy one.
    :param integrator: the one-step map. :class:`~numpyro_scores.BAOAB` carries a momentum, so that
        directions that the data say little about keep up when a small noise makes all steps small.
    :param friction: of an underdamped integrator, friction times time step (:math:`\sqrt{2h}`); by
        default 0.2, or :math:`2 / (\sigma \sqrt\Lambda)` if that is less.
    :param metric: :class:`~numpyro_scores.GaussNewton`, in which directions that the data hold fast
        are not stiff: 1,140 to 1,340 gradients a draw of four numbers at any noise, where up to
        17,100 were needed; or None.
        With a `step_size` that is given there is none.
    :param num_corrections: number of steps of MALA after each draw, which leave the posterior as it
        is; for priors that are made of an energy. The field `correction` says by how many nats they
        have raised the log density of the draw, on average 0 where draws were exact before.
    :raises ValueError: if an overdamped integrator is given a friction, `integrator` is none, or
        `metric` is not one of these.
    :raises ValueError: at `init`, if the model has no noise-conditional prior, one at a level of
        its own that the anneal would pass (`prior.at(sigma)`) or one inside of `scan` or `cond`, a
        random subsample of its data or a discrete site, or if the potential energy is not finite
        (data with NaN).

    Steps that leave the finite numbers are not made, a burst at a time, and `diverging` says so.
    `init_params` are checked but do not matter: an anneal starts from the prior.

    A run gives no weights of its draws and no evidence: annealed importance sampling along these
    levels, however well each is mixed, would have log weights of variance 2 for four numbers with
    noise 1, and of 950 with noise 0.03, since the posterior moves by up to five of its own standard
    deviations from one level to the next. :class:`~numpyro_scores.NoiseLevelSMC`, which carries
    particles along with it, has both for priors of an energy;
    :class:`~numpyro_scores.TwistedDiffusionSampler` and :class:`~numpyro_scores.TemperedSMC` for
    those that are known by a score.
    """

    approximation = (
        "AnnealedLangevin lags behind its noise levels, where the likelihood is that of a point "
        "estimate: weights of far modes and rare values come out wrong first; more num_levels and "
        "num_steps lessen it. It gives no weights of its draws and no evidence: NoiseLevelSMC has "
        "both for a prior of an energy, TwistedDiffusionSampler and TemperedSMC for any other"
    )
    biases_other_sites = False

    def __init__(
        self,
        model: Callable,
        *,
        step_size: float | None = None,
        num_steps: int = 5,
        num_levels: int = 100,
        noise_levels: Sequence[float] | Array | None = None,
        denoised: bool = True,
        integrator: Integrator = BAOAB(),
        friction: float | None = None,
        metric: GaussNewton | None = GaussNewton(),
        num_corrections: int = 0,
    ):
        super().__init__(
            model,
            num_levels=num_levels,
            noise_levels=noise_levels,
            denoised=denoised,
            num_corrections=num_corrections,
        )
        if step_size is not None:
            check_positive("step_size", step_size)
        check_count("num_steps", num_steps)
        if not isinstance(integrator, Integrator):
            raise ValueError(f"integrator must be one such as BAOAB(), got {integrator!r}.")
        if friction is not None:
            if isinstance(integrator, OverdampedIntegrator):
                raise ValueError(f"{integrator!r} has no friction, got friction={friction!r}.")
            check_positive("friction", friction)
        if not (metric is None or isinstance(metric, GaussNewton)):
            raise ValueError(
                "metric of AnnealedLangevin must be GaussNewton(rank=...), by the data, or None, "
                f"got {metric!r}. There is no warmup that Diagonal(), Dense() or LowRank() "
                "could learn from: its draws are independent."
            )
        self._step_size = step_size
        self._num_steps = num_steps
        self._integrator = integrator
        self._friction = friction
        self._metric = metric

    @independent_draws
    def _sample_chain(self, state, model_args, model_kwargs):
        rng_key, key_start, key_noise, key_directions, key_levels = random.split(state.rng_key, 5)
        x, unravel = ravel_pytree(self._start(key_start, model_args, model_kwargs))
        levels = jnp.asarray(self._levels(), x.dtype)
        groups = self._groups(state.z)
        langevin = GroupedLangevin(groups, self._num_steps, self._integrator, self._friction)
        metric = self._level_metric(groups, x, levels[0], unravel, model_args, model_kwargs)

        def level(carry, inputs):
            walk, scout = carry
            sigma, num_iterations, key = inputs
            potential_fn = self.get_potential_fn(model_args, model_kwargs, sigma=sigma)
            gradient = jax.grad(lambda x: potential_fn(unravel(x)))
            step_size, root, cost = None, None, 0
            if self._step_size is not None:
                step_size = self._step_size * (sigma / levels[-1]) ** 2
            if metric is not None:
                key, key_scout = random.split(key)
                is_wanted = langevin.is_spared(walk, sigma, metric.num_grad_evals)
                is_wanted = is_wanted & ~scout.is_apart
                curvature = walk.curvatures[0]
                scout = metric.moved(
                    key_scout, scout, walk.x, gradient, sigma, curvature, is_wanted
                )
                root = scout.root
                cost = 1 + jnp.where(is_wanted, metric.num_grad_evals - 1, 0)
            walk, num_grad_evals = langevin.run(
                key, walk, gradient, sigma, num_iterations, step_size, root
            )
            if metric is not None:
                scout = metric.compared(scout, walk.in_metric, is_wanted)
            return (walk, scout), num_grad_evals + cost

        num_iterations = np.full(len(levels), NUM_ITERATIONS)
        num_iterations[0] = NUM_FIRST_ITERATIONS
        inputs = (levels, num_iterations, random.split(key_levels, len(levels)))
        walk = langevin.start(x, key_noise, key_directions)
        scout = None
        if metric is not None:
            start = self._start(random.fold_in(key_start, 1), model_args, model_kwargs)
            scout = metric.start(ravel_pytree(start)[0], levels[0])
        (walk, _), num_grad_evals = lax.scan(level, (walk, scout), inputs)
        draw = Draw(
            z=unravel(walk.x),
            diverging=walk.diverging,
            num_grad_evals=jnp.sum(num_grad_evals),
            rng_key=rng_key,
        )
        return self._corrected(draw, groups, model_args, model_kwargs)

    def _level_metric(self, groups, x, sigma, unravel, model_args, model_kwargs):
        """The metrics of the noise levels, or None."""
        if self._metric is None or self._step_size is not None:
            return None
        like = unravel(x)

        def locations(sigma, x):
            model = FlatModel(self._at(sigma), model_args, model_kwargs, like=like)
            return standard_locations(model.sites(x), x.dtype)

        metric = LevelMetric(self._metric, locations, groups.index == 0, sigma, x)
        return metric if metric.num_directions else None
