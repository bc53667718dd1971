"""Networks of torchvision, by name."""

from __future__ import annotations

import pytest
import torch

from difficulty_prune.study.models import build_model, defining_module
from difficulty_prune.study.preflight import check_model
from difficulty_prune.study.settings import Settings
from difficulty_prune.study.source_digest import source_digest
from difficulty_prune.study.study_data import load_data

models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")


def test_a_network_of_torchvision_is_what_it_publishes() -> None:
    model = build_model("torchvision:resnet50", (3, 224, 224), 7)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032 - 993 * 2049
    assert Settings(models=("torchvision:resnet50", "cnn")).model_names == ("torchvision:resnet50", "cnn")


@pytest.mark.parametrize(
    ("name", "side"), [("googlenet", 64), ("squeezenet1_1", 64), ("vit_b_32", 64), ("mobilenet_v3_small", 32)]
)
def test_networks_return_logits_in_training_too(name: str, side: int) -> None:
    model = build_model(f"torchvision:{name}", (3, side, side), 4).train()
    assert model(torch.randn(2, 3, side, side)).shape == (2, 4)


def test_every_network_that_classifies_images_has_a_module_that_its_digest_is_of() -> None:
    names = models.list_models(module=models)
    modules = {defining_module(f"torchvision:{name}") for name in names}
    assert all(module.startswith("torchvision.models.") for module in modules)
    assert source_digest("torchvision:resnet50") == source_digest("torchvision:resnet34")
    assert source_digest("torchvision:resnet50") not in (source_digest("torchvision:vgg11"), source_digest("cnn"))


def test_a_network_that_torchvision_has_not_is_refused_with_one_that_it_has() -> None:
    with pytest.raises(ValueError, match=r"no 'resnet5' that classifies.*such as torchvision:resnet50"):
        Settings(models=("torchvision:resnet5",))
    with pytest.raises(ValueError, match=r"no 'fcn_resnet50' that classifies images"):
        Settings(models=("torchvision:fcn_resnet50",))
    with pytest.raises(ValueError, match=r"model: 'torchvision:resnet18' does not work with .* 3 channels, got 1"):
        check_model("torchvision:resnet18", load_data("digits"))
