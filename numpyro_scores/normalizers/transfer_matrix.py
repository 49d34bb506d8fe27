# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The sum over the states of a lattice, row by row."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from numpyro_scores.distributions import BoltzmannDistribution
from numpyro_scores.distributions.boltzmann.lattices import Lattice
from numpyro_scores.distributions.boltzmann.states import forbidden, lowered
from numpyro_scores.normalizers._base import ExactMethod

MAX_ROW_STATES = 2**12
MAX_GROUP_STATES = 2**4
ENTRIES_AT_A_TIME = 2**20
# Single precision tells e^-87 from zero, and 1 + e^-16 from 1.
MAX_RANGE = 60.0


@dataclass(frozen=True)
class TransferMatrix(ExactMethod):
    r"""
    :math:`\log Z` of an `Ising` or `Potts` lattice by transfer matrices (Kramers & Wannier 1941):
    with the :math:`q^w` states :math:`r_k` of each row of :math:`w` sites,

    .. math:: Z = \sum_{r_1 \dots r_n} \prod_k e^{\ell_k(r_k)} T(r_k, r_{k + 1}),

    and :math:`T` applied as a product over the columns, four at a time. Between products there are
    logarithms; where the weights of four columns differ by more than 60 nats, which products in
    single precision would lose, the columns come one by one, all in logarithms, so that no coupling
    or field overflows or is lost. Rows run along the shorter side, with up to
    :math:`2^{12}` states: a width of 12 for `Ising`, of 7 for `Potts` with three states. A torus
    costs :math:`q^w` times as much as an open lattice.
    """

    def refusal(self, distribution: BoltzmannDistribution) -> str | None:
        if not isinstance(distribution, Lattice):
            return f"is for Ising and Potts lattices, not {type(distribution).__name__}."
        width = min(distribution.event_shape)
        if distribution.num_states**width <= MAX_ROW_STATES:
            return None
        return (
            f"takes rows of up to 2^12 states, a width of 12 with two states: the shorter side of "
            f"{distribution.event_shape} has {distribution.num_states}^{width}."
        )

    def _log_normalizer(self, distribution: BoltzmannDistribution) -> Array:
        assert isinstance(distribution, Lattice)
        pair, site = distribution.pair_weights(), distribution.site_weights()
        if site.shape[0] < site.shape[1]:
            site = jnp.swapaxes(site, 0, 1)
        height, width, q = site.shape
        periodic = distribution.periodic
        row_states = _states(q, width)
        is_state = jax.nn.one_hot(row_states, q, dtype=site.dtype)

        ahead = jnp.roll(row_states, -1, 1)
        last = 0 if width == 1 else width if periodic else width - 1
        within = jnp.sum(pair[row_states, ahead][:, :last], 1)
        rows = within[None] + forbidden(jnp.einsum("kjq,sjq->ks", lowered(site), is_state))

        def across(first):
            """What the columns between two rows weigh, for some states of the first."""
            of_first = lowered(pair[row_states[first]])
            return forbidden(jnp.einsum("bjq,sjq->bs", of_first, is_state))

        most = max(1, int(math.log(MAX_GROUP_STATES, q)))  # columns that go through one matrix
        groups = [_states(q, min(most, width - start)) for start in range(0, width, most)]
        log_matrices = [jnp.sum(pair[states[:, None], states], -1) for states in groups]
        is_narrow = most * (jnp.max(pair) - jnp.min(pair)) < MAX_RANGE
        is_torus = periodic and height > 1
        powers = (q**j for j in range(width, -1, -1))  # that divide the number of row states
        size = next(size for size in powers if size * q**width <= ENTRIES_AT_A_TIME)
        of_torus = (across if is_torus else None), size
        return lax.cond(
            is_narrow,
            lambda rows: _log_sum_of_rows(_log_product, log_matrices, rows, *of_torus),
            lambda rows: _log_sum_of_rows(_log_sum_product, [pair] * width, rows, *of_torus),
            rows,
        )


def _log_sum_of_rows(
    product: Callable[[Array, Array], Array],
    log_matrices: list[Array],
    rows: Array,
    across: Callable[[Array], Array] | None,
    size: int,
) -> Array:
    """
    :param log_matrices: of groups of columns, from left to right.
    :param rows: the log weight of each state of each row by itself.
    :param across: of a torus the log weights between its last and its first row.
    :param size: how many states of the first row of a torus are taken at a time.
    """
    num_row_states = rows.shape[1]

    @jax.checkpoint
    def transfer(log_sums: Array, row: Array) -> tuple[Array, None]:
        # The first columns of a row become the last ones of the next, until all have.
        for log_matrix in log_matrices:
            n = len(log_matrix)
            log_sums = product(log_sums.reshape(-1, n, num_row_states // n), log_matrix)
        return log_sums.reshape(-1, num_row_states) + row[None], None

    if across is None:
        return _log_sum(lax.scan(transfer, rows[:1], rows[1:])[0])

    # Derivatives compute a block of first rows again instead of keeping all of them.
    @jax.checkpoint
    def log_sum(first: Array) -> Array:
        between = across(first)
        start = rows[0, first][:, None] + between + rows[1][None]
        return _log_sum(lax.scan(transfer, start, rows[2:])[0] + between)

    return _log_sum(lax.map(log_sum, jnp.arange(num_row_states).reshape(-1, size)))


def _states(num_states: int, num_sites: int) -> Array:
    """All states of some sites, the first site changing slowest."""
    numbers = jnp.arange(num_states**num_sites)[:, None]
    return numbers // num_states ** jnp.arange(num_sites)[None, ::-1] % num_states


def _log_product(x: Array, log_matrix: Array) -> Array:
    """
    `out[b, r, j] = log sum_i exp(x[b, i, r] + log_matrix[i, j])`, from a matrix whose entries are
    of about one size.
    """
    top = _top(x, 1)
    scale = lax.stop_gradient(jnp.max(log_matrix))
    sums = jnp.einsum("bir,ij->brj", jnp.exp(x - top[:, None]), jnp.exp(log_matrix - scale))
    return _log(sums) + top[:, :, None] + scale


def _log_sum_product(x: Array, log_matrix: Array) -> Array:
    """The same from any matrix: all sums of logarithms."""
    terms = x[:, :, :, None] + log_matrix[None, :, None, :]
    top = _top(terms, 1)
    return _log(jnp.sum(jnp.exp(terms - top[:, None]), 1)) + top


def _log_sum(x: Array) -> Array:
    top = _top(x, None)
    return _log(jnp.sum(jnp.exp(x - top))) + top


def _top(x: Array, axis: int | None) -> Array:
    """The largest, or zero where all weights are zero, whose logarithm is minus infinity."""
    top = lax.stop_gradient(jnp.max(x, axis))
    return jnp.where(jnp.isneginf(top), 0.0, top)


def _log(sums: Array) -> Array:
    # The derivative where nothing is possible is zero, not NaN.
    is_possible = sums != 0
    return jnp.where(is_possible, jnp.log(jnp.where(is_possible, sums, 1.0)), -jnp.inf)
