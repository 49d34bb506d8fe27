# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""The weights of the tiny networks of `tests/data/edm`, which are in no file."""

import math
import zlib

import numpy as np

# The class that networks of classes are asked for.
CLASS = 2


def weight_of(name, shape):
    """
    Uniform numbers for a tensor of a name and a shape. Around 1 for what scales after a norm, not 1
    and 0 themselves, which would hide what they do.
    """
    unit = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, tuple(shape))
    if name.endswith("freqs"):
        unit = 16 * unit
    elif len(shape) > 1:
        unit = unit * math.sqrt(3 / math.prod(shape[1:]))
    elif "norm" in name and name.endswith("weight"):
        unit = 1 + unit / 2
    else:
        unit = unit / 2
    return unit.astype(np.float32)
