# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Whether a kernel leaves its target as it is, by exact tests of chains that begin stationary."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.flatten_util import ravel_pytree

from numpyro_scores._validation import check_count, check_key


class Invariance(NamedTuple):
    """
    What :func:`check_invariance` returns.

    - **p_values** - of the rounds, each of draws of its own: of the hypothesis that the kernel
      leaves the target as it is.
    - **largest** - the test function that differed most in the last round, and by how many standard
      errors, positive where it was larger after the kernel.
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
    num_flips: int = 9_999,
    **kwargs: Any,
) -> Invariance:
    r"""
    Check that a kernel leaves its target as it is: chains that start from independent exact draws
    are, after any number of steps, exact draws again. Neither burn-in nor autocorrelation matters.

    Each chain is paired with a fresh draw :math:`y_i`. For a right kernel :math:`f(x_i) - f(y_i)`
    has either sign with the same probability, so that the largest of

    .. math:: t_j = \frac{\sum_i f_j(x_i) - f_j(y_i)}{\sqrt{\sum_i (f_j(x_i) - f_j(y_i))^2}}

    has an exact p-value among those with random signs, whatever the test functions :math:`f`.

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
    :param num_flips: number of random choices of signs, of each round.
    :param kwargs: keyword arguments of the model.
    :raises AssertionError: if the kernel does not leave the target as it is.
    """
    check_count("num_steps", num_steps)
    functions = _moments if test_functions is None else test_functions
    exact_draws = jax.jit(jax.vmap(draw))

    def step(_, state):
        return kernel.sample(state, args, kwargs)

    @jax.jit
    def run(state):
        return lax.fori_loop(0, num_steps, step, state)

    @jax.jit
    def evaluate(values):
        return jax.vmap(lambda value: ravel_pytree(_as_floats(functions(value)))[0])(values)

    def test(key, num_chains):
        key_start, key_fresh, key_run, key_test = random.split(key, 4)
        start, fresh = (exact_draws(random.split(k, num_chains)) for k in (key_start, key_fresh))
        state = kernel.init(random.split(key_run, num_chains), 0, start, args, kwargs)
        values = evaluate(getattr(run(state), kernel.sample_field))
        finite = np.all(np.isfinite(values), axis=1)
        if not finite.all():
            raise AssertionError(
                f"{type(kernel).__name__} left the finite numbers in {np.sum(~finite)} of "
                f"{num_chains} chains that began with exact draws."
            )
        names = _names(functions(jax.tree.map(lambda x: x[0], fresh)))
        return *_flip_test(values - evaluate(fresh), key_test, num_flips), names

    return _in_rounds(test, key, num_chains, level, max_rounds, type(kernel).__name__)


def _in_rounds(
    test: Callable, key: Array, num_chains: int, level: float, max_rounds: int, name: str
) -> Invariance:
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
        p_value, t, names = test(key_round, size)
        p_values.append(float(p_value))
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


@partial(jax.jit, static_argnums=2)
def _flip_test(differences: Array, key: Array, num_flips: int) -> tuple[Array, Array]:
    """The p-value of the largest `t` among random signs of the rows, and all `t`."""
    scale = jnp.sqrt(jnp.sum(differences**2, axis=0, keepdims=True))
    units = differences / jnp.where(scale > 0, scale, 1)

    def largest(key):
        signs = random.rademacher(key, (1, len(units)), units.dtype)
        return jnp.max(jnp.abs(jnp.matmul(signs, units, precision=lax.Precision.HIGHEST)))

    t = jnp.sum(units, axis=0)
    measured = jnp.max(jnp.abs(t))
    others = lax.map(largest, random.split(key, num_flips), batch_size=500)
    # What is equal but for rounding is a tie, and counts; as does the one that was measured.
    count = 1 + jnp.sum(others >= measured * (1 - 1e-5))
    return count / (1 + num_flips), t


def _as_floats(tree: Any) -> Any:
    """With discrete values as floats, so that all have means."""
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x, float)), tree)


def _moments(value: Any) -> dict[str, Any]:
    """The values by name, and their products with each other."""
    value = _as_floats(value)
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
