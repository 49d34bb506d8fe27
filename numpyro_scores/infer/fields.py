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


def no_such_field(state: Any, name: str) -> Any:
    """`__getattr__` of a state, for `MCMC.run(..., extra_fields=(name,))`."""
    if name.startswith("_"):  # protocols of Python and JAX that ask whether there is one
        raise AttributeError(name)
    hint = f" ({ELSEWHERE[name]})" if name in ELSEWHERE else ""
    raise AttributeError(
        f"{type(state).__name__} has no field {name!r}{hint}. Its fields, for extra_fields, are "
        f"{list(state._fields)}."
    )
