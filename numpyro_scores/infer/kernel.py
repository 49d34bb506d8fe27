# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""NumPyro's protocol of a kernel, for kernels that write one chain: batches of chains, resuming."""

import copy
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.flatten_util import ravel_pytree
from numpyro.infer.mcmc import MCMCKernel
from numpyro.util import is_prng_key

from numpyro_scores._validation import is_concrete


class of_instances(property):
    """A property that says so where it is asked of a class: by `MCMC(MALA)`, for one."""

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None and owner is not None:
            raise TypeError(
                f"MCMC takes a kernel, {owner.__name__}(model), got its class {owner.__name__}."
            )
        return super().__get__(instance, owner)


class ChainKernel(MCMCKernel):
    """
    A kernel whose state is a `NamedTuple` with `z` and `rng_key`. A subclass looks at the model,
    `_first_values`, and writes one chain, `_init_chain` and `_sample_chain`; this class maps chains
    (`chain_method="vectorized"` hands over a batch of keys).

    Nothing that may be a tracer is stored on the object: `init` can run under `jax.vmap`.
    """

    # Fields of the state that all chains share, so that a condition on them is not vmapped into
    # both of its branches.
    _shared_fields: tuple[str, ...] = ()
    # What MCMC collects of each draw.
    _default_fields: tuple[str, ...] = ("z", "diverging")
    # Whether it draws the density itself, whatever its step: None if that depends on more.
    _is_exact: bool | None = None
    # Why replica exchange cannot wrap the kernel, if it cannot, and what to do.
    _why_not_swapped: str | None = None
    _model: Callable | None
    _potential_fn: Callable[[Any], Array] | None = None
    # From the model's arguments to its potential energy: what `init` finds.
    _potential_fn_gen: Callable | None = None
    # MCMC runs `init` again on every resume while this is None.
    _sample_fn: Callable | None = None

    @abstractmethod
    def _sample_chain(self, state: Any, model_args: tuple, model_kwargs: dict) -> Any:
        """The next state of one chain."""

    def _chain_axes(self, state: Any) -> Any:
        """The axes of `jax.vmap`: None for what all chains share, 0 for the rest of the state."""
        return type(state)(*(None if name in self._shared_fields else 0 for name in state._fields))

    @property
    def model(self) -> Callable | None:
        return self._model

    @property
    def sample_field(self) -> str:
        return "z"

    @of_instances
    def default_fields(self) -> tuple[str, ...]:
        return self._default_fields

    def get_potential_fn(
        self, model_args: tuple = (), model_kwargs: dict | None = None
    ) -> Callable[[Any], Array]:
        """The potential energy of the chain's values, for these arguments of the model."""
        if self._potential_fn is not None:
            return self._potential_fn
        if self._potential_fn_gen is None:
            raise RuntimeError("get_potential_fn requires the kernel's init to have run.")
        return self._potential_fn_gen(*model_args, **(model_kwargs or {}))

    def _flat(self, z: Any, model_args: tuple, model_kwargs: dict):
        """The values `z` as one vector, its way back, and the potential energy of the vector."""
        potential_fn = self.get_potential_fn(model_args, model_kwargs)
        x, unravel = ravel_pytree(z)
        return x, unravel, lambda x: potential_fn(unravel(x))

    def _forget(self) -> None:
        """Drop what `init` derives from the model."""
        self._potential_fn_gen = None
        self._sample_fn = None

    def wrap_model(self, wrapper: Callable) -> MCMCKernel:
        if self._model is None:
            raise ValueError("A kernel built from a potential_fn has no model to wrap.")
        kernel = copy.copy(self)
        kernel._model = wrapper(self._model)
        kernel._forget()
        return kernel

    def refresh(self, state: Any, model_args: tuple, model_kwargs: dict | None) -> Any:
        """Nothing is kept from one draw to the next that depends on other sites."""
        return state

    def _first_values(
        self, rng_key: Array, init_params: Any, model_args: tuple, model_kwargs: dict
    ) -> Any:
        """Look at the model; the values of one chain, or with a batch of keys of as many."""
        raise NotImplementedError

    @abstractmethod
    def _init_chain(
        self, rng_key: Array, z: Any, num_warmup: int, model_args: tuple, model_kwargs: dict
    ) -> tuple[Any, tuple[Array, ...]]:
        """
        The state of one chain at the start `z`, and the arrays that must be finite there: the
        potential energy and its gradient, or nothing.
        """

    def init(self, rng_key, num_warmup, init_params, model_args, model_kwargs):
        """
        The first state, of one chain or, given a batch of keys, of as many.

        :raises ValueError: if the model has latent sites that the kernel cannot move, `init_params`
            does not fit it, or the density is not finite at the start.
        """
        model_kwargs = {} if model_kwargs is None else dict(model_kwargs)
        if is_prng_key(rng_key):
            key_start, key_chain = random.split(rng_key)
        else:
            key_start, key_chain = jnp.swapaxes(jax.vmap(random.split)(rng_key), 0, 1)
        z = self._first_values(key_start, init_params, model_args, model_kwargs)
        return self._init_chains(key_chain, z, num_warmup, model_args, model_kwargs)

    def _init_chains(
        self, rng_key: Array, z: Any, num_warmup: int, model_args: tuple, model_kwargs: dict
    ) -> Any:
        """The first state, of one chain or, given a batch of keys, of as many."""
        single_chain = is_prng_key(rng_key)
        arrays, _, merge = arrays_and_rest((model_args, model_kwargs))

        def init(rng_key, z, arrays):
            def init_chain(key, z):
                return self._init_chain(key, z, num_warmup, *merge(arrays))

            return (init_chain if single_chain else jax.vmap(init_chain))(rng_key, z)

        # No program is kept for the next call: the model may read data that change in between.
        try:
            state, must_be_finite = jax.jit(init)(rng_key, z, arrays)
        except jax.errors.JAXTypeError:  # a model that must see its data, to count groups, say
            state, must_be_finite = jax.jit(partial(init, arrays=arrays))(rng_key, z)
        check_start(must_be_finite, num_axes=0 if single_chain else 1)
        self._sample_fn = self._sample_chain if single_chain else self._sample_chains
        return state

    def _sample_chains(self, state: Any, model_args: tuple, model_kwargs: dict) -> Any:
        """The next state of vectorized chains."""
        axes, num_chains = self._chain_axes(state), len(state.rng_key)

        def map_shared(f, state):
            def of_one(axis, x):
                return f(x) if axis is None else x

            return jax.tree.map(of_one, axes, state, is_leaf=lambda axis: axis is None)

        sample = jax.vmap(self._sample_chain, in_axes=(axes, None, None), out_axes=axes)
        state = sample(map_shared(lambda x: x[0], state), model_args, model_kwargs)
        return map_shared(lambda x: jnp.broadcast_to(x, (num_chains, *x.shape)), state)

    def sample(self, state, model_args, model_kwargs):
        if self._sample_fn is None:
            raise RuntimeError("The kernel's init must run before sample.")
        return self._sample_fn(state, model_args, {} if model_kwargs is None else model_kwargs)

    def __getstate__(self) -> dict[str, Any]:
        # A kernel from a pickle has no model looked at: MCMC runs its init again.
        return self.__dict__ | {"_sample_fn": None}


