# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What `numpyro.infer.MCMC`, and those who read its draws, expect of a kernel."""

import contextlib
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro.infer import MCMC

from numpyro_scores._validation import check_count, check_key
from numpyro_scores.testing.comparisons import assert_close, assert_same_kinds, differ, tolerance_of


def check_kernel(
    make: Callable[[], Any],
    *args: Any,
    key: Array,
    init_params: Any = None,
    extra_fields: Sequence[str] = (),
    chain_methods: Sequence[Any] = ("sequential", "parallel", jax.vmap),
    num_chains: int = 2,
    num_warmup: int = 3,
    num_samples: int = 4,
    pickled: bool = True,
    tolerance: float | None = None,
    **kwargs: Any,
) -> MCMC:
    """
    Check that a kernel is one of NumPyro:

    - its state keeps its structure, shapes and types, so that a loop of steps is one program, also
      where the arguments of the model are traced;
    - a chain starts at `init_params`, its key alone decides its draws, and no step repeats the
      random numbers of the last;
    - chains are the same vectorized and by other methods;
    - warmup and sampling in two calls, a resumed run and a thinned one are parts of one run;
    - it can be pickled, before and after a run, and then draws as it did.

    Whether it draws the right density is the question of :func:`check_invariance`.

    :param make: makes the kernel anew: a function without arguments.
    :param args: arguments of the model; those that are arrays are traced, too.
    :param key: key of all that is random.
    :param init_params: the start of one chain, as `MCMC.run` takes it; None if the kernel has one.
    :param extra_fields: fields of the state that are compared beside the draws.
    :param chain_methods: those compared with `"vectorized"`. `"parallel"` is left out where there
        are fewer devices than chains.
    :param num_chains: number of chains, at least 2.
    :param num_warmup: number of warmup steps.
    :param num_samples: number of draws.
    :param pickled: False for a kernel of functions that can't be pickled.
    :param tolerance: relative and absolute, of draws by another chain method; None is the 0.6th
        power of the rounding error of the draws: 4e-10 in float64, 7e-5 in float32.
    :param kwargs: keyword arguments of the model.
    :return: the vectorized run, with its draws.
    :raises AssertionError: if one of these does not hold.
    """
    check_key("check_kernel", key)
    check_count("num_samples", num_samples)
    if num_chains < 2:
        raise ValueError(f"num_chains must be at least 2, to be compared, got {num_chains!r}.")
    start = jax.tree.map(lambda x: jnp.stack([x] * num_chains), init_params)
    case = _Case(make, args, kwargs, key, start, tuple(extra_fields), num_chains, num_warmup)
    _check_steps(case, init_params)
    mcmc, draws, fields = _check_run(case, num_samples)
    tolerance = tolerance_of(draws) if tolerance is None else tolerance
    for chain_method in chain_methods:
        if chain_method == "parallel" and jax.local_device_count() < num_chains:
            continue
        other = case.mcmc(num_samples, chain_method)
        name = chain_method if isinstance(chain_method, str) else chain_method.__name__
        what = f"chains with chain_method {name!r}, for those vectorized"
        assert_close(case.run(other), draws, what, tolerance)
        assert_close(other.get_extra_fields(True), fields, what, tolerance)
    _check_parts_of_a_run(case, mcmc, draws, tolerance, pickled)
    return mcmc


class _Case(NamedTuple):
    """A kernel, what it is called with, and how it is run."""

    make: Callable[[], Any]
    args: tuple
    kwargs: dict
    key: Array
    start: Any
    extra_fields: tuple[str, ...]
    num_chains: int
    num_warmup: int

    def mcmc(
        self,
        num_samples: int,
        chain_method: Any = "vectorized",
        thinning: int = 1,
        kernel: Any = None,
    ) -> MCMC:
        return MCMC(
            self.make() if kernel is None else kernel,
            num_warmup=self.num_warmup,
            num_samples=num_samples,
            num_chains=self.num_chains,
            thinning=thinning,
            chain_method=chain_method,
            # A run without a bar compiles the loop anew each time.
            progress_bar=True,
        )

    def run(self, mcmc: MCMC, key: Array | None = None, warmup: bool = False) -> Any:
        """The draws by chain."""
        with contextlib.redirect_stderr(io.StringIO()):
            (mcmc.warmup if warmup else mcmc.run)(
                self.key if key is None else key,
                *self.args,
                extra_fields=self.extra_fields,
                init_params=self.start,
                **self.kwargs,
            )
        return mcmc.get_samples(group_by_chain=True) if not warmup else None


