"""Every block of the page on frameworks runs with the real library; TRL's are run in tests/integrations/test_trl.py."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pages import blocks, sections
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp

PAGE = "frameworks.md"
N, EPOCHS = 60, 2
SECTIONS = (
    "PyTorch",
    "torchdata",
    "Several processes",
    "accelerate",
    "Lightning",
    "Hugging Face Trainer",
    "Other losses",
)
ELSEWHERE = "TRL and language models"


def code(section: str) -> list[str]:
    """The blocks of a section."""
    return blocks(PAGE, within=sections(PAGE)[section])


def dataset() -> dp.IndexedDataset:
    torch.manual_seed(0)
    return dp.IndexedDataset(TensorDataset(torch.randn(N, 4), torch.arange(N) % 3))


def names(**more: Any) -> dict[str, Any]:
    """What the blocks take for granted: indexed data, a policy, a tracker that plans."""
    train, tracker = dataset(), dp.DifficultyTracker(N, scores=("loss",))
    policy = dp.policies.SoftPrune(keep=0.5)
    sampler = dp.PruneSampler(policy, tracker.source("loss"), seed=0)
    return {
        "dp": dp, "torch": torch, "F": F, "DataLoader": DataLoader, "train": train, "tracker": tracker,
        "policy": policy, "sampler": sampler, "epochs": EPOCHS, "epoch": 0,
        "loader": DataLoader(train, batch_size=16, sampler=sampler),
        **more,
    }  # fmt: skip


def test_no_section_is_left_out() -> None:
    assert {section for section in sections(PAGE) if code(section)} == {*SECTIONS, ELSEWHERE}


def test_pytorch() -> None:
    (block,) = code("PyTorch")
    model = nn.Linear(4, 3)
    step = "logits = model(x); tracker.update(index, logits, y); loss = F.cross_entropy(logits, y, reduction='none')"
    assert "        ...\n" in block
    given = names(model=model, time_to_save=True)
    exec(block.replace("...\n", f"{step}\n", 1), given)
    assert given["tracker"].presentations >= N
    given["sampler"].load_state_dict(given["state"]["sampler"])
    assert given["sampler"].epoch == EPOCHS - 1


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # which torchdata calls
def test_torchdata() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    (block,) = code("torchdata")
    given = names(StatefulDataLoader=stateful.StatefulDataLoader)
    exec(block.replace("num_workers=2", "num_workers=0"), given)
    assert {*given["state"]} == {"epoch", "tracker", "loader"}


def test_several_processes(tmp_path: Path) -> None:
    (block,) = code("Several processes")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        given = names(rank=0, world_size=1)
        exec(block, given)
        x, y, index = next(iter(DataLoader(given["train"], batch_size=16)))
        given["tracker"].update(index, nn.Linear(4, 3)(x), y)
        assert given["tracker"].presentations == 16
        assert given["sampler"].world_size == 1
        del given
    finally:
        dist.destroy_process_group()


def test_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    (block,) = code("accelerate")
    model = nn.Linear(4, 3)
    given = names(accelerator=accelerate.Accelerator(cpu=True), model=model)
    given["optimizer"] = torch.optim.SGD(model.parameters(), 0.1)
    exec(block, given)
    assert sum(len(index) for _, _, index in given["loader"]) == N // 32 * 32


def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    (block,) = code("Lightning")
    monkeypatch.chdir(tmp_path)
    quiet = {"accelerator": "cpu", "max_epochs": 2, "logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    made: list[Any] = []

    class Lightning:
        """Lightning, whose Trainer gets the options that keep a test quiet."""

        @staticmethod
        def Trainer(**options: Any) -> Any:
            made.append(pl.Trainer(**options, **quiet))
            return made[-1]

    given = names(pl=Lightning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(block, given)

        class Module(pl.LightningModule):
            setup = given["setup"]

            def __init__(self) -> None:
                super().__init__()
                self.network = nn.Linear(4, 3)

            def train_dataloader(self) -> DataLoader:
                return DataLoader(given["train"], batch_size=16, sampler=self.sampler)

            def training_step(self, batch: list[Tensor]) -> Tensor:
                x, y, index = batch
                logits = self.network(x)
                self.tracker.update(index, logits, y)
                return (F.cross_entropy(logits, y, reduction="none") * self.sampler.weight(index)).mean()

            def configure_optimizers(self) -> torch.optim.Optimizer:
                return torch.optim.SGD(self.parameters(), 0.1)

        made[0].fit(Module())
    assert len(dp.Run.load("runs/mlp-0.safetensors")) == N


class Rows(torch.utils.data.Dataset):
    """Samples as a Hugging Face data set has them."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"x": torch.full((4,), float(i)), "labels": torch.tensor(i % 3)}


class Model(nn.Module):
    """What the Trainer asks of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.linear(x)}


def test_hugging_face_trainer() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    train, override = code("Hugging Face Trainer")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        args = transformers.TrainingArguments(
            folder, use_cpu=True, report_to="none", num_train_epochs=1, disable_tqdm=True, save_strategy="no"
        )
        given = names(model=Model(), args=args, dataset=Rows(), keep=0.5)
        assert "resume_from_checkpoint=..." in train
        exec(train.replace("resume_from_checkpoint=...", ""), given)
        assert given["tracker"].presentations == round(0.5 * N)
        exec(override, given)
        given["trainer"].train()
    assert given["trainer"].tracker.presentations == N


def test_other_losses() -> None:
    (block,) = code("Other losses")
    targets = torch.tensor([[0, 1, -100], [2, -100, -100]])
    given = names(targets=targets, logits=torch.randn(2, 3, 5), index=torch.tensor([3, 7]))
    exec(block, given)
    wanted = F.cross_entropy(given["logits"].transpose(1, 2), targets, reduction="none").sum(1) / torch.tensor([2, 1])
    torch.testing.assert_close(given["tracker"].compute()["loss"][given["index"]], wanted)
