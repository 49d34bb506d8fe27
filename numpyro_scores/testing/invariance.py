# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether a kernel leaves its target as it is, by exact tests of chains that begin stationary."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.diagnostics.calibration.geweke import as_floats, geweke_test
from numpyro_scores.diagnostics.calibration.simulation_based import KernelOf
from numpyro_scores.diagnostics.two_sample.moment_tests import NUM_PERMUTATIONS, mean_test


class Invariance(NamedTuple):
    """
    What :func:`check_invariance` and :func:`check_joint_invariance` return.

    - **p_values** - of the rounds, each of draws of its own: of the hypothesis that the kernel
      leaves the target as it is.
    - **largest** - the test function that differed most in the last round, and its `t`, positive
      where it was larger after the kernel.
    """

    p_values: list[float]
    largest: tuple[str, float]


def check_invariance(
    kernel: Any,
    draw: Callable[[Array], Any],
    *args: Any,
    key: Array,
    num_chains: int = 1000,
    num_steps: int = 5,
    test_functions: Callable[[Any], Any] | None = None,
    level: float = 1e-5,
    max_rounds: int = 7,
    num_permutations: int = NUM_PERMUTATIONS,
    **kwargs: Any,
) -> Invariance:
    r"""
    Check that a kernel leaves its target as it is: chains that start from independent exact draws
    are, after any number of steps, exact draws again. The means of test functions after `num_steps`
    steps are compared with those of fresh draws by :func:`numpyro_scores.diagnostics.mean_test`:
    neither burn-in nor autocorrelation matters, and nothing but chance can fail a right kernel.

    A p-value that is neither small nor large is followed by a round of four times as many chains
    (Gandy & Scott 2021, "Unit testing for MCMC and other Monte Carlo methods", algorithm 3): a
    right kernel fails with a probability of at most `level`, and mostly takes one round. A kernel
    that stands still passes: see :func:`check_kernel`.

    :param kernel: the kernel, with its settings given: there is no warmup.
    :param draw: an independent exact draw of the target by a key, in the coordinates of
        `init_params`: of a NumPyro model the unconstrained values, a dict by site.
    :param args: arguments of the model.
    :param key: key of all that is random.
    :param num_chains: number of chains, and of fresh draws, of the first round.
    :param num_steps: number of draws of the kernel.
    :param test_functions: from one draw to a pytree of numbers; None are all values and their
        products with each other, of up to 20 values, or else their squares.
    :param level: the largest probability with which a right kernel fails.
    :param max_rounds: the largest number of rounds.
    :param num_permutations: number of permutations of each test.
    :param kwargs: keyword arguments of the model.
    :raises AssertionError: if the kernel does not leave the target as it is.
    """
    check_count("num_steps", num_steps)
    functions = _moments if test_functions is None else test_functions

    def step(_, state):
        return kernel.sample(state, args, kwargs)

    @jax.jit
    def run(state):
        return lax.fori_loop(0, num_steps, step, state)

    @jax.jit
    def evaluate(values):
        return jax.vmap(lambda value: ravel_pytree(as_floats(functions(value)))[0])(values)

    def test(key, num_chains):
        key_start, key_fresh, key_run, key_test = random.split(key, 4)
        start, fresh = (
            jax.jit(jax.vmap(draw))(random.split(k, num_chains)) for k in (key_start, key_fresh)
        )
        state = kernel.init(random.split(key_run, num_chains), 0, start, args, kwargs)
        values = [evaluate(getattr(run(state), kernel.sample_field)), evaluate(fresh)]
        finite = np.all(np.isfinite(values[0]), axis=1)
        if not finite.all():
            raise AssertionError(
                f"{type(kernel).__name__} left the finite numbers in {np.sum(~finite)} of "
                f"{num_chains} chains that began with exact draws."
            )
        found = mean_test(*values, key=key_test, num_permutations=num_permutations)
        names = _names(functions(jax.tree.map(lambda x: x[0], fresh)))
        return float(found.p_value), names, found.t

    return _in_rounds(test, key, num_chains, level, max_rounds, type(kernel).__name__)


