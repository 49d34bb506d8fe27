# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A program has one word, in whatever order its inner programs take their operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from numpyro_scores.long_runs.operations import word_of

X, Y = jnp.ones(3), jnp.ones(3)


def word(f):
    return word_of(jax.make_jaxpr(f)(X, Y))


def loop(body):
    return lambda x, y: lax.fori_loop(0, 3, lambda _, carry: body(*carry), (x, y))


def asked_loop(body):
    """A loop that nobody knows the end of, which is no scan."""

    def f(x, y):
        start = (0.0, x, y)
        step = lambda carry: (carry[0] + 1, *body(*carry[1:]))  # noqa: E731
        return lax.while_loop(lambda carry: carry[0] < x[0], step, start)[1:]

    return f


def scanned(body, swap=False):
    def f(x, y):
        def step(carry, z):
            new = body(*(carry[::-1] if swap else carry), z)
            return (new[::-1] if swap else new), z

        start = (y, x) if swap else (x, y)
        end = lax.scan(step, start, jnp.arange(3.0))[0]
        return end[::-1] if swap else end

    return f


SAME = {
    "jit": (
        lambda x, y: jax.jit(lambda a, b: a - b)(x, y),
        lambda x, y: jax.jit(lambda b, a: a - b)(y, x),
    ),
    "scan": (
        scanned(lambda a, b, z: (a - b, a * z)),
        scanned(lambda a, b, z: (a - b, a * z), swap=True),
    ),
    "order of equations": (lambda x, y: (x + 1) * (y + 2), lambda x, y: _late(x, y)),
}
OTHER = {
    "operands": (lambda x, y: x - y, lambda x, y: y - x),
    "inner operands": (
        lambda x, y: jax.jit(lambda a, b: a - b)(x, y),
        lambda x, y: jax.jit(lambda a, b: b - a)(x, y),
    ),
    "literal": (lambda x, y: x + 2.0 * y, lambda x, y: x + 3.0 * y),
    "constant": (lambda x, y: x + np.arange(3.0), lambda x, y: x + 2 * np.arange(3.0)),
    "loop": (loop(lambda a, b: (a * b, b + 1)), loop(lambda a, b: (a * b, b + 2))),
    "one of a loop": (
        lambda x, y: loop(lambda a, b: (a * b, b + 1))(x, y)[0],
        lambda x, y: loop(lambda a, b: (a * b, b + 2))(x, y)[0],
    ),
    "one of a loop with a question": (
        lambda x, y: asked_loop(lambda a, b: (a * b, b + 1))(x, y)[0],
        lambda x, y: asked_loop(lambda a, b: (a * b, b + 2))(x, y)[0],
    ),
    "branch": (
        lambda x, y: lax.cond(x[0] > 0, lambda: x, lambda: y),
        lambda x, y: lax.cond(x[0] > 0, lambda: y, lambda: x),
    ),
}


def _late(x, y):
    right = y + 2
    return (x + 1) * right


@pytest.mark.parametrize("name", SAME)
def test_the_same_program_in_another_order_has_the_same_word(name):
    one, other = SAME[name]
    assert word(one) == word(other)


@pytest.mark.parametrize("name", OTHER)
def test_another_program_has_another_word(name):
    one, other = OTHER[name]
    assert word(one) != word(other)
