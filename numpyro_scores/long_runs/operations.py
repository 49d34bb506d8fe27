# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""
A word for what a program computes that is the same in every process.

The text of a program is not: NumPyro flattens some distributions in the order of a set of names,
which depends on the hash seed of the process, and inner programs then take their operands in
another order. So each value gets a word by what makes it: the operation and the words of its
operands, through the inner programs.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from numpyro_scores._words import nameless, to_numpy
from numpyro_scores.training._identity import fingerprint


def word_of(closed: ClosedJaxpr) -> str:
    """The words of all that a program gives, as one."""
    words = [_word("argument", i, v.aval) for i, v in enumerate(closed.jaxpr.invars)]
    return _word(*_words(closed, words))


def _word(*parts: Any) -> str:
    return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:16]


def _words(program: ClosedJaxpr | Jaxpr, operands: Sequence[str]) -> list[str]:
    """Of the outputs, given those of the arguments."""
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    consts = program.consts if isinstance(program, ClosedJaxpr) else ()
    words: dict[Any, str] = dict(zip(jaxpr.invars, operands, strict=True))
    for variable, value in zip(jaxpr.constvars, consts, strict=True):
        words[variable] = fingerprint([to_numpy(value)])

    def read(value: Any) -> str:
        if isinstance(value, Literal):
            return _word("literal", value.aval, np.asarray(value.val).tolist())
        return words[value]

    for equation in jaxpr.eqns:
        made = _outputs(equation, [read(value) for value in equation.invars])
        words.update(zip(equation.outvars, made, strict=True))
    return [read(value) for value in jaxpr.outvars]


def _outputs(equation: Any, operands: list[str]) -> list[str]:
    name, params = equation.primitive.name, equation.params
    settings = [
        f"{key}={nameless(value)}"
        for key, value in sorted(params.items())
        if not (_programs_of(value) or callable(value))
    ]
    programs = [p for value in params.values() for p in _programs_of(value)]
    if name == "while":
        of_cond, of_body = params["cond_nconsts"], params["body_nconsts"]
        carry = operands[of_cond + of_body :]
        made = _words(params["body_jaxpr"], operands[of_cond:])
        asked = _words(params["cond_jaxpr"], operands[:of_cond] + carry)
        together = [*asked, *sorted(_word(*pair) for pair in zip(made, carry, strict=True))]
    elif name == "cond":
        branches = [_words(branch, operands[1:]) for branch in params["branches"]]
        made = [_word(*same) for same in zip(*branches, strict=True)]
        together = [operands[0]]
    elif len(programs) == 1 and len(_arguments(programs[0])) == len(operands):
        made = _words(programs[0], operands)
        # A loop makes its values of each other, in any order.
        together = [*settings, *sorted(made)] if name == "scan" else []
    else:  # by its operands, in their order
        inner = [
            _word(*_words(p, [_word("argument", i, v.aval) for i, v in enumerate(_arguments(p))]))
            for p in programs
        ]
        made = [str(i) for i in range(len(equation.outvars))]
        together = [*settings, *inner, *operands]
    return [_word(name, value, *together) for value in made]


def _programs_of(value: Any) -> list[ClosedJaxpr | Jaxpr]:
    def is_program(x: Any) -> bool:
        return isinstance(x, ClosedJaxpr | Jaxpr)

    return [x for x in jax.tree.leaves(value, is_leaf=is_program) if is_program(x)]


def _arguments(program: ClosedJaxpr | Jaxpr) -> list[Any]:
    return (program.jaxpr if isinstance(program, ClosedJaxpr) else program).invars
