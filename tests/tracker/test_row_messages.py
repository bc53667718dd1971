"""What is wrong with rows is said before anything is recorded: what came, what was expected, what to do."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import difficulty_prune as dp

Z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
INDEX, Y = torch.tensor([0, 1]), torch.tensor([0, 2])
TEXT, TOKENS = Z[:, :, None].expand(2, 3, 4), Y[:, None].expand(2, 4)
BINARY = torch.tensor([[0, 1, 1], [1, 0, 1]])
LOSS = torch.tensor([1.0, 2.0])
OWN = torch.tensor([0, 1])


def t(*values: float) -> Tensor:
    return torch.tensor(values)


def classes(*scores: str, **options: object) -> dp.DifficultyTracker:
    return dp.DifficultyTracker(4, scores or ("el2n", "forgetting"), **options)


def binary(*scores: str) -> dp.DifficultyTracker:
    return classes(*scores, target="binary")


def values(*scores: str) -> dp.DifficultyTracker:
    return classes(*(scores or ("loss", "accuracy")))


# name: (tracker, arguments of update, exception, patterns of its message)
Case = tuple[Callable[[], dp.DifficultyTracker], dict[str, object], type[Exception], tuple[str, ...]]
CASES: dict[str, Case] = {}


def case(
    name: str, tracker: Callable[..., dp.DifficultyTracker], error: type[Exception], *patterns: str, **given: object
) -> None:
    CASES[name] = (tracker, {"index": INDEX, **given}, error, patterns)


# Shapes

case(
    "text with classes last",
    classes,
    ValueError,
    r"labels: got shape \(2, 4\), expected \[2, 3\]",
    r"transpose\(1, 2\)",
    logits=TEXT.transpose(1, 2),
    labels=TOKENS,
)
case("labels of other positions", classes, ValueError, r"\(2, 3\)", r"\[2, 4\]", logits=TEXT, labels=TOKENS[:, :3])
case(
    "an index too short",
    classes,
    ValueError,
    "index: got 1 examples",
    "batch of 2",
    "owner=",
    index=INDEX[:1],
    logits=TEXT,
    labels=TOKENS,
)
case(
    "an index too long",
    classes,
    ValueError,
    "index: got 3 examples",
    "owner=",
    index=torch.arange(3),
    logits=TEXT,
    labels=TOKENS,
)
case(
    "an index of two dimensions",
    classes,
    ValueError,
    r"index: got shape \(2, 1\)",
    r"\[batch\]",
    index=INDEX[:, None],
    logits=TEXT,
    labels=TOKENS,
)
case(
    "logits of one class",
    classes,
    ValueError,
    r"logits: got shape \(2, 1\), 1 class",
    'target="binary"',
    logits=Z[:, :1],
    labels=t(0, 1),
)
case(
    "positions of one class",
    classes,
    ValueError,
    r"\(2, 1, 4\), 1 class",
    'target="binary"',
    logits=TEXT[:, :1],
    labels=TOKENS,
)
case(
    "one logit each",
    classes,
    ValueError,
    r"logits: got shape \(2,\)",
    'target="binary"',
    logits=Z[:, 0],
    labels=t(0, 1),
)
case("no class", classes, ValueError, r"\(2, 0, 4\)", "at least one class", logits=TEXT[:, :0], labels=TOKENS)
case(
    "a single number",
    binary,
    ValueError,
    r"logits: got shape \(\)",
    r"\[batch, \.\.\.\]",
    logits=t(0.0)[0],
    labels=t(1)[0],
)
case(
    "labels for each logit",
    classes,
    ValueError,
    r"\(2, 3\) of torch.int64",
    'target="binary"',
    r"argmax\(1\)",
    "floating",
    logits=Z,
    labels=BINARY,
)
case(
    "masks for each logit",
    classes,
    ValueError,
    r"\(2, 3, 4\) of torch.bool",
    'target="binary"',
    logits=TEXT,
    labels=TEXT > 0,
)
case(
    "probabilities of another shape",
    classes,
    ValueError,
    r"probabilities of shape \(2, 2, 4\)",
    r"\(2, 3, 4\)",
    logits=TEXT,
    labels=TEXT[:, :2],
)
case(
    "binary labels of another shape",
    binary,
    ValueError,
    r"labels: got shape \(2,\)",
    r"\(2, 3\)",
    "0 or 1 each",
    logits=Z,
    labels=Y,
)
case(
    "binary labels without the channel",
    binary,
    ValueError,
    r"\(2, 2, 2\)",
    r"\(2, 1, 2, 2\)",
    logits=torch.zeros(2, 1, 2, 2),
    labels=torch.ones(2, 2, 2),
)
case(
    "owners of another shape",
    classes,
    ValueError,
    r"owner: got shape \(2,\)",
    r"\[2, 4\]",
    logits=TEXT,
    labels=TOKENS,
    owner=OWN,
)
case(
    "weights of another shape",
    classes,
    ValueError,
    r"row_weight: got shape \(4,\)",
    r"\[2, 4\]",
    logits=TEXT,
    labels=TOKENS,
    row_weight=torch.ones(4),
)
case(
    "a single weight",
    classes,
    ValueError,
    r"row_weight: got shape \(\)",
    r"\[2\]",
    logits=Z,
    labels=Y,
    row_weight=torch.ones(()),
)
case(
    "binary owners of another shape",
    binary,
    ValueError,
    r"owner: got shape \(3,\)",
    r"\[2, 3\]",
    logits=Z,
    labels=BINARY,
    owner=torch.zeros(3).long(),
)
case(
    "losses of tokens without owners",
    values,
    ValueError,
    r"loss: got shape \(2, 3\)",
    "owner=",
    "one value per example",
    loss=torch.ones(2, 3),
    correct=torch.ones(2, 3),
)
case(
    "a reduced loss",
    values,
    ValueError,
    r"loss: got shape \(\)",
    "not reduced",
    loss=torch.ones(()),
    correct=torch.ones(()),
)
case(
    "values of different shapes",
    values,
    ValueError,
    r"correct: got shape \(2, 1\)",
    r"\(2,\)",
    loss=LOSS,
    correct=LOSS[:, None],
)
case(
    "another number of classes than said",
    lambda: classes(num_classes=5),
    ValueError,
    "got 3 classes, expected 5",
    "num_classes",
    logits=TEXT,
    labels=TOKENS,
)
case(
    "another number of labels than said",
    lambda: classes(target="binary", num_classes=5),
    ValueError,
    "got 3 labels for each example, expected 5",
    logits=Z,
    labels=BINARY,
)

# Types

case(
    "labels in int32",
    classes,
    TypeError,
    "labels: got torch.int32",
    "int64",
    r"\.long\(\)",
    logits=TEXT,
    labels=TOKENS.int(),
)
case("labels of classes in float", classes, TypeError, "labels: got torch.float32", logits=Z, labels=Y.float())
case("labels in an array", classes, TypeError, "labels: got ndarray", logits=TEXT, labels=TOKENS.numpy())
case(
    "binary labels in int16",
    binary,
    TypeError,
    "labels: got torch.int16",
    "uint8",
    logits=Z,
    labels=BINARY.to(torch.int16),
)
case("binary labels in a list", binary, TypeError, "labels: got list", logits=Z, labels=BINARY.tolist())
case(
    "logits in double precision",
    classes,
    TypeError,
    "logits: got torch.float64",
    r"\.float\(\)",
    logits=TEXT.double(),
    labels=TOKENS,
)
case("logits that are whole", binary, TypeError, "logits: got torch.int64", logits=BINARY, labels=BINARY)
case(
    "logits that are complex",
    binary,
    TypeError,
    "logits: got torch.complex64",
    logits=Z.to(torch.complex64),
    labels=BINARY,
)
case("logits that are sparse", classes, TypeError, "sparse", "dense", logits=Z.to_sparse(), labels=Y)
case("probabilities that are sparse", classes, TypeError, "labels: .*sparse", logits=Z, labels=Z.softmax(1).to_sparse())
case(
    "owners in int32", classes, TypeError, "owner: got torch.int32", r"\.long\(\)", logits=Z, labels=Y, owner=OWN.int()
)
case("owners in a list", classes, TypeError, "owner: got list", logits=Z, labels=Y, owner=[0, 1])
case(
    "a mask for weights",
    classes,
    TypeError,
    "row_weight: got torch.bool",
    r"\.float\(\)",
    logits=TEXT,
    labels=TOKENS,
    row_weight=TOKENS > 0,
)
case("a number for weights", classes, TypeError, "row_weight: got float", logits=Z, labels=Y, row_weight=1.0)
case("whole losses", values, TypeError, "loss: got torch.int64", "floating", loss=OWN, correct=LOSS > 1)
case("whole numbers right", values, TypeError, "correct: got torch.int64", r"\.bool\(\)", loss=LOSS, correct=OWN)
case("losses in a list", values, TypeError, "loss: got list", loss=[1.0, 2.0], correct=LOSS > 1)
case("an index in int32", classes, TypeError, "index: got torch.int32", index=INDEX.int(), logits=TEXT, labels=TOKENS)
case("no index", classes, TypeError, "index: got NoneType", index=None, logits=TEXT, labels=TOKENS)
case(
    "an ignored label that is no number",
    classes,
    TypeError,
    "ignore_index: got 'pad'",
    logits=TEXT,
    labels=TOKENS,
    ignore_index="pad",
)
case(
    "an ignored label that is half a number",
    classes,
    TypeError,
    "ignore_index: got 0.5",
    logits=TEXT,
    labels=TOKENS,
    ignore_index=0.5,
)

# Values

case(
    "a label beyond",
    classes,
    ValueError,
    "labels: got 3",
    r"0\.\.2",
    "-100 is ignored",
    "ignore_index=3",
    logits=TEXT,
    labels=TOKENS + 1,
)
case(
    "a label that another ignore_index is for",
    classes,
    ValueError,
    "labels: got -100",
    "-1 is ignored",
    "ignore_index=-100",
    logits=TEXT,
    labels=TOKENS.where(TOKENS > 0, -100),
    ignore_index=-1,
)
case(
    "a label that is ignored among probabilities",
    classes,
    ValueError,
    "ignore_index: got 2",
    "row_weight",
    logits=Z,
    labels=Z.softmax(1),
    ignore_index=2,
)
case(
    "a binary label of 2",
    binary,
    ValueError,
    "labels: got 2, expected 0 or 1",
    "NaN or ignore_index=-100",
    logits=Z,
    labels=BINARY + 1,
)
case("a binary label of 0.5", binary, ValueError, "labels: got 0.5", r"\[1 - q, q\]", logits=Z, labels=BINARY / 2)
case(
    "a border of a mask that is not ignored",
    binary,
    ValueError,
    "labels: got 255",
    logits=Z,
    labels=(255 * BINARY).byte(),
)
case(
    "an owner beyond",
    classes,
    IndexError,
    r"owner: got 2, expected 0\.\.1",
    "place in `index`",
    "-1 for nobody",
    logits=Z,
    labels=Y,
    owner=OWN + 1,
)
case("an owner below", classes, IndexError, "owner: got -2", logits=Z, labels=Y, owner=OWN - 2)
case("an owner beyond of values", values, IndexError, "owner: got 7", loss=LOSS, correct=LOSS > 1, owner=t(0, 7))
case("an owner beyond of labels", binary, IndexError, "owner: got 3", logits=Z, labels=BINARY, owner=t(0, 3))
case(
    "an index beyond",
    classes,
    IndexError,
    "index: got 9",
    r"0\.\.3",
    "IndexedDataset",
    index=t(0, 9),
    logits=TEXT,
    labels=TOKENS,
)
case("an index below", classes, IndexError, "index: got -1", index=t(0, -1), logits=Z, labels=Y, owner=OWN)
for name, wrong in (("negative", -2.0), ("NaN", math.nan), ("infinite", math.inf)):
    case(
        f"a {name} weight",
        classes,
        ValueError,
        f"row_weight: got {wrong}",
        "at least 0",
        "leaves a row out",
        logits=Z,
        labels=Y,
        row_weight=t(1.0, wrong),
    )
case(
    "a weight beyond float32",
    classes,
    ValueError,
    "row_weight: got inf",
    "float32",
    logits=Z,
    labels=Y,
    row_weight=torch.tensor([1, 1e300], dtype=torch.float64),
)
case(
    "a negative loss where it is to be -log p",
    lambda: values("confidence"),
    ValueError,
    "loss: got -2",
    "-log p",
    "leave them out",
    loss=t(1.0, -2.0),
)
case("a fraction above 1", lambda: values("accuracy"), ValueError, "correct: got 1.5", r"\[0, 1\]", correct=t(0.5, 1.5))
case("an entropy below 0", lambda: values("entropy"), ValueError, "entropy: got -1", "sign", entropy=t(0.5, -1.0))

# What does not go together

case("nothing", classes, TypeError, "expected logits and labels", "loss=")
case("logits alone", classes, TypeError, "expected logits and labels", logits=TEXT)
case("labels alone", classes, TypeError, "expected logits and labels", labels=TOKENS)
case(
    "a loss beside logits",
    values,
    ValueError,
    "got loss=, correct= beside logits, labels",
    logits=Z,
    labels=Y,
    loss=LOSS,
    correct=LOSS > 1,
)
case("a loss beside inputs", values, ValueError, "got loss= beside inputs", loss=LOSS, inputs=Z)
case(
    "a loss for a score of logits",
    lambda: values("loss", "el2n"),
    ValueError,
    "'el2n' needs logits and labels",
    "only loss=",
    loss=LOSS,
)
case("a loss for a score of events", values, ValueError, "'accuracy' needs correct=", "only loss=", loss=LOSS)
case(
    "no loss for a score of it",
    lambda: values("confidence"),
    ValueError,
    "'confidence' needs loss=",
    "only entropy=",
    entropy=LOSS,
)
case(
    "inputs beside rows",
    lambda: classes("vog"),
    ValueError,
    r"inputs= goes with one row",
    logits=TEXT,
    labels=TOKENS,
    inputs=Z,
)
case(
    "rows for vog",
    lambda: classes("vog", "el2n"),
    ValueError,
    "'vog' needs one row",
    "vog_loss",
    logits=TEXT,
    labels=TOKENS,
)
case(
    "rows for vog_probability",
    lambda: classes("vog_probability"),
    ValueError,
    "'vog_probability' needs",
    logits=Z,
    labels=Y,
    owner=OWN,
)
for name in ("tdds", "dyn_unc", "dual"):
    case(
        f"rows for {name}",
        lambda name=name: classes(name),
        ValueError,
        f"'{name}' needs one row",
        "leave it out",
        logits=TEXT,
        labels=TOKENS,
    )
    case(
        f"probabilities for {name}",
        lambda name=name: classes(name),
        ValueError,
        f"'{name}' needs",
        logits=Z,
        labels=Z.softmax(1),
    )
    case(
        f"binary labels for {name}",
        lambda name=name: binary(name),
        ValueError,
        f"'{name}' needs",
        logits=Z,
        labels=BINARY,
    )
for name, given in {
    "labels": {"logits": TEXT, "labels": TOKENS.to("meta")},
    "owner": {"logits": Z.to("meta"), "labels": Y.to("meta"), "owner": OWN.to("meta"), "index": INDEX.to("meta")},
}.items():
    case(f"{name} on another device", lambda: classes(device="cpu"), ValueError, "meta", "cpu", **given)


def everything(tracker: dp.DifficultyTracker) -> list[Tensor]:
    state = tracker._state
    return [tensor.clone() for tensor in state.tensors()] if state.skipped is not None else []


@pytest.mark.parametrize("name", CASES)
def test_it_is_said_before_anything_is_recorded(name) -> None:
    new_tracker, given, error, patterns = CASES[name]
    tracker = new_tracker()
    before = everything(tracker)
    for _ in range(2):
        with pytest.raises(error) as refusal:
            tracker.update(**given)
        assert type(refusal.value) is error
        for pattern in patterns:
            assert re.search(pattern, str(refusal.value)), (pattern, str(refusal.value))
        assert len(str(refusal.value)) < 400
    assert all(torch.equal(a, b) for a, b in zip(before, everything(tracker), strict=True))
    assert tracker.presentations == 0
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        tracker.finish(architecture="mlp", seed=0)


GOOD = {
    "classes": (classes, {"logits": TEXT, "labels": TOKENS}),
    "binary": (binary, {"logits": Z, "labels": BINARY}),
    "values": (values, {"loss": LOSS, "correct": LOSS > 1}),
}


@pytest.mark.parametrize("name", [n for n, (tracker, *_) in CASES.items() if tracker in (classes, binary, values)])
def test_a_refused_step_leaves_what_was_recorded_before(name) -> None:
    new_tracker, given, error, _ = CASES[name]
    tracker = new_tracker()
    tracker.update(INDEX, **GOOD[new_tracker.__name__][1])
    before, age = everything(tracker), tracker.age()
    with pytest.raises(error):
        tracker.update(**given)
    assert all(torch.equal(a, b) for a, b in zip(before, everything(tracker), strict=True))
    assert torch.equal(tracker.age().nan_to_num(-1), age.nan_to_num(-1))


def test_the_number_of_classes_stays_and_that_of_binary_labels_may_change() -> None:
    tracker = classes()
    tracker.update(INDEX, TEXT, TOKENS)
    with pytest.raises(ValueError, match="logits: got 2 classes, expected 3, as the first batch had"):
        tracker.update(INDEX, TEXT[:, :2], TOKENS.clamp(max=1))
    tracker.update(INDEX, TEXT[:, :, :1], TOKENS[:, :1])
    tracker = binary()
    for size in (3, 1, 2):
        tracker.update(INDEX, Z[:, :size], BINARY[:, :size])
        tracker.update(INDEX, torch.zeros(2, 1, size, size), torch.ones(2, 1, size, size).bool())
    assert tracker.presentations == 12


# Warnings


def test_targets_that_are_no_probabilities_are_told_of_once_and_where_the_user_is() -> None:
    tracker = classes()
    with pytest.warns(UserWarning, match="targets of 2 rows are no probabilities.*target=.binary") as told:
        tracker.update(INDEX, Z, BINARY.float())
    assert len(told) == 1
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.update(INDEX, Z, BINARY.float())
        tracker.update(INDEX, TEXT, TEXT.softmax(1))
        tracker.compute()
        smoothed = classes()
        smoothed.update(INDEX, Z, 0.9 * torch.eye(3)[Y] + 0.1 / 3)
        smoothed.update(INDEX, Z, Z.softmax(1).bfloat16())
        assert smoothed.presentations == 4
    assert tracker.presentations == 6


# What is accepted


def test_numbers_of_numpy_are_numbers() -> None:
    tracker = classes(right_from=np.float32(0.5), half_life=np.float64(3))
    tracker.update(INDEX, TEXT, TOKENS.where(TOKENS > 0, -7), ignore_index=np.int64(-7))
    assert tracker.presentations == 1


def test_a_class_may_be_ignored() -> None:
    """Such as the background, class 0."""
    tracker = classes()
    tracker.update(INDEX, Z, Y, ignore_index=0)
    tracker.update(INDEX, TEXT, TOKENS, ignore_index=0)
    tracker.update(INDEX, Z.t().contiguous().t(), Y, ignore_index=0)
    assert tracker.compute()["el2n"].isnan().tolist() == [True, False, True, True]
    tracker = binary()
    tracker.update(INDEX, Z, torch.ones(2, 3), ignore_index=1)
    assert tracker.presentations == 0


def test_what_autocast_and_inference_mode_make_is_taken() -> None:
    linear = torch.nn.Linear(3, 3)
    tracker, labels = classes(), binary()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = linear(Z)
        tracker.update(INDEX, logits, Y, row_weight=torch.rand(2, requires_grad=True))
        tracker.update(INDEX, logits, logits.softmax(1))
        labels.update(INDEX, logits, BINARY)
    with torch.inference_mode():
        tracker.update(INDEX, TEXT.clone(), TOKENS.clone())
    tracker.update(INDEX, TEXT, TOKENS)
    assert logits.dtype == torch.bfloat16
    assert logits.requires_grad
    assert tracker.presentations == 8


# What comes after rows


def test_a_run_of_rows_knows_no_labels_but_takes_them_and_its_options() -> None:
    tracker = dp.DifficultyTracker(2, ("forgetting", "recent_loss"), right_from=0.5, half_life=4)
    tracker.update(INDEX, TEXT, TOKENS)
    with pytest.raises(ValueError, match=r"the class of 2 examples is not known.*or several rows"):
        tracker.compute(class_normalized=True)
    run = tracker.finish(architecture="lm", seed=0)
    assert run.labels is None
    assert run.metadata["options"] == {"right_from": 0.5, "half_life": 4.0}
    assert tracker.finish(architecture="lm", seed=0, labels=[0, 1]).labels.tolist() == [0, 1]


def test_runs_with_other_options_of_rows_do_not_mix() -> None:
    def run(seed: int, score: str, **options: object) -> dp.Run:
        tracker = dp.DifficultyTracker(2, (score,), **options)
        tracker.update(INDEX, Z, BINARY if "target" in options else Z.softmax(1))
        return tracker.finish(architecture="lm", seed=seed, dataset_fingerprint="f00d")

    for score, option in (
        ("forgetting", {"right_from": 0.5}),
        ("recent_loss", {"half_life": 3.0}),
        ("el2n", {"target": "binary"}),
    ):
        name = next(iter(option))
        with pytest.raises(ValueError, match=f"{score}.*options.{name}"):
            dp.RunSet([run(0, score), run(1, score, **option)])
        assert len(dp.RunSet([run(0, score, **option), run(1, score, **option)])) == 2
    assert len(dp.RunSet([run(0, "el2n"), run(1, "el2n", right_from=0.5, half_life=9)])) == 2


@pytest.mark.parametrize("option", [{"target": "binary"}, {"right_from": 0.5}, {"half_life": 3.0}])
def test_trackers_and_states_of_other_options_are_refused(option) -> None:
    tracker, other = classes(), classes(**option)
    tracker.update(INDEX, Z, Y)
    other.update(INDEX, Z, BINARY if "target" in option else Z.softmax(1))
    before = everything(tracker)
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"merge.*{name}.*{value}"):
        tracker.merge(other)
    with pytest.raises(ValueError, match=f"the state has {name} '?{value}"):
        tracker.load_state_dict(other.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, everything(tracker), strict=True))


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, 1e7, "2", True, None])
def test_half_lives_that_cannot_be_are_refused(value) -> None:
    with pytest.raises(ValueError, match=f"half_life: got {value!r}.*'loss'"):
        classes(half_life=value)


@pytest.mark.parametrize("value", [0, -0.5, 1.5, math.nan, True, "half"])
def test_fractions_that_cannot_be_are_refused(value) -> None:
    with pytest.raises(ValueError, match=f"right_from: got {value!r}"):
        classes(right_from=value)


def test_targets_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="target: got 'multilabel', expected 'classes' or 'binary'"):
        classes(target="multilabel")


@pytest.mark.parametrize("half_life", [1e-9, 1e3, 1e6])
def test_the_recent_loss_of_long_and_short_half_lives(half_life) -> None:
    tracker = dp.DifficultyTracker(1, ("recent_loss",), half_life=half_life)
    losses = torch.rand(40, generator=torch.Generator().manual_seed(0)).double()
    for loss in losses:
        tracker.update(INDEX[:1], loss=loss[None])
    weight = 0.5 ** (torch.arange(39, -1, -1, dtype=torch.float64) / half_life)
    expected = (weight * losses).sum() / weight.sum()
    assert tracker.compute()["recent_loss"].item() == pytest.approx(expected.item(), rel=1e-4)
