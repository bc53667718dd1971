"""Every block of the page "What do I pass?" runs, and records what a loop over the examples finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from places import ROOT
from torch import Tensor, nn

import difficulty_prune as dp

PAGE = (ROOT / "docs" / "what_do_i_pass.md").read_text()
N, B, C, L, T, V = 40, 6, 5, 4, 7, 11
Names = dict[str, Any]
Row = dict[str, float]
Rows = Iterable[tuple[int, Row]]

BLOCKS = {
    f"{section.splitlines()[0]}, {number}": block
    for section in PAGE.split("\n## ")[1:]
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL), 1)
}


# What a row is worth: slow, obvious, in float64


def of_probabilities(p: np.ndarray, q: np.ndarray, z: np.ndarray) -> Row:
    """Of the probabilities of a row's classes, those of its target, and the logits."""
    target, others = int(q.argmax()), np.delete(z, int(q.argmax()))
    right = float(z.argmax() == target)
    return {
        "loss": float(-(q * np.log(p)).sum()),
        "el2n": float(np.sqrt(((p - q) ** 2).sum())),
        "entropy": float(-(p * np.log(p)).sum()),
        "accuracy": right,
        "aum": float(z[target] - others.max()),
        "right": right,
    }


def of_target(z: Tensor, target: Tensor | int) -> Row:
    """Of a row of logits [C], and a class or probabilities [C]."""
    logits = z.detach().double().numpy()
    p = np.exp(logits - logits.max())
    soft = isinstance(target, Tensor) and target.dim() == 1
    return of_probabilities(p / p.sum(), target.double().numpy() if soft else np.eye(len(p))[int(target)], logits)


def of_binary(z: Tensor, label: Tensor) -> Row:
    """Of one logit and 0 or 1: the classes are "no", of logit 0, and "yes", of logit z."""
    return of_target(torch.stack([torch.zeros_like(z), z]), int(label))


def expected(rows: Rows, score: str) -> np.ndarray:
    """[N]: the mean over the rows of each example; NaN for one that has none."""
    mine: dict[int, list[Row]] = {}
    for example, row in rows:
        mine.setdefault(int(example), []).append(row)
    found = np.full(N, np.nan)
    for example, of_example in mine.items():
        if score == "forgetting":  # of one presentation: what is never learned counts as one
            found[example] = float(not all(row["right"] for row in of_example))
        else:
            found[example] = np.mean([row["loss" if score == "recent_loss" else score] for row in of_example])
    return found


# What each block takes for granted, and the rows that it records


def names(**more: Any) -> Names:
    """A batch of an indexed dataset of N examples, a model, and a tracker as under "Classification"."""
    torch.manual_seed(0)
    index = torch.randperm(N)[:B]
    given = {
        "dp": dp, "torch": torch, "F": F, "train": range(N), "index": index, "x": torch.randn(B, 3),
        "y": torch.randint(0, C, (B,)), "model": nn.Linear(3, C), "batch_index": index,
        "tracker": dp.DifficultyTracker(N, scores=("el2n", "aum", "forgetting")),
    }  # fmt: skip
    return given | more


def one_row_each(after: Names) -> Rows:
    for i, example in enumerate(after["index"]):
        if after["y"][i] != -100:
            yield example, of_target(after["logits"][i], after["y"][i])


def with_ignored() -> Names:
    given = names()
    given["y"][[1, 4]] = -100
    return given


def soft_rows(after: Names) -> Rows:
    return ((e, of_target(z, q)) for e, z, q in zip(after["index"], after["logits"], after["target"], strict=True))