def _check_steps(case: _Case, init_params: Any) -> None:
    """One chain, step by step."""
    kernel, key = case.make(), case.key
    for name in ("sample_field", "default_fields", "model", "get_diagnostics_str"):
        assert hasattr(kernel, name), f"The kernel has no {name}, which MCMC or ArviZ ask for."
    # The draws of a warmup may be none.
    state = kernel.init(key, 0, init_params, case.args, case.kwargs)
    for name in (kernel.sample_field, *kernel.default_fields, "rng_key", "_replace"):
        assert hasattr(state, name.split(".")[0]), f"The state has no field {name!r}."
    if init_params is not None:
        begin = getattr(state, kernel.sample_field)
        assert_close(begin, init_params, "where a chain starts, for init_params", 1e-6)

    @jax.jit
    def step(state, args):
        return kernel.sample(state, args, case.kwargs)

    try:
        after = jax.eval_shape(step, state, case.args)
    except (jax.errors.JAXTypeError, TypeError) as error:
        raise AssertionError(
            "The kernel can't take a step where the arguments of the model are traced, as under "
            f"jit_model_args=True and in Gibbs: {error}"
        ) from error
    before = jax.eval_shape(lambda state: state, state)
    assert_same_kinds(after, before, "the state after a step, for that before it")
    states = [step(state, case.args)]
    assert_close(step(state, case.args), states[0], "a step from the same state, for that before")
    states.append(step(states[0], case.args))
    keys = [random.key_data(s.rng_key) if _is_typed(s.rng_key) else s.rng_key for s in states]
    assert differ(*keys), (
        "The rng_key of the state is the same after a step: each step would repeat the random "
        "numbers of the last."
    )
    z = getattr(states[1], kernel.sample_field)
    values = jax.jit(kernel.postprocess_fn(case.args, case.kwargs))(z)
    for name, value in jax.tree_util.tree_leaves_with_path(values):
        assert np.all(np.isfinite(value)), f"postprocess_fn gives {value} for {name}."


def _is_typed(key: Array) -> bool:
    return bool(jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key))


def _check_run(case: _Case, num_samples: int) -> tuple[MCMC, Any, Any]:
    """A vectorized run, its draws and the fields collected."""
    mcmc = case.mcmc(num_samples)
    draws = case.run(mcmc)
    fields = mcmc.get_extra_fields(group_by_chain=True)
    for path, value in jax.tree_util.tree_leaves_with_path(draws):
        name, shape = jax.tree_util.keystr(path), jnp.shape(value)
        assert shape[:2] == (case.num_chains, num_samples), f"The draws of {name} have {shape}."
        assert np.all(np.isfinite(value)), f"The draws of {name} are not finite: {value}."
    late, early = (jax.tree.map(lambda x, k=k: x[:, k], draws) for k in (slice(1, None), slice(-1)))
    assert num_samples == 1 or differ(late, early), (
        f"No chain moved in {num_samples} draws: either every proposal was rejected (give the "
        "kernel a smaller step), or the state that sample returns is the one it got."
    )
    if not case.num_warmup:  # otherwise the same run in two parts is compared
        again = case.run(mcmc)
        assert_close(again, draws, "a run with the same key, for the run before")
    return mcmc, draws, fields


def _check_parts_of_a_run(case: _Case, mcmc: MCMC, draws: Any, tolerance: float, pickled: bool):
    """Warmup apart; a run that is resumed, by a copy from a pickle if that can be; thinning."""
    num_samples = mcmc.num_samples
    if case.num_warmup:
        case.run(mcmc, warmup=True)
        found = case.run(mcmc, mcmc.post_warmup_state.rng_key)
        assert_close(found, draws, "warmup and then run, for one run", tolerance)
    resumed, state = mcmc, mcmc.last_state
    if pickled:
        resumed = pickle.loads(pickle.dumps(mcmc))
        assert_close(
            resumed.get_samples(group_by_chain=True), draws, "draws from a pickle", tolerance
        )
    resumed.post_warmup_state = state
    second = case.run(resumed, state.rng_key)
    both = jax.tree.map(lambda a, b: np.concatenate([a, b], axis=1)[:, 1::2], draws, second)
    kernel = pickle.loads(pickle.dumps(case.make())) if pickled else case.make()
    thinned = case.run(case.mcmc(2 * num_samples, thinning=2, kernel=kernel))
    what = "every second draw of a run and the one resumed from it, for one thinned run"
    assert_close(both, thinned, what, tolerance)
    other = case.run(resumed, random.split(case.key)[1])
    assert differ(other, second), (
        "A run resumed with another key has the same draws: the kernel does not draw its random "
        "numbers from the rng_key of the state."
    )
