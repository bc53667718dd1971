"""GraNd against a backward pass per example, and against per-example gradients by torch.func.

Run as a script with the name of one of the functions, it prints how many bytes one call adds to the peak memory of a
fresh process.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import torch
import torch.nn.functional as F
from comparison import Compare, Target
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from difficulty_prune.scores.grand.grand import grand
from difficulty_prune.study.models import build_model

BATCH, CLASSES, THREADS = 64, 10, 2
WORK: Final = f"GraNd, ResNet-18 at 32x32, B {BATCH}"


def by_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    parameters = list(model.parameters())
    norms = []
    for i in range(len(x)):
        gradients = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), parameters)
        norms.append(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())
    return torch.stack(norms)


def by_vmap(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    gradients = vmap(grad(loss), (None, 0, 0))(parameters, x, y)
    return torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()]).sum(0).sqrt()


FUNCTIONS: Final[dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]]] = {
    "grand": grand,
    "loop": by_loop,
    "vmap": by_vmap,
}


def model_and_data() -> tuple[nn.Module, Tensor, Tensor]:
    """A model that is confident of its labels, so that `grand` does not warn of a model at chance."""
    torch.manual_seed(0)
    model = build_model("resnet18", (3, 32, 32), CLASSES).eval()
    x = torch.randn(BATCH, 3, 32, 32)
    with torch.no_grad():
        model.fc.weight *= 10
        return model, x, model(x).argmax(1)


def extra_memory(name: str) -> int:
    """Bytes that a call adds at its peak, measured in a process of its own."""
    done = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.parametrize(("against", "target"), [("loop", Target(faster=2)), ("vmap", Target())])
def test_grand(compare: Compare, against: str, target: Target) -> None:
    model, x, y = model_and_data()
    theirs = FUNCTIONS[against]
    torch.testing.assert_close(grand(model, x, y), theirs(model, x, y), rtol=1e-3, atol=0)
    ours_bytes, their_bytes = extra_memory("grand"), extra_memory(against)
    memory = f"{against} ({their_bytes / 1e6:.0f} MB extra memory; ours {ours_bytes / 1e6:.0f} MB)"
    compare(WORK, memory, lambda: grand(model, x, y), lambda: theirs(model, x, y), target, rounds=5)
    if against == "vmap":
        assert ours_bytes <= their_bytes / 3


def peak() -> int:
    """Peak memory in bytes; not from getrusage, whose peak a process inherits from its parent."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    arguments = model_and_data()
    before = peak()
    FUNCTIONS[sys.argv[1]](*arguments)
    print(peak() - before)