def arrays_and_rest(tree: Any) -> tuple[list[Array], tuple, Callable[[list[Array]], Any]]:
    """
    The arrays among the leaves of a tree, the rest of it, and how to put it together again with
    other arrays.
    """
    leaves, treedef = jax.tree.flatten(tree)
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    arrays = [leaf for leaf, dynamic in zip(leaves, is_array, strict=True) if dynamic]
    rest = [None if dynamic else leaf for leaf, dynamic in zip(leaves, is_array, strict=True)]

    def merge(arrays):
        left = iter(arrays)
        pairs = zip(rest, is_array, strict=True)
        return treedef.unflatten([next(left) if dynamic else leaf for leaf, dynamic in pairs])

    return arrays, (treedef, *rest), merge


def are_equal(settings: tuple, others: tuple) -> bool:
    """Whether all are equal, without the `==` of unknown objects, which need not be a bool."""
    plain = bool | int | float | str | jax.tree_util.PyTreeDef
    return len(settings) == len(others) and all(
        a is b or (isinstance(a, plain) and type(a) is type(b) and a == b)
        for a, b in zip(settings, others, strict=True)
    )


def check_start(arrays: tuple[Array, ...], num_axes: int) -> None:
    """Raise if a chain starts where an array, with `num_axes` leading chain axes, isn't finite."""
    for array in arrays:
        if not is_concrete(array):
            continue
        finite = np.isfinite(array)
        finite = finite.all(axis=tuple(range(num_axes, finite.ndim)))
        if not finite.all():
            where = f" of chains {np.flatnonzero(~finite)}" if num_axes else ""
            raise ValueError(
                f"The potential energy or its gradient is not finite at the start{where}: start "
                "elsewhere (init_params or init_strategy), or look for NaN in the data and for a "
                "division by zero or a logarithm of a negative number in the energy."
            )


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
