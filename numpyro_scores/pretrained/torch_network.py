# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A network of torch as a function of JAX: torch computes its values and its derivatives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from numpyro_scores._validation import check_event


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class TorchNetwork:
    """
    What :func:`from_torch` makes: `network(x, *conditions)` on one unbatched point. A pytree
    without leaves: the weights stay in torch.

    :param module: the network.
    :param event_shape: the shape of a point.
    """

    module: Callable[..., Any] = field(metadata={"static": True})
    event_shape: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Array, *conditions: Array) -> Array:
        """
        :param x: one point, shape `event_shape`.
        :param conditions: numbers that the network sees, such as a time; shape `()` each.
        :return: shape `event_shape`, of the dtype of `x`.
        """
        check_event("TorchNetwork", x, self.event_shape)
        x = jnp.asarray(x, jnp.result_type(x, float))
        conditions = [jnp.asarray(c, x.dtype) for c in conditions]
        return _value_p.bind(x, *conditions, host=_Host(self.module, x.ndim))


def from_torch(module: Callable[..., Any], event_shape: tuple[int, ...]) -> TorchNetwork:
    r"""
    A network of torch as a function of JAX, for a denoiser: torch itself computes the values, and
    the derivatives by its own automatic differentiation, called from JAX on the host. So it works
    with any version and any operation of torch, under `jit`, `vmap`, `grad`, `jvp` and `lax.scan`;
    a batch of `vmap` is one call with a batch. What it costs is a copy in and out at every call, and
    a gradient runs the network once more. There are no second derivatives.

    :param module: a `torch.nn.Module` after `module.eval()`, or any function of tensors:
        `module(x, *conditions)` with `x` of shape `(batch, *event_shape)` and conditions of shape
        `(batch,)` returns a tensor of the shape of `x`. One that returns something else, such as an
        output of diffusers with its tensor in `sample`, is wrapped: `lambda x, t: unet(x,
        t).sample`. A module computes in the dtype of its weights and on their device, a function on
        the CPU in that of `x`.
    :param event_shape: the shape of one point as the network has it, `(channels, height, width)`
        for pictures. Nothing is turned around: a prior of it has this event shape.
    :return: `network(x, *conditions) -> x.shape` on one unbatched point, in the dtype of `x`, which
        `EpsilonPrediction` and its kin take.
    :raises ImportError: if torch isn't installed.
    :raises ValueError: if the module is in training mode, where dropout makes it another function
        at each call.
    """
    _torch()
    if not callable(module):
        raise TypeError(f"module must be a torch.nn.Module or a function, got {module!r}.")
    if getattr(module, "training", False):
        raise ValueError(
            f"from_torch takes a network that is used, but {type(module).__name__} is in training "
            "mode, in which dropout and the like make it another function at each call: call "
            "module.eval() first."
        )
    return TorchNetwork(module, tuple(event_shape))


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "from_torch needs torch, which isn't a dependency of numpyro_scores: `pip install "
            "torch`. Models of diffusers and of EDM do without: see load_diffusers and load_edm."
        ) from error
    return torch


