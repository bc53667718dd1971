"""Bad input to the tracker is refused before anything is recorded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from refusals import check_refused, refusals

import difficulty_prune as dp

CASES, case, expect = refusals()


def tracker(*scores, num_examples=4, **options):
    return dp.DifficultyTracker(num_examples, scores or ("el2n",), **options)


def step(target=None, *, index=(0, 1), logits=None, labels=(2, 0), **more):
    """One training step of two examples and three classes, good but for what the caller changes."""
    target = target if target is not None else tracker()
    index = index if isinstance(index, torch.Tensor) else torch.tensor(index)
    logits = logits if logits is not None else torch.tensor([[0.1, 0.2, 0.3], [3.0, 2.0, 1.0]])
    labels = labels if isinstance(labels, torch.Tensor) or labels is None else torch.tensor(labels)
    target.update(index, logits, labels, **more)
    return target


def watch(target=None, *, inputs=None, index=(0, 1), **more):
    inputs = inputs if inputs is not None else torch.ones(2, 3, 4, 4)
    return (target or tracker("vog_loss")).watch(inputs, torch.as_tensor(index), **more)


# The index

expect("index out of range", IndexError, "index", "got 4", r"0\.\.3", "4 examples", of=lambda: step(index=(0, 4)))
expect("index negative", IndexError, "index", "got -1", r"0\.\.3", of=lambda: step(index=(-1, 0)))
expect("index float", TypeError, "index", "float32", "int64", of=lambda: step(index=(0.0, 1.0)))
expect("index int32", TypeError, "index", "int32", "int64", of=lambda: step(index=torch.tensor([0, 1]).int()))
expect("index bool", TypeError, "index", "bool", "int64", of=lambda: step(index=torch.tensor([True, False])))
expect("index list", TypeError, "index", "list", "Tensor", of=lambda: tracker().update([0], torch.zeros(1, 3), [0]))
expect("index too long", ValueError, "index", r"\(3,\)", r"\[2\]", of=lambda: step(index=(0, 1, 2)))
expect("index 2-D", ValueError, "index", r"\(2, 1\)", r"\[2\]", of=lambda: step(index=torch.tensor([[0], [1]])))
expect(
    "index on another device",
    ValueError,
    "index on meta",
    "cpu",
    "one device",
    of=lambda: step(index=torch.tensor([0, 1], device="meta")),
)
expect("index out of range when watched", IndexError, "got 9", r"0\.\.3", of=lambda: watch(index=(0, 9)))
expect("index too short when watched", ValueError, "index", r"\(1,\)", r"\[2\]", of=lambda: watch(index=(0,)))
expect(
    "index out of range with losses",
    IndexError,
    "got 7",
    r"0\.\.3",
    of=lambda: tracker("loss").update(torch.tensor([7]), loss=torch.ones(1)),
)


# Labels

expect("label too large", ValueError, "labels", "got 3", r"0\.\.2", "3 columns", of=lambda: step(labels=(0, 3)))
expect("label negative", ValueError, "labels", "got -1", r"0\.\.2", "ignore_index=-1", of=lambda: step(labels=(-1, 1)))
expect("labels float", TypeError, "labels", "float32", "int64", of=lambda: step(labels=(0.0, 1.0)))
expect("labels one-hot", ValueError, "labels", r"\(2, 3\)", r"\[2\]", of=lambda: step(labels=torch.eye(2, 3).long()))
expect("labels too short", ValueError, "labels", r"\(1,\)", r"\[2\]", of=lambda: step(labels=(0,)))
expect(
    "labels on another device",
    ValueError,
    "labels on meta",
    "logits on cpu",
    "one device",
    of=lambda: step(labels=torch.tensor([0, 1], device="meta")),
)
expect("no labels", TypeError, "logits and labels", of=lambda: step(labels=None))
expect("nothing but an index", TypeError, "logits and labels", of=lambda: tracker().update(torch.tensor([0])))


# Logits

expect("logits integer", TypeError, "logits", "int64", "float32", of=lambda: step(logits=torch.zeros(2, 3).long()))
expect("logits double", TypeError, "logits", "float64", "float32", of=lambda: step(logits=torch.zeros(2, 3).double()))
expect("logits array", TypeError, "logits", "ndarray", "Tensor", of=lambda: step(logits=np.zeros((2, 3))))
expect("logits 1-D", ValueError, "logits", r"\(2,\)", r"\[batch, classes", of=lambda: step(logits=torch.zeros(2)))
expect("logits 3-D", ValueError, "logits", r"\(2, 5, 3\)", r"\[2, 3\]", of=lambda: step(logits=torch.zeros(2, 5, 3)))
expect(
    "one class", ValueError, "logits", "1 class", "at least 2", of=lambda: step(logits=torch.zeros(2, 1), labels=(0, 0))
)
expect("no class", ValueError, "logits", r"\(2, 0\)", "at least", of=lambda: step(logits=torch.zeros(2, 0)))
expect("changed classes", ValueError, "4 classes", "expected 3", of=lambda: step(step(), logits=torch.zeros(2, 4)))
expect("other classes than declared", ValueError, "3 classes", "expected 10", of=lambda: step(tracker(num_classes=10)))
expect(
    "batch on another device than the tracker",
    ValueError,
    "cpu",
    "meta",
    of=lambda: step(tracker(device="meta")),
)

for name, value in (("NaN", math.nan), ("inf", math.inf), ("-inf", -math.inf)):
    broken = torch.tensor([[0.0, 1.0, value], [0.0, 1.0, 2.0]])  # of the label
    message = ("2 x not finite", "allow_skipped=True")
    expect(
        f"logits {name}, compute",
        ValueError,
        *message,
        of=lambda logits=broken: step(step(logits=logits), logits=logits).compute(),
    )
    expect(
        f"logits {name}, finish",
        ValueError,
        *message,
        of=lambda logits=broken: step(step(logits=logits), logits=logits).finish(architecture="mlp", seed=0),
    )


# Names of scores

expect("tracker, unknown score", ValueError, "'vmax'", "choose from.*el2n", of=lambda: tracker("el2n", "vmax"))
expect(
    "tracker, score as string", TypeError, "string 'el2n'", r"\('el2n',\)", of=lambda: dp.DifficultyTracker(4, "el2n")
)
expect("tracker, no scores", ValueError, "got none", "choose from.*el2n", of=lambda: dp.DifficultyTracker(4, ()))


# The tracker

expect("no examples", ValueError, "num_examples: got 0", "at least 1", of=lambda: tracker(num_examples=0))
expect("fewer than no examples", ValueError, "num_examples: got -1", "at least 1", of=lambda: tracker(num_examples=-1))
expect("half an example", TypeError, "num_examples: got 2.5", "whole number", of=lambda: tracker(num_examples=2.5))
expect("examples as string", TypeError, "num_examples: got '4'", "whole number", of=lambda: tracker(num_examples="4"))
expect("examples as bool", TypeError, "num_examples: got True", "whole number", of=lambda: tracker(num_examples=True))
expect("loss= beside labels", ValueError, "loss=", "labels", of=lambda: step(logits=None, loss=torch.ones(2)))
expect(
    "loss= on a tracker of other scores",
    ValueError,
    "loss=",
    "'el2n' needs logits and labels",
    of=lambda: tracker().update(torch.tensor([0]), loss=torch.ones(1)),
)
expect(
    "loss reduced",
    ValueError,
    "loss: got shape \\(\\)",
    "not reduced",
    of=lambda: tracker("loss").update(torch.tensor([0]), loss=torch.tensor(1.0)),
)
expect(
    "loss integer",
    TypeError,
    "loss: got torch.int64",
    "floating",
    of=lambda: tracker("loss").update(torch.tensor([0]), loss=torch.tensor([1])),
)
expect(
    "loss not finite",
    ValueError,
    "1 x not finite",
    of=lambda: (t := tracker("loss")).update(torch.tensor([0]), loss=torch.tensor([math.nan])) or t.compute(),
)
expect("vog without inputs", ValueError, "vog", "inputs=", of=lambda: step(tracker("vog")))
expect(
    "vog of inputs without gradient",
    ValueError,
    "inputs",
    "requires_grad is False",
    of=lambda: step(tracker("vog"), inputs=torch.ones(2, 3)),
)
expect(
    "finish with nothing recorded",
    RuntimeError,
    "nothing was recorded",
    "tracker.update",
    of=lambda: tracker().finish(architecture="mlp", seed=0),
)
expect(
    "finish, labels of the wrong length",
    ValueError,
    "labels",
    r"\(3,\)",
    r"\[4\]",
    of=lambda: step().finish(architecture="mlp", seed=0, labels=[0, 1, 2]),
)
expect(
    "compute without the gradients",
    RuntimeError,
    "vog_loss",
    "watch",
    of=lambda: step(tracker("el2n", "vog_loss")).compute(),
)
expect(
    "class-normalized before every example was seen",
    ValueError,
    "class_normalized",
    r"\b2\b",  # how many, or the first of them
    of=lambda: step().compute(class_normalized=True),
)


# Every example was presented, so the message must not say that one was not.
@case("class-normalized without labels", ValueError, "class_normalized", "label", "^((?!never presented).)*$")
def _(folder):
    target = tracker("loss", num_examples=1)
    target.update(torch.tensor([0]), loss=torch.ones(1))
    target.compute(class_normalized=True)


expect(
    "merge, other length",
    ValueError,
    "merge",
    "5",
    "expected.*4",
    of=lambda: tracker().merge(tracker(num_examples=5)),
)
expect(
    "merge, other scores", ValueError, "merge", "'aum'", "expected.*'el2n'", of=lambda: tracker().merge(tracker("aum"))
)
expect(
    "merge, other classes",
    ValueError,
    "merge",
    "5",
    "3",
    of=lambda: step().merge(step(logits=torch.zeros(2, 5))),
)
expect(
    "state of another length",
    ValueError,
    "num_examples 5",
    "this tracker 4",
    of=lambda: tracker().load_state_dict(tracker(num_examples=5).state_dict()),
)
expect(
    "state of other scores",
    ValueError,
    "'aum'",
    "this tracker.*'el2n'",
    of=lambda: tracker().load_state_dict(tracker("aum").state_dict()),
)
expect("state of something else", ValueError, "num_examples", "4", of=lambda: tracker().load_state_dict({"epoch": 3}))


# Watching inputs

expect("watch integers", TypeError, "int64", "floating point", of=lambda: watch(inputs=torch.ones(2, 3).long()))
expect("watch a list", TypeError, "list", "floating point", of=lambda: watch(inputs=[1.0, 2.0]))
expect("watch without vog_loss", ValueError, "'vog_loss'", r"\('el2n',\)", of=lambda: watch(tracker()))
expect("watch, weight too long", ValueError, r"got \(3,\)", r"\[2\]", of=lambda: watch(weight=torch.ones(3)))
expect("watch, weight a number", ValueError, "weight: got float", r"\[2\]", of=lambda: watch(weight=0.5))
expect("watch, weight per pixel", ValueError, r"got \(2, 1\)", r"\[2\]", of=lambda: watch(weight=torch.ones(2, 1)))
expect("watch, reduction", ValueError, "reduction: got 'none'", "'mean' or 'sum'", of=lambda: watch(reduction="none"))
expect(
    "watch, no such channels",
    ValueError,
    "channel_dim: got 4",
    r"\(2, 3, 4, 4\)",
    of=lambda: watch(tracker("vog_loss", gradient=dp.GradientOptions(channel_dim=4))),
)
expect("every zero steps", ValueError, "every: got 0", "at least 1", of=lambda: dp.GradientOptions(every=0))
expect("every half step", ValueError, "every: got 0.5", "whole number", of=lambda: dp.GradientOptions(every=0.5))
expect("channels first", ValueError, "channel_dim: got 0", "from 1", of=lambda: dp.GradientOptions(channel_dim=0))


@pytest.mark.parametrize(("attempt", "exception", "patterns"), CASES)
def test_bad_input_is_refused(tmp_path, attempt, exception, patterns):
    check_refused(attempt, tmp_path, exception, patterns)


# What a refusal leaves behind


def test_finite_rows_count_where_others_are_not_finite():
    logits = torch.tensor([[0.0, math.nan, 0.0], [0.0, 1.0, 2.0], [math.inf, 0.0, 0.0]])
    target = step(index=(0, 1, 2), logits=logits, labels=(0, 1, 2))
    expected = step(index=(1,), logits=logits[1:2], labels=(1,)).compute()["el2n"]
    torch.testing.assert_close(target.compute(allow_skipped=True)["el2n"], expected, equal_nan=True)
    run = target.finish(architecture="mlp", seed=0, allow_skipped=True)
    np.testing.assert_array_equal(run.scores["el2n"], expected.numpy())
    assert run.metadata["skipped"] == {"bad index": 0, "bad label": 0, "not finite": 2, "changed label": 0}
    assert run.metadata["presentations"] == 1


REFUSED = {
    "index": lambda target: step(target, index=(0, 9)),
    "label": lambda target: step(target, labels=(0, 9)),
    "dtype of labels": lambda target: step(target, labels=(0.0, 1.0)),
    "device of labels": lambda target: step(target, logits=torch.zeros(2, 3, device="meta")),
    "other number of classes": lambda target: step(target, logits=torch.zeros(2, 7), labels=(0, 9)),
    "loss": lambda target: target.update(torch.tensor([0]), loss=torch.ones(1)),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED.keys())
def test_a_refused_step_leaves_no_trace(refused):
    target = tracker()
    with pytest.raises((ValueError, TypeError, IndexError)):
        refused(target)
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        target.finish(architecture="mlp", seed=0)
    step(target)
    torch.testing.assert_close(target.compute()["el2n"], step().compute()["el2n"], equal_nan=True)
    assert target.presentations == 2


def test_a_step_without_the_inputs_that_vog_needs_is_not_half_recorded():
    target = tracker("el2n", "vog")
    with pytest.raises(ValueError, match="inputs="):
        step(target)
    assert target.presentations == 0
