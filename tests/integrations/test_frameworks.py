"""The sampler and the tracker inside what people train with: DataLoader's workers, torchdata, accelerate."""

from __future__ import annotations

import os
import pickle
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from places import EXAMPLES
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.policies.uniform import Hardest
from difficulty_prune.policies.weighted import SoftPrune

SIZE, BATCH, EPOCHS = 30, 4, 3  # 8 batches, and then 6, the last of a single example
TRAIN = dp.IndexedDataset(TensorDataset(torch.arange(SIZE) * 10))
WORKERS = {"num_workers": 2, "persistent_workers": True}

Step = tuple[list[int], list[float]]  # the index of a batch, and its weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # machines with one core
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),  # Python 3.12 and later
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata 0.11 with torch 2.15
]


def dynamic() -> tuple[dp.DifficultyTracker, dp.PruneSampler]:
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    return tracker, dp.PruneSampler(SoftPrune(keep=0.7), tracker.source("loss"), seed=0)


def train(
    tracker: dp.DifficultyTracker, sampler: dp.PruneSampler, loader: DataLoader, epochs: range = range(EPOCHS)
) -> Iterator[tuple[int, int, Step]]:
    """Epoch, batches of it, and what was visited, after every step."""
    for epoch in epochs:
        sampler.set_epoch(epoch)
        for batches, (x, index) in enumerate(loader, start=1):
            assert torch.equal(x, index * 10)
            tracker.update(index, loss=(index * 7 % 11).float() + epoch)
            yield epoch, batches, (index.tolist(), sampler.weight(index).tolist())


def steps(*parts, epochs: range = range(EPOCHS)) -> list[Step]:
    return [step for _, _, step in train(*parts, epochs=epochs)]


def through_disk(state, path):
    torch.save(state, path)
    return torch.load(path, weights_only=True)


def plain(batch: int = BATCH, **options):
    tracker, sampler = dynamic()
    return tracker, sampler, DataLoader(TRAIN, batch_size=batch, sampler=sampler, **options)


