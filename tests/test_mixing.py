"""Which image dominates a mixed one: read from labels, checked against images that show what they are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import one_hot

import difficulty_prune as dp

SIDE = 32  # pixels
SEEDS = st.integers(0, 100_000)
SIZES = st.integers(1, 40)
CLASSES = st.integers(1, 12)
ALPHAS = st.sampled_from([0.1, 0.4, 1.0, 5.0])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torchvision draws from PyTorch's global generator, timm from NumPy's; both are put back."""
    before = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def batch(seed: int, size: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Index, labels, and images [B, B, H, W] of which image i is 1 in channel i: means of channels say who is in it."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randperm(1000, generator=generator)[:size]
    labels = torch.randint(classes, (size,), generator=generator)
    if seed % 3 == 0:  # one example twice in the batch, as samplers with replacement give it
        twin, other = torch.randint(size, (2,), generator=generator).tolist()
        index[twin], labels[twin] = index[other], labels[other]
    return index, labels, torch.eye(size)[:, :, None, None].repeat(1, 1, SIDE, SIDE)


def partners(way: str, size: int) -> Tensor:
    return torch.arange(size).roll(1) if way == "roll" else torch.arange(size).flip(0)


def of_one_class(index: Tensor, labels: Tensor, way: str, rows: int) -> Tensor:
    """Rows [R] whose images are different examples of one class, so that their own labels do not tell."""
    partner = partners(way, len(index))
    return ((labels == labels[partner]) & (index != index[partner]))[:rows]


def agree(index: Tensor, labels: Tensor, images: Tensor, found: tuple[Tensor, Tensor], unknown: Tensor) -> None:
    """What was found names the image of which there is most; -100 stands where `unknown` has it, and at ties."""
    parts = images.double().mean((2, 3))
    same = index[:, None] == index  # two places in the batch may hold one example, which counts as one
    parts = (parts / parts.sum(1, keepdim=True)) @ same.double()
    most, place = parts.max(1)
    tie = (most - 0.5).abs() < 1e-6
    known = found[1] != -100
    assert torch.equal(known | tie, ~unknown | tie)
    known &= ~tie
    torch.testing.assert_close(found[0][known], index[place][known])
    torch.testing.assert_close(found[1][known], labels[place][known])


def torchvision_transform(name: str, alpha: float, classes: int | None) -> Any:
    from torchvision.transforms import v2

    both = [v2.CutMix(alpha=alpha, num_classes=classes), v2.MixUp(alpha=alpha, num_classes=classes)]
    return {"CutMix": both[0], "MixUp": both[1], "RandomChoice": v2.RandomChoice(both)}[name]


@given(SEEDS, SIZES, CLASSES, ALPHAS, st.sampled_from(["CutMix", "MixUp", "RandomChoice"]))
def test_torchvision_mixes_what_is_found(seed: int, size: int, classes: int, alpha: float, name: str) -> None:
    """One lambda for all: a single row of two classes tells it for every row."""
    index, labels, images = batch(seed, size, classes)
    with seeded(seed):
        mixed, mixed_labels = torchvision_transform(name, alpha, classes)(images, labels)
    silent = of_one_class(index, labels, "roll", size)
    unknown = silent & (labels == labels[0]).all()
    agree(index, labels, mixed, dp.dominant(index, labels, mixed_labels, partner="roll"), unknown)
    found = dp.dominant(index, labels, mixed_labels)
    agree(index, labels, mixed, found, found[1] == -100)  # nothing wrong, and:
    if size >= 12 and classes >= 4 and mixed_labels.amax() < 0.99 and not unknown.any():
        assert (found[1] != -100).all()  # flipping explains none of it


@given(SEEDS, SIZES, CLASSES, ALPHAS, st.sampled_from([0.1, 0.5]), st.sampled_from([torch.float32, torch.float64]))
def test_labels_that_were_smoothed_before(
    seed: int, size: int, classes: int, alpha: float, smoothing: float, dtype: torch.dtype
) -> None:
    index, labels, images = batch(seed, size, classes)
    smooth = one_hot(labels, classes).to(dtype) * (1 - smoothing) + smoothing / classes
    with seeded(seed):
        mixed, mixed_labels = torchvision_transform("RandomChoice", alpha, None)(images, smooth)
    unknown = of_one_class(index, labels, "roll", size) & (labels == labels[0]).all()
    agree(index, labels, mixed, dp.dominant(index, labels, mixed_labels, partner="roll"), unknown)


def timm_transform(kind: str, **options: Any) -> Any:
    mixup = pytest.importorskip("timm.data.mixup", reason="timm is not installed")
    return getattr(mixup, kind)(**options)


TIMM = {
    "mixup_alpha": ALPHAS,
    "cutmix_alpha": ALPHAS,
    "cutmix_minmax": st.sampled_from([None, (0.2, 0.9)]),
    "prob": st.sampled_from([1.0, 0.5]),
    "switch_prob": st.sampled_from([0.0, 0.5, 1.0]),
    "label_smoothing": st.sampled_from([0.0, 0.1]),
}


@given(SEEDS, st.integers(1, 20), CLASSES, st.sampled_from(["batch", "pair", "elem"]), st.fixed_dictionaries(TIMM))
def test_timm_mixes_what_is_found(seed: int, half: int, classes: int, mode: str, options: dict[str, Any]) -> None:
    transform = timm_transform("Mixup", mode=mode, num_classes=classes, **options)
    index, labels, images = batch(seed, 2 * half, classes)
    with seeded(seed):
        mixed, mixed_labels = transform(images.clone(), labels)
    silent = of_one_class(index, labels, "flip", 2 * half)
    told = mode == "batch" and bool((labels != labels.flip(0)).any())
    found = dp.dominant(index, labels, mixed_labels, partner="flip", one_lambda=mode == "batch")
    agree(index, labels, mixed, found, silent & (not told))
    for partner in ("flip", None):
        found = dp.dominant(index, labels, mixed_labels, partner=partner)
        agree(index, labels, mixed, found, found[1] == -100)
        if partner:
            assert not (found[1][~silent] == -100).any() or ((mixed.mean((2, 3)) - 0.5).abs() < 1e-6).any()


@given(SEEDS, st.integers(1, 20), CLASSES, st.sampled_from(["batch", "pair", "elem", "half"]))
def test_timm_collates_what_is_found(seed: int, half: int, classes: int, mode: str) -> None:
    transform = timm_transform("FastCollateMixup", mode=mode, num_classes=classes, cutmix_alpha=1.0)
    index, labels, images = batch(seed, 2 * half, classes)
    samples = [(255 * image.to(torch.uint8), int(label)) for image, label in zip(images, labels, strict=True)]
    with seeded(seed):
        mixed, mixed_labels = transform(samples)
    found = dp.dominant(index, labels, mixed_labels)
    assert len(found[0]) == len(found[1]) == (half if mode == "half" else 2 * half)
    agree(index, labels, mixed, found, found[1] == -100)
    if mode == "half":  # rows of two classes are known, save at ties, which whole numbers of 255 do not have
        assert not (found[1][~of_one_class(index, labels, "flip", half)] == -100).any()


def test_one_proportion_is_believed_where_many_pairs_agree() -> None:
    """timm's default mode: rows of one class are known without a word about the mode; in the others they are not."""
    index, labels, images = batch(1, 64, 10)
    silent = of_one_class(index, labels, "flip", 64)
    assert silent.any()
    for mode in ("batch", "pair", "elem"):
        with seeded(3):
            transform = timm_transform("Mixup", mode=mode, num_classes=10)
            _, mixed_labels = transform(images.clone(), labels)
        _, found = dp.dominant(index, labels, mixed_labels)
        assert torch.equal(found == -100, silent & (mode != "batch"))


def test_a_batch_of_whole_images_tells_no_proportion_of_the_other_rows() -> None:
    """timm's `mode="elem"`, `prob=0.1`: rows of two classes are not mixed, and one that tells nothing may be."""
    index, labels = torch.arange(40), torch.arange(40).remainder(20)
    labels[3] = labels[-4]
    for lam in (0.0, 1.0):
        mixed_labels = mix(labels, lam, "flip", 20)
        silent = of_one_class(index, labels, "flip", 40)
        assert torch.equal(dp.dominant(index, labels, mixed_labels, partner="flip")[1] == -100, silent)
        assert not (dp.dominant(index, labels, mixed_labels, partner="flip", one_lambda=True)[1] == -100).any()


def test_a_few_pairs_tell_no_proportion_of_the_other_rows() -> None:
    """Seven pairs may agree by chance; an eighth makes it a proportion of the batch."""
    for pairs, known in ((7, False), (8, True)):
        half = torch.arange(pairs)
        labels = torch.cat((half, torch.tensor([20, 20]), half + 8))
        index = torch.arange(len(labels))
        _, found = dp.dominant(index, labels, mix(labels, 0.3, "flip", 21))
        assert (found != -100).tolist() == [True] * pairs + [known] * 2 + [True] * pairs


def mix(labels: Tensor, lam: float | Tensor, way: str, classes: int, smoothing: float = 0.0) -> Tensor:
    """The formula of both libraries."""
    own = one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    lam = torch.as_tensor(lam).reshape(-1, 1)
    return own * lam + own[partners(way, len(labels))] * (1 - lam)


@pytest.mark.parametrize("way", ["roll", "flip"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("lam", [0.0, 0.03, 0.3, 0.48, 0.5, 0.52, 0.9, 1.0])
def test_every_proportion_in_every_dtype(way: str, smoothing: float, dtype: torch.dtype, lam: float) -> None:
    index, labels = torch.arange(100, 107), torch.tensor([0, 1, 2, 3, 3, 4, 0])
    mixed_labels = mix(labels, lam, way, 6, smoothing).to(dtype)
    source = torch.arange(7) if lam > 0.5 else partners(way, 7)
    found_index, found_labels = dp.dominant(index, labels, mixed_labels, partner=way, one_lambda=True)
    if lam == 0.5:  # nobody dominates, except where both are the same example
        assert torch.equal(found_labels == -100, index != index[partners(way, 7)])
    else:
        assert torch.equal(found_index, index[source])
        assert torch.equal(found_labels, labels[source])


def test_a_row_mixed_with_itself_is_its_own() -> None:
    for labels in (torch.tensor([3]), torch.tensor([1, 1])):
        index = torch.full_like(labels, 9)
        found = dp.dominant(index, labels, mix(labels, 0.2, "roll", 5))
        assert torch.equal(found[0], index)
        assert torch.equal(found[1], labels)


def test_a_batch_that_was_not_mixed() -> None:
    index, labels = torch.tensor([5, 3, 4]), torch.tensor([0, 1, 2])
    for mixed_labels in (labels, one_hot(labels, 3).float()):
        found = dp.dominant(index, labels, mixed_labels)
        assert torch.equal(found[0], index)
        assert torch.equal(found[1], labels)


def test_where_both_partners_explain_the_labels_they_must_agree() -> None:
    """The first row holds classes 0 and 1; the row before and the last are two, either may be in it."""
    index, labels = torch.arange(4), torch.tensor([0, 1, 0, 1])
    mixed_labels = mix(labels, 0.3, "roll", 2)
    assert torch.equal(mixed_labels, mix(labels, 0.3, "flip", 2))
    assert dp.dominant(index, labels, mixed_labels)[1].tolist() == [1, -100, 1, -100]
    assert dp.dominant(index, labels, mixed_labels, partner="roll")[0].tolist() == [3, 0, 1, 2]
    assert dp.dominant(index, labels, mixed_labels, partner="flip")[0].tolist() == [3, 2, 1, 0]


def test_an_empty_batch_stays_empty() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    assert [len(part) for part in dp.dominant(none, none, torch.zeros(0, 4))] == [0, 0]


INDEX, LABELS = torch.arange(4), torch.tensor([0, 1, 2, 3])
ROLLED, FLIPPED = mix(LABELS, 0.3, "roll", 4), mix(LABELS, 0.3, "flip", 4)
PER_ROW = mix(LABELS, torch.tensor([0.1, 0.3, 0.6, 0.8]), "roll", 4)


@pytest.mark.parametrize(
    ("mixed_labels", "options"),
    [
        (ROLLED, {"partner": "flip"}),
        (FLIPPED, {"partner": "roll"}),
        (PER_ROW, {}),  # torchvision has one lambda per batch
        (mix(LABELS, torch.tensor([0.1, 0.3, 0.6, 0.8]), "flip", 4), {"one_lambda": True}),
        (ROLLED[[1, 0, 2, 3]], {}),  # another order
        (ROLLED * 2, {}),
        (ROLLED - 0.25, {}),
        (ROLLED * torch.nan, {}),
        (0.8 * mix(LABELS, 0.4, "roll", 4) + 0.2 * one_hot(LABELS.roll(-1), 4), {}),  # three images in one
        (mix(LABELS, 0.3, "roll", 4, smoothing=-0.4), {}),  # less than nothing of a class
        (mix(LABELS, 0.3, "roll", 4, smoothing=1.2), {}),  # less of the sources than of other classes
        (0.1 * ROLLED + 0.9 * mix(LABELS.roll(2), 0.3, "roll", 4), {}),
        (one_hot(LABELS.roll(2), 4).float(), {}),
        (LABELS.flip(0), {}),
        (ROLLED[:, :3], {}),  # label 3 of three classes
    ],
)
def test_labels_that_no_such_mixing_explains_are_refused(mixed_labels: Tensor, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mixed_labels: got"):
        dp.dominant(INDEX, LABELS, mixed_labels, **options)


def test_each_row_may_have_its_own_proportion_if_one_says_so() -> None:
    found, _ = dp.dominant(INDEX, LABELS, PER_ROW, partner="roll", one_lambda=False)
    assert found.tolist() == [3, 0, 2, 3]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (([0], LABELS, ROLLED), {}, TypeError, "index: got list"),
        ((INDEX, LABELS, None), {}, TypeError, "mixed_labels: got NoneType"),
        ((INDEX.int(), LABELS, ROLLED), {}, TypeError, "index of torch.int32"),
        ((INDEX, LABELS.float(), ROLLED), {}, TypeError, "labels of torch.float32"),
        ((INDEX, LABELS, ROLLED.bool()), {}, TypeError, "mixed_labels: got torch.bool"),
        ((INDEX[:3], LABELS, ROLLED), {}, ValueError, r"index \(3,\) and labels \(4,\)"),
        ((INDEX, ROLLED, ROLLED), {}, ValueError, r"labels \(4, 4\), expected \[B\]"),
        ((INDEX, LABELS, ROLLED[:3]), {}, ValueError, r"shape \(3, 4\), expected floating point \[4, classes\]"),
        ((INDEX, LABELS, ROLLED[0]), {}, ValueError, r"shape \(4,\), expected"),
        ((INDEX, LABELS, ROLLED[:, :0]), {}, ValueError, r"shape \(4, 0\), expected"),
        ((INDEX, LABELS, LABELS[:2]), {}, ValueError, r"shape \(2,\), expected"),
        ((INDEX, LABELS, ROLLED), {"partner": "rolled"}, ValueError, "partner: got 'rolled'"),
        ((INDEX, LABELS, ROLLED[:2]), {"partner": "roll"}, ValueError, "partner: got 'roll' and 2 rows from 4"),
        ((INDEX, LABELS, ROLLED), {"one_lambda": "batch"}, ValueError, "one_lambda: got 'batch'"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, options: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        dp.dominant(*arguments, **options)


def test_without_looking_what_does_not_fit_counts_for_nobody() -> None:
    """On an accelerator, as in a compiled step: no value is looked at, so nothing can be raised."""
    compiled = torch.compile(dp.dominant, backend="eager", fullgraph=True)
    for mixed_labels in (ROLLED[[1, 0, 2, 3]], LABELS.flip(0), ROLLED[:, :3], ROLLED * torch.nan):
        assert (compiled(INDEX, LABELS, mixed_labels)[1] == -100).all()
    assert compiled(INDEX, LABELS, ROLLED)[0].tolist() == [3, 0, 1, 2]


def test_nothing_reads_the_device() -> None:
    """A tensor without values runs through: whoever looked at one would fail."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        on_device = torch.device("cuda")
        index = torch.empty(8, dtype=torch.int64)
        labels = torch.empty(8, dtype=torch.int64, device=on_device)
        for shape in ((8, 5), (4, 5)):
            found = dp.dominant(index, labels, torch.empty(shape, device=on_device, dtype=torch.bfloat16))
            assert [part.device.type for part in found] == ["cuda", "cuda"]
            assert len(found[0]) == shape[0]
