"""The models of a study: functions of the image shape and the number of classes."""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable
from typing import Any, Final

from torch import Tensor, nn

from .named_function import import_function, names_function

Shape = tuple[int, int, int]


def cnn(shape: Shape, num_classes: int) -> nn.Module:
    """Four convolutions of growing width, each halving the image: 0.4 million parameters, 7 million MACs at 32 x 32."""
    channels, size = shape[0], min(shape[1:])
    layers: list[nn.Module] = []
    for width in (24, 64, 128, 256):
        layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
        if size >= 2:
            layers.append(nn.MaxPool2d(2))  # before the normalisation, which then does a quarter of the work
            size //= 2
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def mlp(shape: Shape, num_classes: int) -> nn.Module:
    """Two hidden layers of width 256, no convolution."""
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
    """torchvision's ResNet-18; images under 64 pixels get a 3 x 3 stem of stride 1 and no first pooling."""
    from torchvision.models import resnet18 as make

    model: nn.Module = make(num_classes=num_classes)
    small = min(shape[1:]) < 64
    stem = (3, 1, 1) if small else (7, 2, 3)
    model.conv1 = nn.Conv2d(shape[0], 64, stem[0], stride=stem[1], padding=stem[2], bias=False)
    if small:
        model.maxpool = nn.Identity()
    return model


class Residual(nn.Module):
    """Two convolutions with a shortcut around them."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.body(x) + self.shortcut(x)
        return outputs.relu()


def resnet8(shape: Shape, num_classes: int) -> nn.Module:
    """Seven convolutions, six of them in three residual blocks: 0.3 million parameters, 12 million MACs at 32 x 32."""
    width = 32
    return nn.Sequential(
        nn.Conv2d(shape[0], width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Residual(width, width, stride=1),
        Residual(width, 2 * width, stride=2),
        Residual(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )


def vit(shape: Shape, num_classes: int) -> nn.Module:
    """torchvision's VisionTransformer, small: 8 x 8 patches, 3 layers of width 64; 0.1 million parameters.

    Raises:
        ValueError: the images are not square, or 8 does not divide their side.
    """
    from torchvision.models import VisionTransformer

    channels, height, width = shape
    if height != width or height % 8:
        raise ValueError(f"vit: got images of {height} x {width}, expected square ones whose side is a multiple of 8")
    model: nn.Module = VisionTransformer(
        image_size=height,
        patch_size=height // 8,
        num_layers=3,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=128,
        num_classes=num_classes,
    )
    model.conv_proj = nn.Conv2d(channels, 64, height // 8, stride=height // 8)
    return model


MODELS: Final[dict[str, Callable[[Shape, int], nn.Module]]] = {
    "cnn": cnn,
    "mlp": mlp,
    "resnet8": resnet8,
    "resnet18": resnet18,
    "vit": vit,
}


TORCHVISION: Final = "torchvision:"
_WITH_A_SECOND_HEAD: Final = ("googlenet", "inception_v3")


def build_model(name: str, shape: Shape, num_classes: int) -> nn.Module:
    """Makes a model that is given by name, as torchvision:NAME, or as your.module:function taking (shape, num_classes).

    Raises:
        ValueError: there is no such model.

    >>> build_model("mlp", (1, 8, 8), 10)[1].in_features
    64
    """
    return find_model(name)(shape, num_classes)


def find_model(name: str) -> Callable[[Shape, int], nn.Module]:
    """The function that makes the model.

    Raises:
        ValueError: there is no such model.
    """
    if name in MODELS:
        return MODELS[name]
    if name.startswith(TORCHVISION):
        return functools.partial(_from_torchvision, _torchvision_builder(name.removeprefix(TORCHVISION)))
    expected = f"model: got {name!r}, expected {', '.join(MODELS)}, torchvision:NAME or your.module:function"
    if not names_function(name):
        raise ValueError(expected)
    try:
        return import_function(name)
    except ImportError as error:
        raise ValueError(f"{expected} ({error})") from error


def defining_module(name: str) -> str:
    """The name of the module that defines the function that makes the model; of torchvision's, that of the network.

    >>> defining_module("torchvision:resnet50")
    'torchvision.models.resnet'
    """
    function: object = find_model(name)
    while isinstance(function, functools.partial):
        function = function.args[0] if function.func is _from_torchvision else function.func
    return str(getattr(function, "__module__", None))


def _torchvision_builder(name: str) -> Callable[..., nn.Module]:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        like = difflib.get_close_matches(name, known, n=3) or known[:3]
        raise ValueError(
            f"model: torchvision.models has no {name!r} that classifies images, expected one of its {len(known)}, such "
            f"as {', '.join(f'{TORCHVISION}{each}' for each in like)}"
        )
    builder: Callable[..., nn.Module] = models.get_model_builder(name)
    return builder


def _from_torchvision(builder: Callable[..., nn.Module], shape: Shape, num_classes: int) -> nn.Module:
    """One of torchvision's networks, untrained, as it is published: for three channels, and most for 224 pixels."""
    if shape[0] != 3:
        raise ValueError(f"torchvision's networks take images of 3 channels, got {shape[0]}")
    name = builder.__name__
    more: dict[str, Any] = {}
    if name in _WITH_A_SECOND_HEAD:  # whose loss nobody would add
        more = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        more = {"image_size": shape[1]}
    return builder(weights=None, num_classes=num_classes, **more)