def mix(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """As torchvision's MixUp does it, with more of the row before."""
    targets = F.one_hot(y, C).float()
    return 0.3 * x + 0.7 * x.roll(1, 0), 0.3 * targets + 0.7 * targets.roll(1, 0)


def mixed_rows(after: Names) -> Rows:
    for i, z in enumerate(after["logits"]):
        yield after["index"][i - 1], of_target(z, after["y"][i - 1])


def views() -> Names:
    return names(views=[torch.randn(B, 3) for _ in range(3)])


def view_rows(after: Names) -> Rows:
    for view in after["views"]:
        logits = after["model"](view)
        for example, z, label in zip(after["index"], logits, after["y"], strict=True):
            yield example, of_target(z, label)


def repeated() -> Names:
    given = names()
    given["index"] = given["index"][[0, 1, 0, 2, 0, 1]]
    return given


def repeated_rows(after: Names) -> Rows:
    logits = after["model"](after["x"])
    return ((e, of_target(z, t)) for e, z, t in zip(after["index"], logits, after["y"], strict=True))


class Segmenter(nn.Conv2d):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": super().forward(images)}


def segmentation() -> Names:
    masks = torch.randint(0, C, (B, 4, 4))
    masks[:, 0], masks[2] = 255, 255  # a border, and an image of which nothing is known
    return names(model=Segmenter(3, C, 1), images=torch.randn(B, 3, 4, 4), masks=masks)


def segmentation_rows(after: Names) -> Rows:
    for i, row, column in (after["masks"] != 255).nonzero().tolist():
        yield after["index"][i], of_target(after["logits"][i, :, row, column], after["masks"][i, row, column])


def text() -> Names:
    tokens = torch.randint(0, V, (B, T))
    labels = tokens.clone()
    labels[1, 3:], labels[4] = -100, -100
    return names(model=nn.Sequential(nn.Embedding(V, 8), nn.Linear(8, V)), tokens=tokens, labels=labels)


def text_rows(after: Names) -> Rows:
    for i, t in (after["labels"][:, 1:] != -100).nonzero().tolist():
        yield after["index"][i], of_target(after["logits"][i, t], after["labels"][i, t + 1])


def packed() -> Names:
    document = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [2, 2, 3, 4, 4, -1, -1]])  # document 3 has one token, 5 has none
    given = text() | {"document": document}
    return given | {"tokens": given["tokens"][:2], "tracker": dp.DifficultyTracker(N, scores=("loss", "accuracy"))}


def packed_rows(after: Names) -> Rows:
    for place in range(B):
        for pack in range(2):
            mine = (after["document"][pack] == place).nonzero()[:, 0].tolist()
            for before, t in pairwise(mine):
                yield after["index"][place], of_target(after["logits"][pack, before], after["tokens"][pack, t])


def multi_label() -> Names:
    labels = torch.randint(0, 2, (B, L)).float()
    labels[0, 1], labels[3] = torch.nan, torch.nan
    return names(model=nn.Linear(3, L), labels=labels)


def multi_label_rows(after: Names) -> Rows:
    for i, label in (~after["labels"].isnan()).nonzero().tolist():
        yield after["index"][i], of_binary(after["logits"][i, label], after["labels"][i, label])


def boxes() -> Names:
    counts = [2, 0, 3, 1, 4, 2]
    owner = torch.arange(B).repeat_interleave(torch.tensor(counts))
    targets = [{"boxes": torch.zeros(count, 4)} for count in counts]
    logits, labels = torch.randn(len(owner), C), torch.randint(0, C, (len(owner),))
    return names(targets=targets, box_loss=torch.rand(12), class_logits=logits, box_labels=labels, owner=owner)


def box_losses(after: Names) -> Rows:
    ends = np.cumsum([0] + [len(target["boxes"]) for target in after["targets"]])
    for example, (first, end) in zip(after["index"], pairwise(ends), strict=True):
        for loss in after["box_loss"][first:end]:
            yield example, {"loss": float(loss)}


def box_logits(after: Names) -> Rows:
    for place, z, label in zip(after["owner"], after["class_logits"], after["box_labels"], strict=True):
        yield after["index"][place], of_target(z, label)


def mosaic() -> Names:
    return names(source=torch.tensor([7, 3, 7, 30, 3, 7, 12]), box_loss=torch.rand(7))


def mosaic_rows(after: Names) -> Rows:
    return ((e, {"loss": float(loss)}) for e, loss in zip(after["source"], after["box_loss"], strict=True))


def fused() -> Names:
    given = text()
    logits = given["model"](given["tokens"]).detach()
    labels = given["labels"]
    log_probability = logits.log_softmax(2).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    p = logits.softmax(2)
    more = {"entropy": -(p * p.log()).sum(2), "correct": logits.argmax(2) == labels}
    return given | more | {"log_probability": log_probability, "logits": logits}


