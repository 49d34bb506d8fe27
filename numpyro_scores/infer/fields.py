# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What a state of a kernel says of a field that it does not have."""

from typing import Any

# NumPyro's names of what HMC and NUTS report, and what comes nearest here.
ELSEWHERE = {
    "num_steps": "num_grad_evals counts gradients",
    "energy": "there is no momentum at the end of a draw, only a potential_energy",
    "mean_accept_prob": "this kernel accepts all that is finite",
    "accept_prob": "this kernel accepts all that is finite",
    "r": "there is no momentum at the end of a draw",
    "trajectory_length": "there is none that is fixed",
}


def by_position(state: Any, index: Any) -> Any:
    """
    `__getitem__` of a state. NumPyro's `MCMC.run(..., extra_fields=(name,))` asks by name for what
    is no attribute.

    :raises ValueError: if `index` is a name.
    """
    if not isinstance(index, str):
        return tuple.__getitem__(state, index)
    hint = f" ({ELSEWHERE[index]})" if index in ELSEWHERE else ""
    raise ValueError(
        f"{type(state).__name__} has no field {index!r}{hint}. Its fields, for extra_fields, are "
        f"{list(state._fields)}."
    )
