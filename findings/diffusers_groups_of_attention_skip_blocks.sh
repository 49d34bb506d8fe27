#!/usr/bin/env bash
# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

# diffusers 0.42.1: of the up blocks of the NCSN++ form of UNet2DModel, the one with attention has
# other group norms than the one without, although the widths are the same.
#
# The number of groups of the first residual block of each layer is a quarter of its input channels,
# those of the layer below and of the skip together, at most 32. AttnSkipUpBlock2D divides the skip's
# channels alone by four before it adds them, where SkipUpBlock2D divides the sum. The weights of a
# checkpoint have the same shapes either way, so that a reader of such files has to follow the block,
# not the rule: with the other number every output is wrong, and nothing says so.
#
# Seen: 32 channels from below and 32 of the skip: 32 groups with attention, 16 without.
# Fails when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet diffusers==0.42.1 torch==2.13.0
"$folder/venv/bin/python" - <<'PYTHON'
import diffusers


def num_groups(down, up):
    network = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        down_block_types=(down,),
        up_block_types=(up,),
        norm_num_groups=None,
    )
    norm = network.up_blocks[0].resnets[0].norm1
    assert norm.num_channels == 64
    return norm.num_groups


with_attention = num_groups("AttnSkipDownBlock2D", "AttnSkipUpBlock2D")
without = num_groups("SkipDownBlock2D", "SkipUpBlock2D")
print(f"diffusers {diffusers.__version__}: {with_attention} groups with attention, {without} without")
assert (with_attention, without) == (32, 16), "the behaviour has changed"
PYTHON
