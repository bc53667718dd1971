"""The models of a study, each a function of the image shape and the number of classes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Final

from torch import nn

Shape = tuple[int, int, int]


def cnn(shape: Shape, num_classes: int) -> nn.Module:
    """Four convolutions of growing width, each halving the image: 0.4 million parameters, 7 million MACs at 32x32."""
    channels, size = shape[0], min(shape[1:])
    layers: list[nn.Module] = []
    for width in (24, 64, 128, 256):
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
        if size >= 2:
            layers.append(nn.MaxPool2d(2))  # before the normalisation, which then has a quarter of the work
            size //= 2
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def mlp(shape: Shape, num_classes: int) -> nn.Module:
    """Two hidden layers of 256, no convolution."""
    hidden = 256
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def resnet18(shape: Shape, num_classes: int) -> nn.Module:
    """torchvision's ResNet-18; for images under 64 pixels with a 3x3 stem of stride 1 and no first pooling."""
    from torchvision.models import resnet18 as make

    model: nn.Module = make(num_classes=num_classes)
    small = min(shape[1:]) < 64
    stem = (3, 1, 1) if small else (7, 2, 3)
    model.conv1 = nn.Conv2d(shape[0], 64, stem[0], stride=stem[1], padding=stem[2], bias=False)
    if small:
        model.maxpool = nn.Identity()
    return model


MODELS: Final[dict[str, Callable[[Shape, int], nn.Module]]] = {"cnn": cnn, "mlp": mlp, "resnet18": resnet18}


def build_model(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """A model by name, or by your.module:function taking (shape, num_classes).

    Raises:
        ValueError: no such model.

    >>> build_model("mlp", (1, 8, 8), 10)[1].in_features
    64
    """
    return find_model(name)(shape, num_classes)


def find_model(name: str) -> Callable[[Shape, int], nn.Module]:
    """The function behind a model's name; ValueError if there is none."""
    if name in MODELS:
        return MODELS[name]
    module, _, function = name.partition(":")
    try:
        found: Callable[[Shape, int], nn.Module] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"model: got {name!r}, expected {', '.join(MODELS)} or your.module:function ({error})"
        ) from error
    return found
