"""Classes masked by -inf have probability 0, and a finite loss is a right loss: against a float64 loop over classes."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_inputs import LOGIT_DTYPES, close, identical, kernels, labels_of, random_logits
from torch import Tensor

from difficulty_prune import ops
from difficulty_prune.ops import reference
from difficulty_prune.ops.layout import FIELD, STAT, STATS, temporal_parts
from difficulty_prune.scores.logit_scores import logit_scores

NAMESPACES = [kernels, reference]
LOWEST = -1e16  # what a lower log-probability counts as
LARGEST = torch.finfo(torch.float32).max

# Losses of up to some 100 in float32.
near = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5, equal_nan=True)


def statistics_of(z: list[float], label: int) -> dict[str, float] | None:
    """The statistics of a row in float64; None where the loss is not finite in float32."""
    if any(math.isnan(x) or x == math.inf for x in z) or z[label] == -math.inf:
        return None
    top = max(z)
    exponentials = [math.exp(x - top) for x in z]
    total = math.fsum(exponentials)
    loss = math.log(total) + top - z[label]
    if loss > LARGEST:
        return None
    p = [e / total for e in exponentials]
    others = [c for c in range(len(z)) if c != label]
    rest = math.fsum(p[c] for c in others)
    return {
        "loss": loss,
        "el2n": math.sqrt(rest**2 + math.fsum(p[c] ** 2 for c in others)),
        "entropy": -math.fsum(x * math.log(x) for x in p if x > 0),
        "p_label": p[label],
        "p_max": max(p),
        "logit_margin": z[label] - max(z[c] for c in others),
        "p_margin": p[label] - max(p[c] for c in others),
        "correct": float(z.index(top) == label),
    }


def expected_statistics(logits: Tensor, labels: Tensor) -> Tensor:
    rows = [statistics_of(z, label) for z, label in zip(logits.double().tolist(), labels.tolist(), strict=True)]
    return torch.tensor([[math.nan if row is None else row[name] for name in STATS] for row in rows])


def laid_out(logits: Tensor, layout: str) -> Tensor:
    """The same values with other strides; what lies between them is NaN."""
    gap = torch.full_like(logits, torch.nan)
    if layout == "rows apart":
        return torch.cat([logits, gap], 1)[:, : logits.shape[1]]
    if layout == "one off":
        return torch.cat([gap[:, :1], logits], 1)[:, 1:]
    return logits.t().contiguous().t() if layout == "transposed" else logits


@st.composite
def masked_batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Logits [B, C] in which some classes are -inf, in some rows all or all but one, and labels [B]."""
    classes = draw(st.integers(2, 200) | st.sampled_from((2, 3, 7, 8, 9, 16, 31, 32, 33, 40)))
    rows = draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    logits = draw(st.sampled_from((0.1, 3.0, 40.0))) * torch.randn(rows, classes, generator=generator)
    logits[::3] = logits[::3].round()  # ties
    labels = torch.randint(classes, (rows,), generator=generator)
    share = torch.tensor(draw(st.lists(st.sampled_from((0.0, 0.1, 0.5, 0.95, 1.0)), min_size=rows, max_size=rows)))
    masked = torch.rand(rows, classes, generator=generator) < share[:, None]
    spared = torch.tensor(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    masked[torch.arange(rows), labels] &= ~spared
    logits = logits.masked_fill(masked, -torch.inf).to(draw(st.sampled_from(LOGIT_DTYPES)))
    for row, column, value in draw(
        st.lists(
            st.tuples(st.integers(0, rows - 1), st.integers(0, classes - 1), st.sampled_from((torch.nan, torch.inf))),
            max_size=2,
        )
    ):
        logits[row, column] = value
    return laid_out(logits, draw(st.sampled_from(("contiguous", "rows apart", "one off", "transposed")))), labels


@pytest.mark.parametrize("namespace", NAMESPACES)
@settings(max_examples=200)
@given(masked_batches())
def test_statistics_are_those_of_the_formulas(namespace, batch: tuple[Tensor, Tensor]) -> None:
    logits, labels = batch
    got, expected = namespace.softmax_stats(logits, labels), expected_statistics(logits, labels)
    for name in STATS:
        near(got[:, STAT[name]], expected[:, STAT[name]], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("namespace", NAMESPACES)
@settings(max_examples=100)
@given(masked_batches(), st.data())
def test_records_hold_the_presentations_whose_loss_is_finite(namespace, batch: tuple[Tensor, Tensor], data) -> None:
    logits, labels = batch
    rows, examples = len(logits), 4
    labels = labels[:1].expand(rows).clone()
    index = torch.tensor(data.draw(st.lists(st.integers(0, examples - 1), min_size=rows, max_size=rows)))
    table, skipped = ops.new_table(examples), ops.new_skipped()
    namespace.record_stats_(table, index, logits, labels, skipped)

    seen: dict[int, list[dict[str, float]]] = {example: [] for example in range(examples)}
    left_out = 0
    for example, z in zip(index.tolist(), logits.double().tolist(), strict=True):
        row = statistics_of(z, int(labels[0]))
        left_out += row is None
        seen[example] += [] if row is None else [row]
    assert skipped.tolist() == [0, 0, left_out, 0]
    assert table[:, FIELD["count"]].tolist() == [len(seen[example]) for example in range(examples)]
    scores = logit_scores(
        table, ("loss", "el2n", "entropy", "confidence", "max_confidence", "aum", "margin", "accuracy")
    )
    names = ("loss", "el2n", "entropy", "p_label", "p_max", "logit_margin", "p_margin", "correct")
    for score, name in zip(scores, names, strict=True):
        values = [[row[name] for row in seen[e] if math.isfinite(row[name])] for e in range(examples)]
        means = [math.fsum(v) / len(v) if v else math.nan for v in values]
        near(scores[score], torch.tensor(means), msg=lambda text, score=score: f"{score}: {text}")


@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
@pytest.mark.parametrize("classes", [4, 12, 40, 90])
def test_a_masked_class_is_as_one_that_is_not_there(dtype: torch.dtype, classes: int) -> None:
    kept = torch.arange(classes) % 3 != 1
    logits = random_logits(30, classes, dtype)
    label_among_kept = labels_of(torch.arange(30), int(kept.sum()))
    labels = kept.nonzero()[:, 0][label_among_kept]
    alone, table, expected = logits[:, kept].contiguous(), ops.new_table(30), ops.new_table(30)
    masked = logits.masked_fill(~kept, -torch.inf)
    close(kernels.softmax_stats(masked, labels), kernels.softmax_stats(alone, label_among_kept))
    ops.record_stats_(table, torch.arange(30), masked, labels)
    ops.record_stats_(expected, torch.arange(30), alone, label_among_kept)
    rest = [column for name, column in FIELD.items() if name != "label"]
    close(table[:, rest], expected[:, rest])
    assert table[:, FIELD["label"]].tolist() == labels.tolist()


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("classes", [2, 8, 33, 100])
@pytest.mark.parametrize("dtype", LOGIT_DTYPES)
def test_a_label_without_rivals_has_every_statistic_but_the_logit_margin(namespace, classes: int, dtype) -> None:
    for label in {0, 1, classes // 2, classes - 1}:
        logits = torch.full((1, classes), -torch.inf, dtype=dtype)
        logits[0, label] = -3.0
        stats = dict(zip(STATS, namespace.softmax_stats(logits, torch.tensor([label]))[0].tolist(), strict=True))
        sure = dict.fromkeys(("p_label", "p_max", "p_margin", "correct"), 1.0)
        assert stats == {"loss": 0, "el2n": 0, "entropy": 0, "logit_margin": math.inf} | sure

        table, index, labels = ops.new_table(2), torch.tensor([0, 0, 0, 1]), torch.full((4,), label)
        batch = logits.repeat(4, 1)
        batch[1] = 0.0
        batch[1, label] = 2.0
        namespace.record_stats_(table, index, batch, labels, ops.new_skipped())
        scores = logit_scores(table, ("aum", "loss", "accuracy"))
        identical(scores["aum"], torch.tensor([2.0, torch.nan]))  # the mean of those that there are
        assert scores["accuracy"].tolist() == [1.0, 1.0]
        assert scores["loss"].isfinite().all()
        assert table[:, FIELD["unrivalled"]].tolist() == [2.0, 1.0]


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("width", [2, 8, 40])
def test_what_float32_cannot_hold_is_in_no_sum(namespace, width: int) -> None:
    """A loss beyond float32 is not finite, be it of one presentation or the sum; so a margin counts as none."""
    far = torch.full((4, width), -LARGEST)
    far[:, 0] = torch.tensor([0.0, 0.0, LARGEST, LARGEST])
    right, wrong = torch.zeros(4).long(), torch.ones(4).long()
    table, skipped = ops.new_table(2), ops.new_skipped()
    namespace.record_stats_(table, torch.zeros(4).long(), far, right, skipped)
    assert not skipped.any()
    record = dict(zip(FIELD, table[0].tolist(), strict=False))
    assert (record["count"], record["loss"], record["unrivalled"]) == (4, 0, 3)
    identical(logit_scores(table, ("aum",))["aum"], torch.tensor([LARGEST, torch.nan]))

    namespace.record_stats_(table, torch.ones(4).long(), far, wrong, skipped)
    assert skipped.tolist() == [0, 0, 3, 0]
    record = dict(zip(FIELD, table[1].tolist(), strict=False))
    assert (record["count"], record["loss"], record["logit_margin"]) == (1, LARGEST, -LARGEST)


@pytest.mark.parametrize("operator", [kernels.record_given_stats_, reference.record_given_stats_])
def test_losses_that_sum_up_to_more_than_float32_holds_are_left_out(operator) -> None:
    stats = torch.zeros(4, len(STATS))
    stats[:, STAT["loss"]] = torch.tensor([LARGEST, LARGEST, -LARGEST, 0.5])
    table, skipped = ops.new_table(1), ops.new_skipped()
    operator(table, torch.zeros(4).long(), stats, torch.zeros(4).long(), 1, skipped)
    assert skipped.tolist() == [0, 0, 1, 0]
    assert table[0, [FIELD["count"], FIELD["loss"]]].tolist() == [3, 0.5]


# Windows of presentations


def windows_of(history: list[list[float]], label: int, window: int, decay: float) -> tuple[dict[str, float], float]:
    """What is kept of an example's presentations, in float64, and the largest change."""
    log_ps = []
    for z in history:
        top = max(z)
        log_sum = math.log(math.fsum(math.exp(x - top) for x in z))
        log_ps.append([max(x - top - log_sum, LOWEST) for x in z])
    p_label = [math.exp(log_p[label]) for log_p in log_ps]
    changes = [
        math.fsum(math.exp(b) * abs(b - a) for a, b in zip(before, now, strict=True))
        for before, now in pairwise(log_ps)
    ]

    def spread(values: list[float]) -> float:
        mean = math.fsum(values) / len(values)
        return math.sqrt(math.fsum((v - mean) ** 2 for v in values))

    kept = {"count": float(len(history)), "deviations": 0.0, "average": 0.0}
    for end in range(window, len(history) + 1):
        kept["deviations"] += spread(p_label[end - window : end]) / math.sqrt(window - 1)
        kept["average"] = (1 - decay) * kept["average"] + decay * spread(changes[end - window : end - 1])
    return kept, max(changes, default=0.0)


@pytest.mark.parametrize("namespace", NAMESPACES)
@settings(max_examples=100)
@given(masked_batches(), st.sampled_from((3, 5)), st.sampled_from((0.9, 1.0)))
def test_windows_hold_what_the_formulas_give_of_rows_with_a_finite_loss(
    namespace, batch: tuple[Tensor, Tensor], window: int, decay: float
) -> None:
    logits, labels = batch
    rows, classes = logits.shape
    index, labels = torch.arange(rows) % 2, labels[:1].expand(rows).clone()
    table, skipped = ops.new_temporal_table(2, window, classes), ops.new_skipped()
    namespace.record_temporal_(table, index, logits, labels, window, decay, skipped)

    label = int(labels[0])
    good = [statistics_of(z, label) is not None for z in logits.double().tolist()]
    assert skipped.tolist() == [0, 0, good.count(False), 0]
    parts = temporal_parts(table, window)
    for example in range(2):
        history = [z for i, z in enumerate(logits.double().tolist()) if i % 2 == example and good[i]]
        kept, largest = windows_of(history, label, window, decay)  # of a class that is masked now and not then, 1e16
        for name, value in kept.items():
            torch.testing.assert_close(parts[name][example].item(), value, rtol=1e-4, atol=1e-4 * (1 + largest))
        if history:
            last = torch.tensor([x == -math.inf for x in history[-1]])
            assert (parts["log_p"][example][last] == LOWEST).all()


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_records_and_windows_leave_out_the_same_rows(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    values = torch.tensor([0.0, 1.0, -torch.inf, -LARGEST, LARGEST, torch.inf, torch.nan])
    weights = torch.tensor([9.0, 9.0, 9.0, 2.0, 1.0, 0.3, 0.3])
    for step in range(40):
        logits = values[torch.multinomial(weights, 20 * classes, True, generator=generator)].view(20, classes)
        index = torch.arange(20)
        labels = labels_of(index + step, classes)
        table, windows = ops.new_table(20), ops.new_temporal_table(20, 3, classes)
        ops.record_stats_(table, index, logits, labels)
        ops.record_temporal_(windows, index, logits, labels, 3)
        assert table[:, 0].tolist() == windows[:, 0].tolist()
        assert table.isfinite().all()
        assert windows.isfinite().all()
