# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The scale of the data beside the scales that a network and a noise process are made for."""

import warnings
from typing import Any

import numpy as np

from numpyro_scores._validation import is_concrete
from numpyro_scores.training._pytrees import is_float_array

# Beyond these factors a training is known to go wrong, or not known to go right: 4 times too large
# or small an input; a smallest level of a fiftieth of the standard deviation, where the score of a
# network is rarely right; a largest of twice that of the widest direction, which then comes out
# with 4 / 5 of its variance.
SIGMA_DATA, SIGMA_MIN, SIGMA_MAX = 4.0, 1 / 50, 2.0
MAX_POINTS = 1_000


def warn_of_scales(module: Any, objective: Any, data: Any) -> None:
    """Warn if the data are of another scale than the network or the noise process."""
    points = _points(data)
    if points is None or getattr(module, "is_discrete", False):
        return
    _compare_with_network(points, getattr(module, "sigma_data", None))
    process = getattr(objective, "noise", None)
    levels: Any = [getattr(process, name, None) for name in ("sigma_min", "sigma_max")]
    if all(level is not None and is_concrete(level) for level in levels):
        _compare_with_levels(points, *(float(level) for level in levels))


def _points(data: Any) -> np.ndarray | None:
    """Some of the points, one a row; None if it can't be told which array they are."""
    if isinstance(data, dict):
        arrays = [x for x in data.values() if is_float_array(x) and x.ndim > 1]
        data = arrays[0] if len(arrays) == 1 else None
    if data is None or len(data) < 2:
        return None
    step = -(-len(data) // MAX_POINTS)
    points = np.asarray(data[::step], float)
    return points.reshape(len(points), -1)


def _compare_with_network(points: np.ndarray, sigma_data: Any) -> None:
    if sigma_data is None or not is_concrete(sigma_data):
        return
    size = float(np.sqrt(np.mean(points**2)))
    mean, sd = float(points.mean()), float(points.std())
    if size == 0 or 1 / SIGMA_DATA <= size / float(sigma_data) <= SIGMA_DATA:
        return
    warnings.warn(
        f"The data have mean {mean:.3g} and standard deviation {sd:.3g}, but the network is made "
        f"for centred data of sigma_data={float(sigma_data):.3g}. Standardise them, "
        f"(data - {mean:.3g}) / {sd:.3g}, and choose the noise levels in the new units; or centre "
        f"them and make the network with sigma_data={sd:.3g}.",
        stacklevel=5,
    )


def _compare_with_levels(points: np.ndarray, sigma_min: float, sigma_max: float) -> None:
    centred = points - points.mean(axis=0)
    sd = float(np.sqrt(np.mean(centred**2)))
    # The widest direction: the largest singular value.
    widest = float(np.linalg.norm(centred, 2) / np.sqrt(len(points)))
    if sd == 0:
        return
    if sigma_max < SIGMA_MAX * widest:
        share = widest**2 / (widest**2 + sigma_max**2)
        warnings.warn(
            f"sigma_max={sigma_max:.3g} is {sigma_max / widest:.2g} times the standard deviation "
            f"of the data along their widest direction, {widest:.3g}: draws that start from noise "
            f"of this level lose up to {share:.0%} of the variance there. Take 5 to 10 times it, "
            f"sigma_max={_round(5 * widest)} or more.",
            stacklevel=5,
        )
    if sigma_min > sd:
        warnings.warn(
            f"sigma_min={sigma_min:.3g} is larger than the standard deviation of the data, "
            f"{sd:.3g}: what is learned is mostly noise. About a thirtieth of it, "
            f"sigma_min={_round(sd / 30)}, shows structures of that size.",
            stacklevel=5,
        )
    if sigma_min < SIGMA_MIN * sd:
        warnings.warn(
            f"sigma_min={sigma_min:.3g} is 1/{sd / sigma_min:.0f} of the standard deviation of the "
            f"data, {sd:.3g}: a learned score is rarely right at so small a level, and a posterior "
            "from it is wrong without a sign. Take about a thirtieth, "
            f"sigma_min={_round(sd / 30)}, or the noise that matters; or look, with "
            "numpyro_scores.diagnostics.score_by_level on points that are held out, down to which "
            "level it is right.",
            stacklevel=5,
        )


def _round(value: float) -> str:
    return f"{value:.2g}"
