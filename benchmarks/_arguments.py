# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""What arguments of benchmarks must be, in words."""

import argparse


def count(text: str) -> int:
    """A number of problems, draws or runs; none of them is a benchmark of nothing."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def sizes(text: str) -> tuple[int, int]:
    """Numbers of unknowns and of data of a mixture, which is laid out in pairs."""
    parts = text.split(",")
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        dim, dim_y = map(int, parts)
        if dim % 2 == 0 and 1 <= dim_y <= dim:
            return dim, dim_y
    raise argparse.ArgumentTypeError(
        f"must be an even number of unknowns, a comma, and no more data than these, such as 8,1; "
        f"got {text!r}"
    )
