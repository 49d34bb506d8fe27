# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a run is a run of, in words that are the same in every process: a store tells by them."""

from typing import Any

import jax
import numpy as np
import numpyro

import numpyro_scores.version
from numpyro_scores._words import nameless, to_numpy
from numpyro_scores.training._identity import fingerprint, name_of

FORMAT = 2


def record_of_run(
    *,
    kernel: str,
    program: str,
    keys: Any,
    data: Any,
    init_params: Any,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """
    :param kernel: the name of its class.
    :param program: what a step computes, as a word.
    :param keys: of the chains.
    :param data: what the model is called with, a pytree.
    :param init_params: a pytree or None.
    :param settings: what else decides what the draws are.
    """
    return {
        "format": FORMAT,
        "kernel": kernel,
        "settings": settings,
        "data": _digests(data),
        "init_params": _digests(init_params),
        "seed": fingerprint(to_numpy(keys)),
        "model and kernel": program,
        "versions": {
            "jax": jax.__version__,
            "numpyro": numpyro.__version__,
            "numpyro_scores": numpyro_scores.version.__version__,
        },
        "platform": jax.default_backend(),
    }


def _digests(tree: Any) -> dict[str, str]:
    return {name_of(path): _digest(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def _digest(x: Any) -> str:
    if isinstance(x, jax.Array | np.ndarray | np.generic):
        return fingerprint([x])
    return nameless(x)


def why_other(there: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What of two runs is not the same, in words; nothing if one may go on with the other."""
    if there.get("format") != now["format"]:
        return [f"the version of the format is {there.get('format')}, here {now['format']}"]
    found = []
    if there["kernel"] != now["kernel"]:
        found.append(f"the kernel is {there['kernel']}, here {now['kernel']}")
    for name in sorted({*there["settings"], *now["settings"]}):
        # What an older store does not name was not there yet: off.
        a, b = there["settings"].get(name, False), now["settings"].get(name, False)
        if a != b:
            found.append(f"{name} is {a!r}, here {b!r}")
    for what, words in (("data", "argument"), ("init_params", "init_params")):
        a, b = there[what], now[what]
        other = sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
        found += [
            f"the {words} {name or 'itself'} has other values or another shape" for name in other
        ]
    if there["seed"] != now["seed"]:
        found.append("the random key is another")
    for name in sorted({*there["versions"], *now["versions"]}):
        a, b = there["versions"].get(name), now["versions"].get(name)
        if a != b:
            found.append(f"it was written under {name} {a}, and this is {b}")
    if there["platform"] != now["platform"]:
        found.append(f"it was drawn on {there['platform']}, and this is {now['platform']}")
    # Another version or other data make another program: say what is known.
    if not found and there["model and kernel"] != now["model and kernel"]:
        found.append("the model, or a setting of the kernel, is another")
    return found