def facts(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines that an example prints."""
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out.splitlines()


# Plain PyTorch


def test_plain_example_resumes_in_mid_epoch_with_forked_and_spawned_workers():
    command = [sys.executable, "-W", "error", "-W", "ignore:This DataLoader will create:UserWarning"]
    command += ["-W", "ignore:This process:DeprecationWarning", EXAMPLES / "pytorch_workers.py"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr
    # 1797 examples: in the first epoch and the last two all of them, and 1258 in each of three.
    assert result.stdout.splitlines() == [
        "examples 1797, visited in 6 epochs 9165 instead of 10782",
        "cut off after 7 batches of epoch 3",
        "same order True",
        "same scores True",
        "same model True",
    ]


@pytest.mark.parametrize("options", [{}, WORKERS], ids=["alone", "workers"])
def test_state_with_what_was_consumed_resumes_exactly_after_every_batch(options, tmp_path):
    expected = steps(*plain())
    parts = plain(**options)
    done = []
    for epoch, batches, step in train(*parts):
        done.append(step)
        tracker, sampler, loader = plain()
        consumed = min(batches * BATCH, len(parts[1]))
        state = {"tracker": parts[0].state_dict(), "sampler": parts[1].state_dict(consumed=consumed)}
        state = through_disk(state, tmp_path / "state.pt")
        tracker.load_state_dict(state["tracker"])
        sampler.load_state_dict(state["sampler"])
        assert sampler.epoch == epoch
        assert done + steps(tracker, sampler, loader, epochs=range(epoch, EPOCHS)) == expected
    assert done == expected


def test_persistent_workers_visit_each_new_plan():
    parts = plain(**WORKERS)
    assert steps(*parts) == steps(*plain())
    assert len(parts[2]) == 6


def test_length_of_a_loader_is_that_of_the_plan():
    parts = plain()
    lengths = {epoch: len(parts[2]) for epoch, _, _ in train(*parts)}
    assert lengths == {0: 8, 1: 6, 2: 6}


def test_a_batch_sampler_that_is_begun_again_stays_in_its_epoch():
    _, sampler = dynamic()
    batches = BatchSampler(sampler, BATCH, drop_last=False)
    first = list(batches)
    with pytest.warns(UserWarning, match="epoch 0 is visited once more"):
        again = list(batches)
    assert again == first
    assert len(first) == len(batches) == 8


def test_a_pickled_sampler_goes_on_with_the_scores_of_that_moment():
    tracker, sampler = dynamic()
    tracker.update(torch.arange(SIZE), loss=torch.arange(float(SIZE)))
    twin = pickle.loads(pickle.dumps(sampler))  # noqa: S301
    sampler.set_epoch(1)
    twin.set_epoch(1)
    assert list(twin) == list(sampler)
    assert len(twin) == 21


# torchdata


@pytest.fixture
def stateful_loader():
    return pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed").StatefulDataLoader


@pytest.mark.usefixtures("stateful_loader")
def test_torchdata_example_resumes_exactly(capsys):
    assert facts("torchdata_resume", capsys) == [
        "examples 1797, visited in 4 epochs 5571",
        "cut off after 5 batches of epoch 2, 20 in all",
        "same order True",
        "same scores True",
    ]


@pytest.mark.parametrize(
    "options",
    [{}, {"drop_last": True}, WORKERS, {**WORKERS, "snapshot_every_n_steps": 4}],
    ids=["alone", "drop_last", "workers", "rare_snapshots"],
)
def test_torchdata_resumes_exactly_after_every_batch(options, stateful_loader, tmp_path):
    def make():
        tracker, sampler = dynamic()
        return tracker, sampler, stateful_loader(TRAIN, batch_size=BATCH, sampler=sampler, **options)

    expected = steps(*plain(drop_last=options.get("drop_last", False)))
    parts = make()
    done = []
    for epoch, batches, step in train(*parts):
        done.append(step)
        if options.get("num_workers") and batches not in (1, 5, len(parts[2])):
            continue  # to start workers takes time
        tracker, sampler, loader = make()
        state = {"tracker": parts[0].state_dict(), "loader": parts[2].state_dict()}
        state = through_disk(state, tmp_path / "state.pt")
        tracker.load_state_dict(state["tracker"])
        loader.load_state_dict(state["loader"])
        assert done + steps(tracker, sampler, loader, epochs=range(epoch, EPOCHS)) == expected
    assert done == expected


@pytest.mark.parametrize("fixed", [False, True], ids=["live", "fixed"])
@pytest.mark.parametrize("options", [{}, WORKERS], ids=["alone", "workers"])
@pytest.mark.parametrize("drop_last", [False, True])
def test_torchdata_goes_on_with_the_next_epoch_after_a_finished_one(fixed, options, drop_last, stateful_loader):
    def make():
        tracker, sampler = dynamic()
        if fixed:
            sampler = dp.PruneSampler(Hardest(keep=0.7), torch.arange(SIZE), seed=0)
        loader = stateful_loader(TRAIN, batch_size=BATCH, sampler=sampler, drop_last=drop_last, **options)
        return tracker, sampler, loader

    expected = steps(*make())
    parts = make()
    done = steps(*parts, epochs=range(2))
    tracker, sampler, loader = make()
    tracker.load_state_dict(parts[0].state_dict())
    loader.load_state_dict(parts[2].state_dict())
    assert done + steps(tracker, sampler, loader, epochs=range(2, EPOCHS)) == expected


def stopped(parts, epoch: int, batches: int) -> list[Step]:
    """Trains as far as a batch of an epoch."""
    done = []
    for *place, step in train(*parts):
        done.append(step)
        if place == [epoch, batches]:
            break
    return done


def test_torchdata_refuses_a_state_of_another_number_of_workers(stateful_loader):
    tracker, sampler = dynamic()
    parts = tracker, sampler, stateful_loader(TRAIN, batch_size=BATCH, sampler=sampler, **WORKERS)
    stopped(parts, 1, 3)
    loader = stateful_loader(TRAIN, batch_size=BATCH, sampler=dynamic()[1])
    loader.load_state_dict(parts[2].state_dict())
    with pytest.raises(AssertionError):
        iter(loader)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_state_of_the_sampler_serves_torchdata_with_any_number_of_workers(workers, stateful_loader):
    def make(workers):
        tracker, sampler = dynamic()
        return tracker, sampler, stateful_loader(TRAIN, batch_size=BATCH, sampler=sampler, num_workers=workers)

    expected = steps(*plain())
    parts = make(2)
    done = stopped(parts, 1, 3)
    tracker, sampler, loader = make(workers)
    tracker.load_state_dict(parts[0].state_dict())
    sampler.load_state_dict(parts[1].state_dict(consumed=3 * BATCH))
    assert done + steps(tracker, sampler, loader, epochs=range(1, EPOCHS)) == expected


# accelerate


@pytest.fixture
def accelerate(monkeypatch):
    library = pytest.importorskip("accelerate", reason="accelerate is not installed")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    before = dict(os.environ)
    yield library
    library.state.AcceleratorState._reset_state(reset_partial_state=True)
    library.state.GradientState._reset_state()
    os.environ.clear()
    os.environ.update(before)


def prepared(accelerate, sampler, drop_last=False, **options):
    """The loaders of two processes, as `accelerator.prepare` makes them."""
    return [
        accelerate.data_loader.prepare_data_loader(
            DataLoader(TRAIN, batch_size=BATCH, sampler=sampler, drop_last=drop_last),
            num_processes=2,
            process_index=rank,
            **options,
        )
        for rank in range(2)
    ]


def visits(loader) -> list[int]:
    return [i for _, index in loader for i in index.tolist()]


def hardest(**options) -> dp.PruneSampler:
    return dp.PruneSampler(Hardest(keep=0.7), torch.arange(SIZE), seed=0, **options)  # 21 of 30


@pytest.mark.usefixtures("accelerate")
def test_accelerate_example_resumes_exactly(capsys):
    lines = facts("accelerate_training", capsys)
    assert lines[:3] == ["processes 1", "epoch 0: visited 1792, twice 0", "epoch 1: visited 1248, twice 0"]
    assert lines[-3:] == ["cut off after 4 batches of epoch 3", "same order True", "same scores True"]


def test_accelerate_deals_out_full_batches_without_overlap(accelerate):
    sampler = hardest()
    loaders = prepared(accelerate, sampler, drop_last=True)
    assert [len(loader) for loader in loaders] == [2, 2]
    first, second = (visits(loader) for loader in loaders)
    assert [len(first), len(second)] == [8, 8]
    order = list(hardest())
    assert first == order[0:4] + order[8:12]
    assert second == order[4:8] + order[12:16]


def test_accelerate_visits_some_examples_twice_unless_told_not_to(accelerate):
    filled = [visits(loader) for loader in prepared(accelerate, hardest())]
    assert [len(share) for share in filled] == [12, 12]
    assert len(set(filled[0] + filled[1])) == 21

    uneven = [visits(loader) for loader in prepared(accelerate, hardest(), even_batches=False)]
    assert [len(share) for share in uneven] == [12, 9]
    assert len(set(uneven[0] + uneven[1])) == 21


def test_accelerate_with_a_sampler_that_knows_its_rank_would_lose_half_of_the_plan(accelerate):
    loaders = [prepared(accelerate, hardest(rank=rank, world_size=2), even_batches=False)[rank] for rank in range(2)]
    assert sum(len(visits(loader)) for loader in loaders) == 10  # of 21


@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_sets_the_epoch_and_counts_it_by_itself(processes, accelerate):
    _, sampler, loader = plain()
    loader = accelerate.data_loader.prepare_data_loader(loader, num_processes=processes, process_index=0)
    for epoch in range(3):
        visits(loader)
        assert sampler.epoch == epoch
    loader.set_epoch(7)
    assert sampler.epoch == 7
    sampler.set_epoch(2)  # which the loader does not see
    visits(loader)
    assert sampler.epoch == 7


def test_accelerate_length_follows_the_plan(accelerate):
    tracker, sampler = dynamic()
    loader = prepared(accelerate, sampler, drop_last=True)[1]
    assert len(loader) == 3
    tracker.update(torch.arange(SIZE), loss=torch.arange(float(SIZE)))
    loader.set_epoch(1)
    assert len(sampler) == 21
    assert len(loader) == 2


def test_accelerate_skips_first_batches_of_an_epoch_that_begins_at_its_start(accelerate):
    whole = visits(accelerate.data_loader.prepare_data_loader(plain()[2]))
    _, sampler, loader = plain()
    state = sampler.state_dict(consumed=0)
    _, sampler, loader = plain()
    sampler.load_state_dict(state)
    loader = accelerate.data_loader.prepare_data_loader(loader)
    assert visits(accelerate.skip_first_batches(loader, 3)) == whole[3 * BATCH :]


# One loss per example from many rows


def test_text_example_prunes_lines_and_finds_the_odd_ones(capsys):
    lines = facts("text_token_losses", capsys)
    sizes = [tuple(map(int, re.findall(r"(\d+) of (\d+) sequences", line)[0])) for line in lines[:8]]
    losses = [float(line.split()[-1]) for line in lines[:8]]
    kept, size = sizes[1]
    assert sizes[0] == (size, size)
    assert sizes[1:] == [(kept, size)] * 7
    assert kept == pytest.approx(0.7 * size, abs=0.5)
    assert losses[-1] < losses[0] - 1
    easiest, hardest = lines[8:11], lines[11:]
    assert all(line.startswith("easiest") and "===" in line for line in easiest)  # the rules of the tables
    assert all(line.startswith("hardest") for line in hardest)
    assert float(easiest[-1].split()[1]) + 2 < float(hardest[-1].split()[1])


def test_detection_example_keeps_the_same_share_of_images_with_few_and_many_boxes(capsys):
    lines = facts("detection_losses", capsys)
    losses = [float(line.split()[-1]) for line in lines[:10]]
    assert losses[-1] < losses[0] / 3
    assert all("360 of 600 images" in line for line in lines[1:10])
    rows = [re.findall(r"[\d.]+", line) for line in lines[10:]]
    assert [int(boxes) for boxes, *_ in rows] == [0, 1, 2, 3, 4]
    assert all(int(kept) == pytest.approx(0.6 * int(size), abs=1) for _, kept, size, _ in rows)
    mean_losses = [float(loss) for *_, loss in rows]
    assert mean_losses == sorted(mean_losses)


def test_losses_of_the_detection_example_are_those_of_each_image_alone():
    module = runpy.run_path(str(EXAMPLES / "detection_losses.py"))
    targets = module["scenes"]()[:12]
    assert {len(target["boxes"]) for target in targets} == {0, 1, 2, 3, 4}
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(12, 9, 11, generator=generator)
    boxes = torch.randn(12, 9, 4, generator=generator)
    for i, target in enumerate(targets):
        wanted = torch.full((9,), 10)
        distances = []
        for box, label in zip(target["boxes"], target["labels"], strict=True):
            cell = int(box[1]) // 12 * 3 + int(box[0]) // 12
            wanted[cell] = label
            distances.append(torch.nn.functional.smooth_l1_loss(boxes[i, cell], box / 12))
        alone = torch.nn.functional.cross_entropy(classes[i], wanted) + (sum(distances) / max(1, len(distances)))
        torch.testing.assert_close(module["image_losses"](classes, boxes, targets)[i], alone)
