# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A U-Net as denoiser of pictures."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, random

from numpyro_scores._validation import check_count, check_event, is_concrete
from numpyro_scores.nn._convolution import convolution
from numpyro_scores.nn._images import as_image_shape, with_channels
from numpyro_scores.nn.denoisers import NUM_FREQUENCIES, fourier_features
from numpyro_scores.nn.preconditioning import Preconditioned

ZEROS = nnx.initializers.zeros_init()


class GroupNorm(nnx.Module):
    """
    Group normalisation (Wu & He 2018) of one point, shape `(*positions, features)`, in groups of
    about four features: a lone one that is the same everywhere would be blown up. (Flax's takes the
    first axis for that of a batch, and takes a fifth longer in a step of training on a CPU.)
    """

    def __init__(self, features: int):
        self.num_groups = math.gcd(features, max(1, features // 4))
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(self, h: Array) -> Array:
        groups = h.reshape(-1, self.num_groups, h.shape[-1] // self.num_groups)
        groups = groups.astype(jnp.promote_types(h.dtype, jnp.float32))
        groups -= jnp.mean(groups, axis=(0, 2), keepdims=True)
        groups *= jax.lax.rsqrt(jnp.mean(groups**2, axis=(0, 2), keepdims=True) + 1e-5)
        return groups.reshape(h.shape).astype(h.dtype) * self.scale[...] + self.bias[...]


class _ResidualBlock(nnx.Module):
    """Two convolutions, between which the embedding scales and shifts; at first the identity."""

    def __init__(self, features_in: int, features: int, num_embedded: int, rngs: nnx.Rngs):
        self.norm_in = GroupNorm(features_in)
        self.conv_in = convolution(features_in, features, 3, rngs=rngs)
        self.embed = nnx.Linear(num_embedded, 2 * features, rngs=rngs)
        self.norm_out = GroupNorm(features)
        self.conv_out = convolution(features, features, 3, kernel_init=ZEROS, rngs=rngs)
        changes = features_in != features
        self.skip = nnx.Linear(features_in, features, rngs=rngs) if changes else None

    def __call__(self, h: Array, embedding: Array) -> Array:
        scale, shift = jnp.split(self.embed(embedding), 2)
        update = self.conv_in(jax.nn.silu(self.norm_in(h)))
        update = self.conv_out(jax.nn.silu((1 + scale) * self.norm_out(update) + shift))
        return update + (h if self.skip is None else self.skip(h))


class _SelfAttention(nnx.Module):
    """Every pixel looks at every other, with one head; at first the identity."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.norm = GroupNorm(features)
        self.linear_in = nnx.Linear(features, 3 * features, rngs=rngs)
        self.linear_out = nnx.Linear(features, features, kernel_init=ZEROS, rngs=rngs)

    def __call__(self, h: Array) -> Array:
        pixels = self.norm(h).reshape(-1, 1, h.shape[-1])
        query, key, value = jnp.split(self.linear_in(pixels), 3, axis=-1)
        update = jax.nn.dot_product_attention(query, key, value)
        return h + self.linear_out(update).reshape(h.shape)


class _Stage(nnx.Module):
    """A residual block, and self-attention at some levels."""

    def __init__(self, features_in: int, features: int, num_embedded: int, attends: bool, rngs):
        self.block = _ResidualBlock(features_in, features, num_embedded, rngs)
        self.attention = _SelfAttention(features, rngs) if attends else None

    def __call__(self, h: Array, embedding: Array) -> Array:
        h = self.block(h, embedding)
        return h if self.attention is None else self.attention(h)


def patches(h: Array) -> Array:
    """Patches of two by two pixels, an odd edge repeated: `(ceil(h / 2), ceil(w / 2), 4 c)`."""
    height, width, features = h.shape
    h = jnp.pad(h, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rows, columns = -(-height // 2), -(-width // 2)
    h = h.reshape(rows, 2, columns, 2, features)
    return jnp.moveaxis(h, 1, 2).reshape(rows, columns, 4 * features)


def doubled(h: Array, shape: tuple[int, ...]) -> Array:
    """Every pixel twice in height and width, cut to a shape."""
    return jnp.repeat(jnp.repeat(h, 2, axis=0), 2, axis=1)[: shape[0], : shape[1]]


class _UNet(nnx.Module):
    """
    The network `F(x, c_noise)` of :class:`UNetDenoiser`: pictures in, and out pictures of as many
    channels or of `num_outputs`.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        num_blocks: int,
        attention_levels: set[int],
        num_classes: int | None,
        label_dropout: float,
        rngs: nnx.Rngs,
        *,
        num_outputs: int | None = None,
        # Zero, so that training starts from the best linear denoiser.
        kernel_init: nnx.Initializer = ZEROS,
    ):
        self.label_dropout = label_dropout
        num_embedded = 4 * widths[0]
        self.embed_in = nnx.Linear(2 * NUM_FREQUENCIES, num_embedded, rngs=rngs)
        self.embed_out = nnx.Linear(num_embedded, num_embedded, rngs=rngs)
        has_labels = num_classes is not None
        self.embed_label = nnx.Embed(num_classes, num_embedded, rngs=rngs) if has_labels else None

        def stages(first, rest, level):
            features = [first] + [rest] * (num_blocks - 1)
            settings = widths[level], num_embedded, level in attention_levels
            return nnx.List([_Stage(n, *settings, rngs) for n in features])

        self.conv_in = convolution(channels, widths[0], 3, rngs=rngs)
        self.encoder = nnx.List([stages(n, n, level) for level, n in enumerate(widths)])
        self.downsample = nnx.List(
            [nnx.Linear(4 * n, n_next, rngs=rngs) for n, n_next in itertools.pairwise(widths)]
        )
        # Each block of the decoder also gets what a block of the encoder gave.
        below = [*widths[1:], widths[-1]]
        self.decoder = nnx.List([stages(below[i] + n, 2 * n, i) for i, n in enumerate(widths)])
        self.norm = GroupNorm(widths[0])
        num_outputs = channels if num_outputs is None else num_outputs
        self.conv_out = convolution(widths[0], num_outputs, 3, kernel_init=kernel_init, rngs=rngs)

    @classmethod
    def checked(
        cls,
        event_shape: tuple[int, ...],
        *,
        rngs: nnx.Rngs,
        widths: Sequence[int],
        num_blocks: int,
        attention_levels: Sequence[int],
        num_classes: int | None,
        label_dropout: float,
        **options: Any,
    ) -> "_UNet":
        """
        :raises ValueError: if an argument of :class:`UNetDenoiser` is out of range.
        """
        widths, levels = tuple(widths), range(len(tuple(widths)))
        for width in widths:
            check_count("every entry of widths", width)
        check_count("the number of widths", len(widths))
        check_count("num_blocks", num_blocks)
        if not all(-len(levels) <= level < len(levels) for level in attention_levels):
            raise ValueError(
                f"attention_levels must be indices of the {len(levels)} levels of widths={widths}, "
                f"got {tuple(attention_levels)}."
            )
        if num_classes is not None:
            check_count("num_classes", num_classes)
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must be in [0, 1], got {label_dropout!r}.")
        attends = {levels[level] for level in attention_levels}
        channels = with_channels(event_shape)[-1]
        return cls(
            channels, widths, num_blocks, attends, num_classes, label_dropout, rngs, **options
        )

    def __call__(self, x: Array, c_noise: Array, label: Array | None, key: Array | None) -> Array:
        return self.outputs(x, c_noise, label, key).reshape(x.shape)

    def outputs(self, x: Array, c_noise: Array, label: Array | None, key: Array | None) -> Array:
        """Shape `(h, w, num_outputs)`."""
        embedding = self.embed_in(fourier_features(c_noise).astype(x.dtype))
        if label is not None and self.embed_label is not None:
            shown = self._shown(key).astype(x.dtype)
            embedding += shown * self.embed_label(jnp.asarray(label))
        embedding = jax.nn.silu(self.embed_out(jax.nn.silu(embedding)))
        h = self.conv_in(x.reshape(with_channels(x.shape)))
        skips = []
        for level, stages in enumerate(self.encoder):
            if level:
                h = self.downsample[level - 1](patches(h))
            for stage in stages:
                h = stage(h, embedding)
                skips.append(h)
        for stages in reversed(self.decoder):
            for stage in stages:
                skip = skips.pop()
                if h.shape[:2] != skip.shape[:2]:
                    h = doubled(h, skip.shape)
                h = stage(jnp.concatenate([h, skip], axis=-1), embedding)
        return self.conv_out(jax.nn.silu(self.norm(h)))

    def _shown(self, key: Array | None) -> Array:
        """Whether the label is shown, in training not always."""
        if key is None:
            return jnp.array(True)
        return random.bernoulli(key, 1 - self.label_dropout)


class UNetDenoiser(nnx.Module):
    r"""
    A U-Net as denoiser of pictures, `D(x, sigma) -> x.shape`, with the preconditioning of
    :class:`Preconditioned`: levels of half the height and width each (rounded up, so that any size
    will do), residual blocks with group normalisation, self-attention at chosen levels, and skip
    connections between the two ways (Ho, Jain & Abbeel 2020, appendix B; the noise level scales and
    shifts as in Dhariwal & Nichol 2021). Before training it is the best linear denoiser
    :math:`x \sigma_d^2 / (\sigma^2 + \sigma_d^2)`.

    With `num_classes` it takes a label. One network then is both denoisers of classifier-free
    guidance (Ho & Salimans 2022), if training drops the label at times: the denoiser of strength
    :math:`\gamma` is :math:`(1 - \gamma) D(x, \sigma) + \gamma D(x, \sigma, \text{label})`.

    :param event_shape: shape of a picture, `(h, w)` or `(h, w, c)`.
    :param rngs: random streams of the initial weights, `nnx.Rngs(seed)`.
    :param widths: the number of features at each level, from the full size down.
    :param num_blocks: number of residual blocks at a level, on the way down and on the way up.
    :param attention_levels: indices of the levels with self-attention, whose cost grows with the
        square of the number of pixels; by default the last one.
    :param num_classes: the number of labels, or None.
    :param label_dropout: probability that a label is dropped in training, in [0, 1].
    :param sigma_data: standard deviation of the data, in its own units.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        *,
        rngs: nnx.Rngs,
        widths: Sequence[int] = (16, 32, 64),
        num_blocks: int = 1,
        attention_levels: Sequence[int] = (-1,),
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        sigma_data: float = 1.0,
    ):
        self.event_shape = as_image_shape("UNetDenoiser", event_shape)
        self.num_classes = num_classes
        network = _UNet.checked(
            self.event_shape,
            rngs=rngs,
            widths=widths,
            num_blocks=num_blocks,
            attention_levels=attention_levels,
            num_classes=num_classes,
            label_dropout=label_dropout,
        )
        self.denoiser = Preconditioned(network, sigma_data)

    @property
    def sigma_data(self) -> float:
        return self.denoiser.sigma_data

    def __call__(
        self, x: Array, sigma: Array, label: Array | None = None, *, key: Array | None = None
    ) -> Array:
        """
        :param x: one noisy picture, shape `event_shape`.
        :param sigma: its noise level, positive, shape `()`.
        :param label: its class, an integer in `[0, num_classes)`; None for any class.
        :param key: in training, decides whether the label is dropped, as if it were None; without
            a key it never is.
        :return: the denoised picture, shape `event_shape`.
        :raises ValueError: if a shape is another, or there is no such label.
        """
        check_event("UNetDenoiser", x, self.event_shape)
        check_label("UNetDenoiser", label, self.num_classes)
        return self.denoiser(x, sigma, label=label, key=key)


def check_label(name: str, label: Any, num_classes: int | None) -> None:
    """Raise unless it is one label of a network with so many classes, or None."""
    if label is None:
        return
    if num_classes is None:
        raise ValueError(f"This {name} has no labels: make it with num_classes=...")
    if jnp.shape(label) != () or not jnp.issubdtype(jnp.result_type(label), jnp.integer):
        raise ValueError(
            f"label must be one integer, of shape (), got {label!r}. For a batch use jax.vmap."
        )
    if is_concrete(label) and not 0 <= label < num_classes:
        raise ValueError(f"label must be in [0, {num_classes}), got {label}.")
