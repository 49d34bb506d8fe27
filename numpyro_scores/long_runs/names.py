# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""Between a kernel's draws, a pytree, and the variables of ArviZ's groups."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from numpyro_scores.diagnostics.arviz.datasets import Arrays, without_clashes
from numpyro_scores.diagnostics.arviz.inference_data import (
    STAT_NAMES,
    _as_dict,
    _sample_stats,
    named_leaves,
)

Read = Callable[[str, str], np.ndarray]


class Names:
    """
    Names and dtypes of the variables in which a kernel's draws are stored.

    :param samples: the draws as the kernel has them, shapes and dtypes.
    :param fields: the extra fields, likewise.
    :param is_nuts: whether the numbers of steps are those of trees.
    """

    def __init__(self, samples: Any, fields: dict[str, Any], is_nuts: bool):
        self._samples, self._fields, self._is_nuts = samples, fields, is_nuts
        self._sample_names = _names_of_leaves(samples, _as_dict)
        self._field_names = _names_of_leaves(fields, lambda fields: fields)
        stats = {STAT_NAMES.get(n, n.replace(".", "_")): n for n in self._field_names}
        named = {
            "posterior": dict.fromkeys(self._sample_names, np.empty(0)),
            "sample_stats": dict.fromkeys(stats, np.empty(0)),
        }
        self.renamed = without_clashes(named, {})[2]

    def empty(self, lanes: tuple[int, ...]) -> tuple[Any, dict[str, Any]]:
        """Draws and fields with these leading axes, one of them of no length."""
        return jax.tree.map(
            lambda x: np.zeros((*lanes, *x.shape), x.dtype), (self._samples, self._fields)
        )

    @property
    def order(self) -> list[str]:
        """The variables of the posterior, in the order of the leaves of a draw."""
        return [self.renamed.get(name, name) for name in self._sample_names]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of one draw of each variable of the posterior."""
        leaves = jax.tree.leaves(self._samples)
        return {name: leaf.shape for name, leaf in zip(self.order, leaves, strict=True)}

    def groups(self, samples: Any, fields: dict[str, Any]) -> dict[str, Arrays]:
        """Draws and fields on the host as variables."""
        posterior = named_leaves(_as_dict(samples))
        stats = _sample_stats(named_leaves(fields), self._is_nuts)
        found = {
            group: {self.renamed.get(name, name): storable(x) for name, x in variables.items()}
            for group, variables in {"posterior": posterior, "sample_stats": stats}.items()
            if variables
        }
        if "posterior" in found:  # it is not if nothing is kept
            # ArviZ 1.x cannot subtract flags.
            found["posterior"] = {
                name: x.astype(np.int32) if x.dtype == bool else x
                for name, x in found["posterior"].items()
            }
        return found

    @property
    def variables(self) -> list[tuple[str, str]]:
        """Group and name of all that `samples` and `fields` read."""
        return [
            *(("posterior", name) for name in self.order),
            *(("sample_stats", self._stat(name)) for name in self._field_names),
        ]

    def _stat(self, field: str) -> str:
        stat = STAT_NAMES.get(field, field.replace(".", "_"))
        return self.renamed.get(stat, stat)

    def samples(self, read: Read, prefix: str = "") -> Any:
        """The draws as the kernel has them, of their variables; `prefix` names other groups."""
        leaves, treedef = jax.tree.flatten(self._samples)
        group = f"{prefix}posterior"
        return treedef.unflatten(
            [
                read(group, self.renamed.get(name, name)).astype(leaf.dtype, copy=False)
                for name, leaf in zip(self._sample_names, leaves, strict=True)
            ]
        )

    def fields(self, read: Read, prefix: str = "") -> dict[str, Any]:
        """The extra fields, under NumPyro's names."""
        leaves, treedef = jax.tree.flatten(self._fields)
        found = []
        for name, leaf in zip(self._field_names, leaves, strict=True):
            values = read(f"{prefix}sample_stats", self._stat(name))
            found.append(
                (-values if STAT_NAMES.get(name, name) == "lp" else values).astype(
                    leaf.dtype, copy=False
                )
            )
        return treedef.unflatten(found)


def storable(x: np.ndarray) -> np.ndarray:
    """An array of a dtype that stores know: those of eight bits or of bfloat16 become wider."""
    known = x.dtype.kind in "biufc" and x.dtype.isbuiltin == 1
    return x if known else x.astype(np.float32)


def _names_of_leaves(tree: Any, as_dict: Callable[[Any], Any]) -> list[str]:
    """The name of each leaf, in the order of the leaves."""
    leaves, treedef = jax.tree.flatten(tree)
    numbered = named_leaves(as_dict(treedef.unflatten(np.arange(len(leaves)))))
    return sorted(numbered, key=lambda name: int(numbered[name]))