def fused_rows(after: Names) -> Rows:
    for i, t in (after["labels"] != -100).nonzero().tolist():
        row = of_target(after["logits"][i, t], after["labels"][i, t])
        yield after["index"][i], row | {"confidence": float(np.exp(-row["loss"]))}


def regression() -> Names:
    return names(model=nn.Linear(3, 2), value=torch.randn(B, 2))


def regression_rows(after: Names) -> Rows:
    error = ((after["model"](after["x"]) - after["value"]).double() ** 2).mean(1).tolist()
    return ((e, {"loss": loss}) for e, loss in zip(after["index"], error, strict=True))


PAIRS: dict[str, tuple[Callable[[], Names], Callable[[Names], Rows]]] = {
    "Classification, 1": (names, one_row_each),
    "Ignored labels, 1": (with_ignored, one_row_each),
    "Soft labels, distillation, label smoothing, 1": (lambda: names(teacher=nn.Linear(3, C)), soft_rows),
    "Soft labels, distillation, label smoothing, 2": (names, one_row_each),
    "Mixup and CutMix, 1": (lambda: names(mix=mix), mixed_rows),
    "Several views of an example, 1": (views, view_rows),
    "Several views of an example, 2": (repeated, repeated_rows),
    "Segmentation, 1": (segmentation, segmentation_rows),
    "Language model, 1": (text, text_rows),
    "Packed text, 1": (packed, packed_rows),
    "Multi-label, 1": (multi_label, multi_label_rows),
    "Detection, 1": (boxes, box_losses),
    "Detection, 2": (boxes, box_logits),
    "Mosaics, 1": (mosaic, mosaic_rows),
    "A fused loss, 1": (fused, fused_rows),
    "Regression, and any other loss, 1": (regression, regression_rows),
}


@pytest.mark.parametrize("name", [name for name in BLOCKS if not name.startswith("Gradient scores")])
def test_a_block_records_what_a_loop_over_the_examples_finds(name: str) -> None:
    before, rows_of = PAIRS[name]
    after = before()
    exec(BLOCKS[name], after)
    found = list(rows_of(after))
    assert len({int(example) for example, _ in found}) >= 3
    for score, values in after["tracker"].compute().items():
        np.testing.assert_allclose(values, expected(found, score), rtol=1e-5, atol=1e-6, err_msg=score)
    assert after["tracker"].presentations == len({int(example) for example, _ in found})


def test_no_block_is_left_out() -> None:
    assert {*PAIRS, "Gradient scores of text, 1"} == set(BLOCKS)


def test_the_table_names_every_section() -> None:
    sections = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    assert len(sections) == 14
    linked = re.findall(r"\]\(#([\w-]+)\)", PAGE.split("\n## ")[0])
    assert linked == [re.sub(r"[^\w -]", "", section.lower()).replace(" ", "-") for section in sections]


def test_text_is_watched_at_its_embeddings() -> None:
    given = text()
    given["embedding"] = nn.Embedding(V, 8)
    given["classifier"] = nn.Sequential(nn.Flatten(), nn.Linear(T * 8, C))
    make, step = BLOCKS["Gradient scores of text, 1"].split("\n", 1)
    exec(make, given)
    gradients = []
    for _ in range(3):
        gradients.append(gradients_by_hand(given))
        exec(step, given)
        with torch.no_grad():
            given["classifier"][1].weight.mul_(1.5)
    assert given["tracker"].presentations == 3 * B
    wanted = torch.stack(gradients).std(0, correction=0).mean(1)
    found = given["tracker"].compute()["vog_loss"][given["index"]]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-7)


def gradients_by_hand(given: Names) -> Tensor:
    """[B, T]: of each example's own loss to its embedded tokens, the mean over the numbers of each."""
    found = []
    for tokens, label in zip(given["tokens"], given["y"], strict=True):
        embedded = given["embedding"](tokens[None]).detach().requires_grad_()
        loss = F.cross_entropy(given["classifier"](embedded), label[None])
        found.append(torch.autograd.grad(loss, embedded)[0][0].mean(1).double())
    return torch.stack(found)