def check_joint_invariance(
    model: Callable,
    kernel: KernelOf,
    *args: Any,
    observed: Sequence[str],
    key: Array,
    num_chains: int = 500,
    num_rounds: int = 5,
    num_steps: int = 1,
    level: float = 1e-5,
    max_rounds: int = 7,
) -> Invariance:
    """
    :func:`check_invariance` of a kernel on a model whose posterior is not known: parameters and
    data are drawn together, and the kernel given new data moves the parameters, in turn
    (:func:`numpyro_scores.diagnostics.geweke_test`, with the rounds of :func:`check_invariance`).

    :param model: a NumPyro model, called without data: all of its sites are drawn.
    :param kernel: the kernel of a model, such as `lambda model: ns.MALA(model, step_size=0.1,
        adapt_step_size=False)`.
    :param args: arguments of the model.
    :param observed: names of the sites that are the data.
    :param key: key of all that is random.
    :param num_chains: number of chains, and of fresh draws, of the first round.
    :param num_rounds: how often parameters and data are renewed in turn.
    :param num_steps: steps of the kernel between new data.
    :param level: the largest probability with which a right kernel fails.
    :param max_rounds: the largest number of rounds of tests.
    :raises AssertionError: if the kernel does not leave the joint density as it is.
    """

    def test(key, num_chains):
        found = geweke_test(
            model,
            kernel,
            *args,
            observed=observed,
            key=key,
            num_chains=num_chains,
            num_rounds=num_rounds,
            num_steps=num_steps,
        )
        by_function = {
            **found.first,
            **{f"{site}^2": t for site, t in found.second.items()},
            "log joint density": found.log_joint,
        }
        return float(found.p_value), _names(by_function), ravel_pytree(by_function)[0]

    return _in_rounds(test, key, num_chains, level, max_rounds, "The kernel")


def _in_rounds(test, key, num_chains, level, max_rounds, name) -> Invariance:
    """The rounds of Gandy & Scott (2021, algorithm 3), with the largest number of them `k`."""
    check_count("num_chains", num_chains)
    check_count("max_rounds", max_rounds)
    check_key("The test of invariance", key)
    if not 0 < level < 1:
        raise ValueError(f"level must be a probability between 0 and 1, got {level!r}.")
    p_values = []
    for key_round, fails_at, passes_above in zip(
        random.split(key, max_rounds), *_limits(level, max_rounds), strict=True
    ):
        size = num_chains if not p_values else 4 * num_chains
        p_value, names, t = test(key_round, size)
        p_values.append(p_value)
        worst = int(jnp.argmax(jnp.abs(t)))
        largest = names[worst], float(t[worst])
        if p_value <= fails_at:
            raise AssertionError(
                f"{name} does not leave its target as it is: after it, the mean of {largest[0]} is "
                f"off by {largest[1]:.1f} standard errors among {size} exact draws; the p-values "
                f"of the rounds are {', '.join(f'{p:.3g}' for p in p_values)}, where a right "
                f"kernel fails with a probability of {level:g}. Look at the acceptance ratio (is "
                "the density of the proposal in it, both ways?), at what a rejection keeps, and "
                "at what is adapted while it draws."
            )
        if p_value > passes_above:
            break
    return Invariance(p_values, largest)


def _limits(level: float, max_rounds: int) -> tuple[list[float], list[float]]:
    """
    At which p-values each round fails, and above which it passes. With :math:`\\beta = \\alpha / k`
    and :math:`\\gamma = \\beta^{1/k}` round `i` is reached with a probability of at most
    :math:`\\gamma^i` and fails at :math:`\\beta\\gamma^{-i}`, so all together at :math:`k\\beta`.
    """
    beta = level / max_rounds
    gamma = beta ** (1 / max_rounds)
    fails = [beta * gamma**-i for i in range(max_rounds)]
    # The last round decides.
    return fails, [gamma + f for f in fails[:-1]] + [fails[-1]]


def _moments(value: Any) -> dict[str, Any]:
    """The values by name, and their products with each other."""
    value = as_floats(value)
    flat, _ = ravel_pytree(value)
    products = jnp.outer(flat, flat)[jnp.triu_indices(len(flat))] if len(flat) <= 20 else flat**2
    return {"values": value, "products": products}


def _names(tree: Any) -> list[str]:
    """The name of each number in a pytree, in the order of `ravel_pytree`."""
    return [
        name
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        for name in _of_entries(jax.tree_util.keystr(path), jnp.shape(leaf))
    ]


def _of_entries(name: str, shape: tuple[int, ...]) -> Iterator[str]:
    for index in np.ndindex(shape):
        yield f"{name}{list(index)}" if shape else name
