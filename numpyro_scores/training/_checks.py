# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What `fit` looks at before and after it computes, and the words for what is wrong."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.errors import TraceContextError
from jax import Array
from numpyro.distributions import Distribution

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.training._batches import shape_of
from numpyro_scores.training._steps import Carried, LossFn
from numpyro_scores.training.results import FitResult

ORDER = "fit(module, objective, data, key=jax.random.key(0), num_steps=...)"


def check_arguments(module: Any, objective: Any, data: Any, key: Any) -> None:
    """Raise unless each of the first arguments of `fit` can be what it should be."""
    if isinstance(module, FitResult):
        raise TypeError("fit trains a module, got a FitResult: pass its module, fitted.module.")
    if isinstance(module, type):
        raise TypeError(f"fit trains a module, got the class {module.__name__}: make an instance.")
    looks_like_data = hasattr(objective, "dtype") or isinstance(objective, list | tuple | dict)
    if looks_like_data or isinstance(objective, nnx.Module | FitResult):
        raise TypeError(
            f"The second argument of fit is the objective, got {_a(objective)}. The order is "
            f"{ORDER}."
        )
    if isinstance(objective, type):
        raise TypeError(
            f"objective is the class {objective.__name__}: make an instance, such as "
            f"{objective.__name__}()."
        )
    if isinstance(objective, Distribution) or not callable(objective):
        raise TypeError(
            "objective must be a function objective(module, x, *, key) -> (), such as "
            "numpyro_scores.objectives.DenoisingScoreMatching(process), got "
            f"{_a(objective)}. A prior is made of what fit returns, and a kernel runs on that."
        )
    if isinstance(data, nnx.Module) or not (
        hasattr(data, "shape") or hasattr(data, "keys") or isinstance(data, Iterable)
    ):
        raise TypeError(
            "data must be an array of points, a dict of arrays or an iterable of batches, got "
            f"{_a(data)}. The order is {ORDER}."
        )
    check_key("fit", key)


def as_callbacks(callbacks: Any) -> list[Callable]:
    """Callbacks as a list: one function is a list of one."""
    found: list[Any] = [callbacks] if callable(callbacks) else list(callbacks or ())
    for callback in found:
        if not callable(callback):
            raise TypeError(f"Each of callbacks must be callable, got {_a(callback)}.")
    return found


def check_optimizer(optimizer: Any) -> None:
    """Raise unless it is one of Optax."""
    if not (callable(getattr(optimizer, "init", None)) and hasattr(optimizer, "update")):
        raise TypeError(
            f"optimizer must be one of Optax, such as optax.adam(1e-3), got {_a(optimizer)}."
        )


def _a(value: Any) -> str:
    shape = f" of shape {value.shape}" if hasattr(value, "dtype") else ""
    if value is None or isinstance(value, int | float | str):
        return repr(value)
    return (
        f"a function, {value.__qualname__}"
        if hasattr(value, "__code__")
        else (f"{type(value).__name__}{shape}")
    )


def check_options(
    *, ema_decay: float, validation: Any, patience: int | None, precision: Any, **counts: Any
) -> None:
    """Raise unless the options of `fit` are in range."""
    for name, value in counts.items():
        check_count(name, value)
    if not 0 <= ema_decay < 1:
        raise ValueError(f"ema_decay must be in [0, 1), got {ema_decay!r}.")
    if patience is not None:
        check_count("patience", patience)
        if validation is None:
            raise ValueError(
                f"patience={patience} counts validation losses: give points that are held out, "
                "validation=..., too."
            )
    if precision is not None and not jnp.issubdtype(precision, jnp.floating):
        raise ValueError(
            f"precision must be a type of floats such as jnp.bfloat16, got {precision!r}."
        )


def checked_jaxpr(
    loss_fn: LossFn, params: Any, data: Any, batch: Any, carried: Carried, key: Array
) -> Any:
    """The loss as a program, traced before anything is computed: a wrong shape is told in words."""
    try:
        jaxpr, (loss, after) = jax.make_jaxpr(loss_fn, return_shape=True)(
            params, batch, carried, key
        )
    except TraceContextError as error:
        raise ValueError(
            "The module changes a variable of its own (batch statistics, say) where the objective "
            "maps it over single points, whose values can't be kept. Take a layer without such a "
            "variable, such as nnx.LayerNorm or nnx.GroupNorm, one that only reads it "
            "(nnx.BatchNorm(..., use_running_average=True)), or an objective of your own that "
            f"calls the module on the whole batch. Flax said: {error}"
        ) from error
    except Exception as error:
        raise ValueError(
            f"The objective can't be evaluated on a batch of shape {shape_of(batch)} from data of "
            f"shape {shape_of(data)}: the module must take one point of shape "
            f"{jax.tree.map(lambda x: x.shape[1:], data)}. It said: {error}"
        ) from error
    _check_carried(carried, after)
    if loss.shape != ():
        raise ValueError(f"The objective must return a loss of shape (), got shape {loss.shape}.")
    return jaxpr


def _check_carried(before: Carried, after: Carried) -> None:
    for name, old, new in zip(("objective", "module"), before, after, strict=True):
        kinds = [jax.tree.map(lambda x: (jnp.shape(x), str(x.dtype)), tree) for tree in (old, new)]
        if jax.tree.structure(old) != jax.tree.structure(new) or kinds[0] != kinds[1]:
            raise ValueError(
                f"The state of the {name} must keep its structure, shapes and dtypes from step to "
                f"step, but {kinds[0]} became {kinds[1]}."
            )


def check_finite(losses: np.ndarray, start: int, params: Any) -> None:
    """Raise unless the losses from `start` on, and the parameters after them, are finite."""
    remedy = (
        "Lower the optimizer's step size or clip its gradients (optax.clip_by_global_norm); if it "
        "is the first step, look at the scale of the data and at the module's output on one point."
    )
    bad = np.flatnonzero(~np.isfinite(losses[start:]))
    if len(bad):
        t = start + int(bad[0])
        before = f"{losses[t - 1]:.4g} the step before" if t else "it is the first step"
        raise FloatingPointError(f"The loss is {losses[t]} at step {t} ({before}). {remedy}")
    if not _all_finite(params):
        raise FloatingPointError(
            f"The loss {losses[-1]:.4g} of step {len(losses) - 1} is finite, but its gradient or "
            f"update was not: the parameters no longer are. {remedy}"
        )


@jax.jit
def _all_finite(tree: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))