@dataclass(frozen=True)
class _Host:
    """
    What torch computes, of arrays with any number of batch axes before those of a point.

    :param module: the network.
    :param event_ndim: how many axes a point has.
    """

    module: Callable[..., Any]
    event_ndim: int

    def _tensors(self, arrays: Any) -> list[Any]:
        """As one batch, points first and then conditions, in the dtype of the weights."""
        torch = _torch()
        first = next(iter(getattr(self.module, "parameters", lambda: iter(()))()), None)
        options = {} if first is None else {"dtype": first.dtype, "device": first.device}
        # A copy, since torch warns of arrays that it can't write; torch has no bfloat16 of NumPy's.
        dtype = np.promote_types(np.float32, arrays[0].dtype)
        x, *conditions = (np.array(a, dtype) for a in arrays)
        event = x.shape[x.ndim - self.event_ndim :]
        batch = [x.reshape(-1, *event), *(c.reshape(-1) for c in conditions)]
        return [torch.as_tensor(a).to(**options) for a in batch]

    def _call(self, *inputs: Any) -> Any:
        out = self.module(*inputs)
        shape = getattr(out, "shape", None)
        if shape != inputs[0].shape:
            raise ValueError(
                "A network of from_torch must return a tensor of the shape of its points, "
                f"{tuple(inputs[0].shape)} with the batch, got {type(out).__name__}"
                + ("." if shape is None else f" of shape {tuple(shape)}.")
            )
        return out

    def value(self, *arrays: Any) -> np.ndarray:
        """The output."""
        with _torch().no_grad():
            out = self._call(*self._tensors(arrays))
        return _like(out, arrays[0])

    def tangent(self, *arrays: Any) -> np.ndarray:
        """The derivative along tangents, which are the second half of the arrays."""
        torch = _torch()
        half = len(arrays) // 2
        primals, tangents = self._tensors(arrays[:half]), self._tensors(arrays[half:])
        # The fused kernels of attention have no forward mode.
        math = torch.nn.attention.SDPBackend.MATH
        with torch.nn.attention.sdpa_kernel(math), torch.no_grad():
            _, out = torch.func.jvp(self._call, tuple(primals), tuple(tangents))
        return _like(out, arrays[0])

    def cotangents(self, cotangent: Any, *arrays: Any) -> tuple[np.ndarray, ...]:
        """The gradients of `sum(cotangent * output)` in all that goes in."""
        torch = _torch()
        with torch.enable_grad():
            inputs = [t.requires_grad_() for t in self._tensors(arrays)]
            (weight,) = self._tensors([cotangent])
            found = torch.autograd.grad(
                self._call(*inputs), inputs, weight, allow_unused=True, materialize_grads=True
            )
        return tuple(map(_like, found, arrays))


def _like(tensor: Any, array: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy().reshape(np.shape(array)).astype(array.dtype, copy=False)


# JAX's `custom_jvp` can't be told how a tangent that the host computes is transposed, and its
# `custom_vjp` has no forward mode; a primitive has both.
_value_p, _tangent_p = Primitive("torch_value"), Primitive("torch_tangent")


def _on_host(method: str, *args: Array, host: _Host) -> Array:
    result = jax.ShapeDtypeStruct(args[0].shape, args[0].dtype)
    return jax.pure_callback(getattr(host, method), result, *args)


def _batched(primitive: Primitive, args: Any, axes: Any, *, host: _Host) -> tuple[Array, int]:
    mapped = [(a, axis) for a, axis in zip(args, axes, strict=True) if axis is not None]
    size = mapped[0][0].shape[mapped[0][1]]
    args = [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(args, axes, strict=True)
    ]
    return primitive.bind(*args, host=host), 0


for _primitive, _method in ((_value_p, "value"), (_tangent_p, "tangent")):
    _function = partial(_on_host, _method)
    _primitive.def_impl(_function)
    _primitive.def_abstract_eval(lambda x, *_, host: x)
    mlir.register_lowering(_primitive, mlir.lower_fun(_function, multiple_results=False))
    batching.primitive_batchers[_primitive] = partial(_batched, _primitive)


def _jvp(primals: Any, tangents: Any, *, host: _Host) -> tuple[Array, Array]:
    tangents = map(ad.instantiate_zeros, tangents)
    return _value_p.bind(*primals, host=host), _tangent_p.bind(*primals, *tangents, host=host)


def _transpose(cotangent: Any, *args: Any, host: _Host) -> list[Any]:
    half = len(args) // 2
    primals = args[:half]
    if type(cotangent) is ad.Zero:
        return [None] * len(args)
    results = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in primals)
    found = jax.pure_callback(
        host.cotangents, results, cotangent, *primals, vmap_method="broadcast_all"
    )
    wanted = map(ad.is_undefined_primal, args[half:])
    return [None] * half + [c if w else None for c, w in zip(found, wanted, strict=True)]


ad.primitive_jvps[_value_p] = _jvp
ad.primitive_transposes[_tangent_p] = _transpose
