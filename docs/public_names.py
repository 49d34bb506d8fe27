# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0
"""The public names of the package, each once, by the shortest address at which it is found."""

import importlib
from types import ModuleType

import numpyro_scores

# Modules that list nothing themselves: what users call there.
LISTED = {
    "numpyro_scores.handlers": (
        "noise_level",
        "guided",
        "at_noise_level",
        "noise_conditional_prior",
        "is_noise_conditional",
    ),
    "numpyro_scores.schedules": ("geometric", "karras"),
}


def members(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", ()) or LISTED[module.__name__])


def public_names() -> dict[str, object]:
    """
    What is behind each address, `ns.MALA` or `ns.infer.AdjustedState`; modules themselves left out.
    """
    listed = (getattr(numpyro_scores, name) for name in numpyro_scores.__all__)
    rooms = [value for value in listed if isinstance(value, ModuleType)]
    rooms.append(importlib.import_module("numpyro_scores.distributions"))
    found: dict[str, object] = {}
    for module in [numpyro_scores, *rooms]:
        prefix = "ns" + module.__name__.removeprefix("numpyro_scores")
        for name in members(module):
            value = getattr(module, name)
            if not isinstance(value, ModuleType) and not any(
                value is other for other in found.values()
            ):
                found[f"{prefix}.{name}"] = value
    return found
