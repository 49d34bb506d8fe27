# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Which kernels replica exchange can wrap."""

from collections.abc import Callable
from typing import Any

from numpyro.infer.mcmc import MCMCKernel


def model_to_wrap(kernel: Any) -> Callable:
    """
    The model of a kernel.

    :raises ValueError: if replica exchange cannot wrap the kernel.
    """
    name = kernel.__name__ if isinstance(kernel, type) else type(kernel).__name__
    if isinstance(kernel, type):
        raise TypeError(f"ReplicaExchange takes a kernel, {name}(model), got its class {name}.")
    if not isinstance(kernel, MCMCKernel):
        raise TypeError(
            f"ReplicaExchange takes a kernel, such as MALA(model), got {name}. A distribution is "
            "drawn from by a kernel of the model that samples it: "
            "MALA(lambda: numpyro.sample('x', prior))."
        )
    if reason := getattr(kernel, "_why_not_swapped", None):
        raise ValueError(f"ReplicaExchange cannot wrap {name}: {reason}")
    missing = [
        method
        for method in ("wrap_model", "refresh", "get_potential_fn")
        if getattr(type(kernel), method, None) is getattr(MCMCKernel, method, None)
    ]
    if missing:
        raise ValueError(
            f"ReplicaExchange cannot wrap {name}, which does not implement {missing}. Use a kernel "
            "of this package, such as MALA, or NumPyro's HMC, NUTS or DiscreteGibbs."
        )
    if kernel.model is None:
        raise ValueError(
            f"ReplicaExchange tempers a model, but {name} was built from a potential_fn: use a "
            "model with an EnergyDistribution, or an ImproperUniform site and numpyro.factor."
        )
    if getattr(kernel, "_find_heuristic_step_size", False):
        raise ValueError(
            f"{name}(find_heuristic_step_size=True) keeps the density that it started with, but "
            "each rung has its own: leave it False, and warmup adapts the step size of each rung."
        )
    return kernel.model
