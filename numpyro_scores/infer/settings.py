# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Keyword arguments that several kernels share, written once."""

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any


def takes_settings_of(base: type, but: Sequence[str] = ()) -> Callable[[Callable], Any]:
    """
    Of a function that hands `**settings` on to a class: its signature names them all, with the
    defaults of the class.

    :param base: the class, whose keyword-only arguments these are.
    :param but: names of those that the function does not take.
    :raises TypeError: by the function, for a keyword that the signature does not have.
    """
    of_base = signature(base.__init__).parameters.values()
    inherited = {p.name: p for p in of_base if p.kind is Parameter.KEYWORD_ONLY}

    def decorate(function: Callable) -> Any:
        own = signature(function)
        positional = [p for p in own.parameters.values() if p.kind < Parameter.VAR_POSITIONAL]
        keywords = {p.name: p for p in own.parameters.values() if p.kind is Parameter.KEYWORD_ONLY}
        taken = {name: p for name, p in (inherited | keywords).items() if name not in but}
        whole = Signature([*positional, *taken.values()], return_annotation=own.return_annotation)

        name = getattr(function, "__qualname__", repr(function))

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            try:
                whole.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{name}() {error}.") from None
            return function(*args, **kwargs)

        checked.__dict__["__signature__"] = whole
        return checked

    return decorate
