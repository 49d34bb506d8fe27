# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A network of torch as a function of JAX: torch computes its values and its derivatives."""

import importlib
from collections.abc import Callable, Sequence
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
        numbers = [jnp.asarray(c, x.dtype) for c in conditions]
        return _call_p.bind(x, *numbers, host=_Network(x.ndim, self.module))[0]


def from_torch(module: Callable[..., Any], event_shape: tuple[int, ...]) -> TorchNetwork:
    r"""
    A network of torch as a function of JAX, for a denoiser: torch itself computes the values, and
    the derivatives by its own automatic differentiation, called from JAX on the host. So it works
    with any version of torch, under `jit`, `vmap`, `lax.scan` and all derivatives that torch has; a
    batch of `vmap` is one call with a batch. What it costs is a copy in and out at every call, and
    a gradient runs the network once more. Gradients are there for any operation of torch;
    derivatives along a direction (`jvp`, `linearize`) and second ones, for those that torch can
    differentiate twice or three times.

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
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            "from_torch needs torch, which isn't a dependency of numpyro_scores: `pip install "
            "torch`. Models of diffusers and of EDM do without: see load_diffusers and load_edm."
        ) from error


@dataclass(frozen=True)
class _Host:
    """
    A function that torch computes, of a batch of points and of numbers.

    :param event_ndim: how many axes a point has; the first argument is one.
    """

    event_ndim: int

    @property
    def module(self) -> Any:
        """The network that it is of."""
        raise NotImplementedError

    def outputs_like(self, args: Sequence[Any]) -> Sequence[Any]:
        """Those of the arguments whose shapes the outputs have."""
        raise NotImplementedError

    def function(self, *tensors: Any) -> tuple[Any, ...]:
        """In torch."""
        raise NotImplementedError

    def evaluate(self, *tensors: Any) -> tuple[Any, ...]:
        """Likewise, once and for all."""
        # The fused kernels of attention have first derivatives backward alone.
        attention = _torch().nn.attention
        with _torch().no_grad(), attention.sdpa_kernel(attention.SDPBackend.MATH):
            return self.function(*tensors)

    def __call__(self, *arrays: Any) -> list[np.ndarray]:
        """Of arrays with any number of batch axes, in the dtype of the weights."""
        torch = _torch()
        first = next(iter(getattr(self.module, "parameters", lambda: iter(()))()), None)
        options = {} if first is None else {"dtype": first.dtype, "device": first.device}
        # A copy, since torch warns of arrays that it can't write; torch has no bfloat16 of NumPy's.
        dtype = np.promote_types(np.float32, arrays[0].dtype)
        num_axes = np.ndim(arrays[0]) - self.event_ndim
        tensors = [
            torch.as_tensor(np.array(a, dtype).reshape(-1, *np.shape(a)[num_axes:])).to(**options)
            for a in arrays
        ]
        return [
            out.detach().cpu().numpy().reshape(np.shape(a)).astype(a.dtype, copy=False)
            for out, a in zip(self.evaluate(*tensors), self.outputs_like(arrays), strict=True)
        ]


@dataclass(frozen=True)
class _Network(_Host):
    """The network itself, of a point and conditions."""

    network: Callable[..., Any]

    @property
    def module(self):
        return self.network

    def outputs_like(self, args):
        return args[:1]

    def function(self, *tensors):
        out = self.network(*tensors)
        shape = getattr(out, "shape", None)
        if shape != tensors[0].shape:
            raise ValueError(
                "A network of from_torch must return a tensor of the shape of its points, "
                f"{tuple(tensors[0].shape)} with the batch, got {type(out).__name__}"
                + ("." if shape is None else f" of shape {tuple(shape)}.")
            )
        return (out,)

    def evaluate(self, *tensors):
        with _torch().no_grad():
            return self.function(*tensors)


@dataclass(frozen=True)
class _Tangent(_Host):
    """The derivative of a function along tangents, which come after its arguments."""

    of: _Host

    @property
    def module(self):
        return self.of.module

    def outputs_like(self, args):
        return self.of.outputs_like(args[: len(args) // 2])

    def function(self, *tensors):
        # Backward twice: a gradient is linear in its weights, so that the gradient of that is the
        # tangent. Torch's forward mode lacks many operations, SiLU's gradient among them.
        torch, half = _torch(), len(tensors) // 2
        outputs, pullback = torch.func.vjp(self.of.function, *tensors[:half])
        weights = tuple(map(torch.zeros_like, outputs))
        _, tangent = torch.func.vjp(lambda *weights: pullback(weights), *weights)
        return tangent(tuple(tensors[half:]))


@dataclass(frozen=True)
class _Gradient(_Host):
    """
    The gradient of `sum(weights * outputs)` in all arguments of a function; the weights come first.

    :param num_outputs: of the function.
    """

    of: _Host
    num_outputs: int

    @property
    def module(self):
        return self.of.module

    def outputs_like(self, args):
        return args[self.num_outputs :]

    def function(self, *tensors):
        _, pullback = _torch().func.vjp(self.of.function, *tensors[self.num_outputs :])
        return pullback(tensors[: self.num_outputs])

    def evaluate(self, *tensors):
        if not isinstance(self.of, _Network):
            return super().evaluate(*tensors)
        weights, inputs = tensors[: self.num_outputs], tensors[self.num_outputs :]
        torch = _torch()
        with torch.enable_grad():
            inputs = [t.requires_grad_() for t in inputs]
            outputs = self.of.function(*inputs)
            return torch.autograd.grad(
                outputs, inputs, weights, allow_unused=True, materialize_grads=True
            )


# JAX's `custom_jvp` can't be told how a tangent that the host computes is transposed, and its
# `custom_vjp` has no forward mode; primitives have both. The second is linear in its tangents.
_call_p, _tangent_p = Primitive("torch_call"), Primitive("torch_tangent")


def _host_of(primitive: Primitive, host: _Host) -> _Host:
    return host if primitive is _call_p else _Tangent(host.event_ndim, host)


def _run(primitive: Primitive, *args: Array, host: _Host) -> list[Array]:
    function = _host_of(primitive, host)
    results = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in function.outputs_like(args)]
    return jax.pure_callback(function, results, *args)


def _shapes(primitive: Primitive, *args: Any, host: _Host) -> list[Any]:
    return list(_host_of(primitive, host).outputs_like(args))


def _batched(primitive: Primitive, args: Any, axes: Any, *, host: _Host) -> tuple[Any, Any]:
    mapped = [(a, axis) for a, axis in zip(args, axes, strict=True) if axis is not None]
    size = mapped[0][0].shape[mapped[0][1]]
    args = [
        jnp.broadcast_to(a, (size, *a.shape)) if axis is None else jnp.moveaxis(a, axis, 0)
        for a, axis in zip(args, axes, strict=True)
    ]
    found = primitive.bind(*args, host=host)
    return found, [0] * len(found)


def _jvp(primitive: Primitive, primals: Any, tangents: Any, *, host: _Host) -> tuple[Any, Any]:
    tangents = map(ad.instantiate_zeros, tangents)
    found = primitive.bind(*primals, host=host)
    return found, _tangent_p.bind(*primals, *tangents, host=_host_of(primitive, host))


def _transpose(weights: Any, *args: Any, host: _Host) -> list[Any]:
    half = len(args) // 2
    gradient = _Gradient(host.event_ndim, host, len(weights))
    weights = map(ad.instantiate_zeros, weights)
    found = _call_p.bind(*weights, *args[:half], host=gradient)
    wanted = map(ad.is_undefined_primal, args[half:])
    return [None] * half + [g if w else None for g, w in zip(found, wanted, strict=True)]


for _primitive in (_call_p, _tangent_p):
    _primitive.multiple_results = True
    _primitive.def_impl(partial(_run, _primitive))
    _primitive.def_abstract_eval(partial(_shapes, _primitive))
    mlir.register_lowering(
        _primitive, mlir.lower_fun(partial(_run, _primitive), multiple_results=True)
    )
    batching.primitive_batchers[_primitive] = partial(_batched, _primitive)
    ad.primitive_jvps[_primitive] = partial(_jvp, _primitive)
ad.primitive_transposes[_tangent_p] = _transpose
