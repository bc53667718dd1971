"""How gradients and probabilities are recorded: what is kept of them, and where."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from ..support.randomness import generator_from

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class GradientOptions:
    """How input gradients are recorded, and where their state lives.

    The exact state is 8 bytes per pixel and example (CIFAR-10: 410 MB; ImageNet: 514 GB). `pixels` and `m2_dtype`
    make it smaller, `device` and `mmap` move it out of the accelerator's memory.

    Attributes:
        channel_dim: dimension of the input that holds channels; their signed mean is taken first, as the paper
            does. None for inputs without channels. An input [B, F] never has channels. Of embedded text [B, T, D] it is
            2: a position is to a text what a pixel is to an image.
        every: record every so many training steps, from the first on. Shuffle the data, or it is always the same
            examples whose steps are left out.
        pixels: keep and read a fixed random subset of so many pixels, the same in every run; None, or more than there
            are, for all. Pixels are what is left after the mean over channels: 1,024 of an image [3, 32, 32].
        m2_dtype: "float32", or "bfloat16" for the sums of squared deviations (stochastic rounding); means stay
            float32.
        device: where the state lives; None for the device of the inputs. On the CPU while the model is on an
            accelerator, gradients travel there without holding up the training step.
        mmap: a folder (made if missing) with room for the state, which is then held in unnamed files there, mapped
            into memory; they vanish with the tracker (save a `state_dict` to go on later).

    >>> GradientOptions(pixels=256, m2_dtype="bfloat16").bytes_per_example(224 * 224)
    1540
    """

    channel_dim: int | None = 1
    every: int = 1
    pixels: int | None = None
    m2_dtype: str = "float32"
    device: torch.device | str | None = None
    mmap: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every: got {self.every!r}, expected a whole number of steps, at least 1")
        if self.channel_dim is not None and (not isinstance(self.channel_dim, int) or self.channel_dim < 1):
            raise ValueError(f"channel_dim: got {self.channel_dim!r}, expected None or a dimension from 1 on")
        if self.pixels is not None and (type(self.pixels) is not int or self.pixels < 1):
            raise ValueError(f"pixels: got {self.pixels!r}, expected None or a number of pixels, at least 1")
        if self.m2_dtype not in DTYPES:
            raise ValueError(f"m2_dtype: got {self.m2_dtype!r}, expected 'float32' or 'bfloat16'")
        _check_home(self.device, self.mmap)

    @property
    def m2_type(self) -> torch.dtype:
        """The dtype of the sums of squared deviations."""
        return DTYPES[self.m2_dtype]

    @property
    def definition(self) -> dict[str, Any]:
        """The options that change the numbers, and not only where they are kept."""
        names = ("channel_dim", "every", "pixels", "m2_dtype")
        return {name: getattr(self, name) for name in names}

    def with_channels(self, gradients: Tensor) -> Tensor:
        """View of gradients [B, ...] as [B, C, ...], the layout of `ops.record_gradients_`."""
        channel = self._channel(gradients.shape)
        if channel == 1:
            return gradients
        return gradients.unsqueeze(1) if channel is None else gradients.movedim(channel, 1)

    def size(self, shape: Sequence[int]) -> int:
        """Pixels of each example of inputs [B, ...] of this shape, of which `pixels` are kept."""
        channel = self._channel(shape)
        return math.prod(size for dim, size in enumerate(shape) if dim not in (0, channel))

    def channels(self, shape: Sequence[int]) -> int:
        """Channels of inputs [B, ...] of this shape; 1 for those without."""
        channel = self._channel(shape)
        return 1 if channel is None else shape[channel]

    def _channel(self, shape: Sequence[int]) -> int | None:
        """The dimension of [B, ...] that holds channels."""
        if self.channel_dim is None or len(shape) == 2:
            return None
        if self.channel_dim >= len(shape):
            raise ValueError(
                f"channel_dim: got {self.channel_dim}, but the input has shape {tuple(shape)}; "
                "set GradientOptions(channel_dim=...) to its channels, or None"
            )
        return self.channel_dim

    def selected(self, size: int) -> Tensor | None:
        """Which of `size` pixels to keep, [P] int64 in ascending order; None for all."""
        if self.pixels is None or self.pixels >= size:
            return None
        return torch.randperm(size, generator=generator_from(0, size), device="cpu")[: self.pixels].sort().values

    def state_device(self, inputs_device: torch.device) -> torch.device:
        """Where the state of gradients on `inputs_device` lives."""
        return _home(self.device, self.mmap, inputs_device)

    def bytes_per_example(self, size: int) -> int:
        """Memory for one example of `size` pixels."""
        kept = size if self.pixels is None else min(size, self.pixels)
        return kept * (torch.float32.itemsize + self.m2_type.itemsize) + torch.int32.itemsize


@dataclass(frozen=True)
class ProbabilityOptions:
    """How the mean probabilities of a tracker are kept, and where: `DifficultyTracker(mean_probabilities=...)`.

    They take 4 bytes per class and example (CIFAR-10: 2 MB; ImageNet: 5.1 GB), or 2.

    Attributes:
        dtype: "float32", or "bfloat16" with stochastic rounding: right on average, but after T presentations each mean
            is off by about 0.3 % of itself times the square root of T / 3.
        device: where the state lives; None for the device of the logits. On the CPU while the model is on an
            accelerator, probabilities travel there without holding up the training step.
        mmap: a folder (made if missing) with room for the state, which is then held in an unnamed file there, mapped
            into memory; it vanishes with the tracker (save a `state_dict` to go on later).

    Raises:
        ValueError: another dtype, no such device, or a mapped state elsewhere than on the CPU.

    >>> ProbabilityOptions(dtype="bfloat16").bytes_per_example(1000)
    2004
    """

    dtype: str = "float32"
    device: torch.device | str | None = None
    mmap: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: got {self.dtype!r}, expected 'float32' or 'bfloat16'")
        _check_home(self.device, self.mmap)

    @property
    def type(self) -> torch.dtype:
        """The dtype of the means."""
        return DTYPES[self.dtype]

    def state_device(self, logits_device: torch.device) -> torch.device:
        """Where the means of logits on `logits_device` live."""
        return _home(self.device, self.mmap, logits_device)

    def bytes_per_example(self, classes: int) -> int:
        """Memory for one example."""
        return classes * self.type.itemsize + torch.int32.itemsize


def _check_home(device: torch.device | str | None, mmap: Any) -> None:
    try:
        home = None if device is None else torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: got {device!r}, expected a device such as 'cpu' or 'cuda:0'") from error
    if mmap is None:
        return
    if not isinstance(mmap, str | os.PathLike) or not os.fspath(mmap):
        raise ValueError(f"mmap: got {mmap!r}, expected the path of a folder")
    if home is not None and home.type != "cpu":
        raise ValueError(f"mmap: mapped state lives on the CPU, but device is {device!r}; leave one out")


def _home(device: torch.device | str | None, mmap: Any, batch: torch.device) -> torch.device:
    """Where state lives that batches on a device fill."""
    if mmap is not None:
        return torch.device("cpu")
    return batch if device is None else torch.device(device)
