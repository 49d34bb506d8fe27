# Copyright Contributors to the numpyro-scores project.
# SPDX-License-Identifier: Apache-2.0

"""A U-Net as denoiser of pictures."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
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
from numpyro_scores.nn.unet_blocks import ZEROS, GroupNorm, Stage, doubled, patches


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
            return nnx.List([Stage(n, *settings, rngs) for n in features])

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


class OfPictures(nnx.Module):
    """The settings of a U-Net of noisy pictures; a subclass says what its output means."""

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
        self.event_shape = as_image_shape(type(self).__name__, event_shape)
        self.num_classes = num_classes
        make_network = partial(
            _UNet.checked,
            self.event_shape,
            rngs=rngs,
            widths=widths,
            num_blocks=num_blocks,
            attention_levels=attention_levels,
            num_classes=num_classes,
            label_dropout=label_dropout,
        )
        self._hold(make_network, sigma_data)

    def _hold(self, make_network: Callable[..., Any], sigma_data: float) -> None:
        """Keep a network, made with the options of its output."""
        raise NotImplementedError

    def _check(self, x: Array, label: Array | None) -> None:
        """Raise unless it is one picture, and one label or None."""
        name = type(self).__name__
        check_event(name, x, self.event_shape)
        _check_label(name, label, self.num_classes)


class UNetDenoiser(OfPictures):
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

    def _hold(self, make_network: Callable[..., Any], sigma_data: float) -> None:
        self.denoiser = Preconditioned(make_network(), sigma_data)

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
        self._check(x, label)
        return self.denoiser(x, sigma, label=label, key=key)


def _check_label(name: str, label: Any, num_classes: int | None) -> None:
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
