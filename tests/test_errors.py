"""Bad input is refused before anything runs, by the right exception, with what was got and what was expected.

One table: what is done, the exception, and patterns that its message must contain.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import safetensors.numpy
import torch

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.uniform import Easiest, Hardest, Random, Window

CASES = []


def case(name, exception, *patterns):
    """Adds a function of a temporary folder to the table."""

    def add(function):
        CASES.append(pytest.param(function, exception, patterns, id=name))
        return function

    return add


def expect(name, exception, *patterns, of):
    """The same, where one expression is enough."""
    case(name, exception, *patterns)(lambda folder: of())


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


def run(**more):
    return dp.Run({"el2n": [0.1, 0.2, 0.3]}, **{"architecture": "mlp", "seed": 0, **more})


def runs():
    return dp.RunSet([run(seed=0), run(seed=1)])


def sampler(policy=None, difficulty=(0.1, 0.9, 0.5, 0.2), **more):
    return dp.PruneSampler(policy or Hardest(keep=0.5), torch.tensor(difficulty), **more)


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
expect("position outside the dataset", IndexError, "got 2", r"0\.\.1", of=lambda: dp.IndexedDataset(["a", "b"])[2])
expect("position not whole", TypeError, "0.7", of=lambda: dp.IndexedDataset(["a", "b"])[0.7])
expect("weight of a float index", TypeError, "float32", "int64", of=lambda: sampler().weight(torch.tensor([0.0])))
expect("weight of a list", TypeError, "list", "int64", of=lambda: sampler().weight([0]))
expect("weight of an index out of range", IndexError, "4", of=lambda: sampler().weight(torch.tensor([4])))
expect("weight of a negative index", IndexError, "-1", of=lambda: sampler().weight(torch.tensor([-1])))

# Labels

expect("label too large", ValueError, "labels", "got 3", r"0\.\.2", "3 columns", of=lambda: step(labels=(0, 3)))
expect("label negative", ValueError, "labels", "got -100", r"0\.\.2", of=lambda: step(labels=(-100, 1)))
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
expect("logits 1-D", ValueError, "logits", r"\(2,\)", r"\[batch, classes\]", of=lambda: step(logits=torch.zeros(2)))
expect("logits 3-D", ValueError, "logits", r"\(2, 5, 3\)", "batch", of=lambda: step(logits=torch.zeros(2, 5, 3)))
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
    broken = torch.tensor([[0.0, value, 0.0], [0.0, 1.0, 2.0]])
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
expect(
    "run, unknown score",
    ValueError,
    "'vmax'",
    "choose from",
    of=lambda: dp.Run({"vmax": [1.0]}, architecture="mlp", seed=0),
)
expect("run, score as string", TypeError, "string 'el2n'", of=lambda: dp.Run("el2n", architecture="mlp", seed=0))
expect("run, no scores", ValueError, "got none", "choose from", of=lambda: dp.Run({}, architecture="mlp", seed=0))
for method in ("matrix", "mean", "standard_error", "difficulty"):
    expect(
        f"RunSet.{method}, unknown score",
        ValueError,
        "'vmax'",
        "choose from",
        of=lambda method=method: getattr(runs(), method)("vmax"),
    )
    expect(
        f"RunSet.{method}, score not recorded",
        ValueError,
        "'aum'",
        "el2n",
        of=lambda method=method: getattr(runs(), method)("aum"),
    )
expect("agreement, unknown score", ValueError, "'vmax'", of=lambda: dp.consistency.run_agreement(runs(), "vmax"))
expect("correlation, unknown", ValueError, "'vmax'", of=lambda: dp.consistency.correlation(runs(), ["vmax"]))
expect(
    "correlation, score as string",
    TypeError,
    "string 'el2n'",
    of=lambda: dp.consistency.correlation(runs(), "el2n"),
)
expect("correlation, no scores", ValueError, "got none", of=lambda: dp.consistency.correlation(runs(), ()))

# The tracker

expect("no examples", ValueError, "num_examples: got 0", "at least 1", of=lambda: tracker(num_examples=0))
expect("fewer than no examples", ValueError, "num_examples: got -1", "at least 1", of=lambda: tracker(num_examples=-1))
expect("half an example", TypeError, "num_examples: got 2.5", "whole number", of=lambda: tracker(num_examples=2.5))
expect("examples as string", TypeError, "num_examples: got '4'", "whole number", of=lambda: tracker(num_examples="4"))
expect("examples as bool", TypeError, "num_examples: got True", "whole number", of=lambda: tracker(num_examples=True))
expect("loss= beside other scores", ValueError, "loss=", "el2n", of=lambda: step(logits=None, loss=torch.ones(2)))
expect(
    "loss= on a tracker of other scores",
    ValueError,
    "loss=",
    r"\('el2n',\)",
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

# Gradient variance

vog = dp.ops.gradient_variance
expect(
    "vog, unknown statistic", ValueError, "got 'max'", "'std' or 'variance'", of=lambda: vog(torch.ones(2, 1, 1), "max")
)
expect("vog, 1-D", ValueError, r"\(3,\)", r"\[K, B, C, ...\]", of=lambda: vog(torch.ones(3)))
expect("vog, integers", TypeError, "int64", "floating-point", of=lambda: vog(torch.ones(2, 1, 1).long()))
expect("vog, no checkpoints", ValueError, r"\(0, 2, 1\)", "K >= 1", of=lambda: vog(torch.ones(0, 2, 1)))

# Runs and files

expect("run, wrong labels length", ValueError, "labels", r"\(2,\)", r"\[3\]", of=lambda: run(labels=[0, 1]))
expect("run, float labels", ValueError, "labels", "float64", "whole", of=lambda: run(labels=[0.0, 1.0, 2.0]))
expect(
    "run, lengths differ",
    ValueError,
    "'el2n': 2",
    "'aum': 1",
    "same length",
    of=lambda: dp.Run({"el2n": [1.0, 2.0], "aum": [1.0]}, architecture="mlp", seed=0),
)
expect("run, no examples", ValueError, "'el2n': 0", of=lambda: dp.Run({"el2n": []}, architecture="mlp", seed=0))
expect(
    "run, infinite score",
    ValueError,
    "'el2n'",
    "example 1",
    of=lambda: dp.Run({"el2n": [0.0, math.inf]}, architecture="mlp", seed=0),
)
expect("no runs", ValueError, "no runs", "at least one", of=lambda: dp.RunSet([]))
expect("paths given as runs", TypeError, r"a\.safetensors|str", of=lambda: dp.RunSet(["a.safetensors"]))
expect("no such runs", ValueError, "'architecture': 'vit'", "mlp", of=lambda: runs().where(architecture="vit"))


@case("run file cut short", ValueError, r"cut\.safetensors", "cut short")
def _(folder):
    run().save(folder / "cut.safetensors")
    content = (folder / "cut.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-4])
    dp.Run.load(folder / "cut.safetensors")


@case("run file of another dataset", ValueError, "aaaa and bbbb", "different")
def _(folder):
    run(dataset_fingerprint="aaaa").save(folder / "a.safetensors")
    run(dataset_fingerprint="bbbb", seed=1).save(folder / "b.safetensors")
    dp.RunSet.load(folder)


@case("run file not ours", ValueError, r"weights\.safetensors", "not one that difficulty_prune wrote")
def _(folder):
    (folder / "weights.safetensors").write_bytes(safetensors.numpy.save({"el2n": np.zeros(3)}))
    dp.Run.load(folder / "weights.safetensors")


@case("run file that is text", ValueError, r"notes\.txt", "not a safetensors file")
def _(folder):
    (folder / "notes.txt").write_text("el2n, aum\n" * 20)
    dp.Run.load(folder / "notes.txt")


@case("run file missing", FileNotFoundError, r"none\.safetensors", "no such file")
def _(folder):
    dp.Run.load(folder / "none.safetensors")


@case("run files missing", FileNotFoundError, r"none-\*\.safetensors", "no run files")
def _(folder):
    dp.RunSet.load(folder / "none-*.safetensors")


# Policies

for policy in (Hardest, Easiest, Random, lambda keep: Window(0.0, keep)):
    name = getattr(policy, "__name__", "policy").replace("<lambda>", "Window")
    for value in (0, 0.0, 1.2, -0.5, math.nan, math.inf):
        expect(
            f"{name}, keep {value}",
            ValueError,
            f"keep: got {value}",
            r"\(0, 1\]",
            of=lambda policy=policy, value=value: policy(keep=value),
        )
    for value in (True, "0.5", None):
        expect(
            f"{name}, keep {value!r}",
            TypeError,
            f"keep: got {value!r}",
            r"\(0, 1\]",
            of=lambda policy=policy, value=value: policy(keep=value),
        )
expect("Window too wide", ValueError, "start 0.6", "keep 0.6", "at most 1", of=lambda: Window(start=0.6, keep=0.6))
for value in (-0.1, math.nan, 1.5):
    expect(
        f"Window, start {value}",  # 0 is a good start, and it is no share that is kept
        ValueError,
        f"start: got {value}",
        r"\[0, 1",
        "^((?!is kept).)*$",
        of=lambda value=value: Window(start=value, keep=0.5),
    )
expect("Window, start string", TypeError, "start: got '0.1'", of=lambda: Window(start="0.1", keep=0.5))
expect("PerClass of a share", TypeError, "0.5", "Hardest", of=lambda: PerClass(0.5))
expect("PerClass of a class", TypeError, "Hardest", of=lambda: PerClass(Hardest))
expect("PerClass, quota", ValueError, "quota: got 'same'", "'equal'", of=lambda: PerClass(Hardest(0.5), "same"))
expect("PerClass without labels", ValueError, "PerClass", "no labels", of=lambda: PerClass(Hardest(0.5))(torch.ones(4)))
expect("empty difficulty", ValueError, r"\(0,\)", "N >= 1", of=lambda: Hardest(0.5)(torch.empty(0)))
expect("2-D difficulty", ValueError, r"\(4, 1\)", r"\[N\]", of=lambda: Hardest(0.5)(torch.ones(4, 1)))
expect(
    "NaN difficulty",
    ValueError,
    "2 of 4 examples are NaN",
    "first at 1",
    of=lambda: Hardest(0.5)(torch.tensor([0.0, math.nan, 1.0, math.nan])),
)
expect(
    "plan, labels of the wrong length",
    ValueError,
    "labels",
    r"\(3,\)",
    r"\[4\]",
    of=lambda: Hardest(0.5)(torch.ones(4), labels=[0, 1, 2]),
)
expect("plan, float labels", TypeError, "float64", "whole", of=lambda: Hardest(0.5)(torch.ones(2), labels=[0.0, 1.0]))
expect(
    "plan, negative label", ValueError, "got -1", "0 or more", of=lambda: Hardest(0.5)(torch.ones(2), labels=[0, -1])
)
expect(
    "plan that drops a class",
    ValueError,
    r"Hardest\(keep=0.5\)",
    "class 7",
    "2 examples",
    "PerClass",
    of=lambda: Hardest(0.5)([4.0, 3.0, 2.0, 1.0], labels=[0, 0, 7, 7]),
)
expect("plan of nothing", ValueError, r"\(0,\)", "K >= 1", of=lambda: dp.Plan(torch.empty(0), torch.empty(0), {}))
expect("plan, lengths", ValueError, r"\(1,\)", r"\(2,\)", of=lambda: dp.Plan(torch.tensor([1]), torch.ones(2), {}))
expect("plan, negative position", ValueError, "-3", of=lambda: dp.Plan(torch.tensor([-3]), torch.ones(1), {}))
expect("plan, repeated position", ValueError, r"\b6\b", of=lambda: dp.Plan(torch.tensor([6, 6]), torch.ones(2), {}))
expect("plan, negative weight", ValueError, r"-2\.5", of=lambda: dp.Plan(torch.tensor([1]), torch.tensor([-2.5]), {}))
expect("plan, NaN weight", ValueError, "(?i)nan", of=lambda: dp.Plan(torch.tensor([1]), torch.tensor([math.nan]), {}))
expect(
    "plan, fractional position",
    TypeError,
    "float32",
    of=lambda: dp.Plan(torch.tensor([0.5, 1.7]), torch.ones(2), {}),
)

# The sampler

expect("sampler, rank alone", ValueError, "rank 0", "world_size None", "both", of=lambda: sampler(rank=0))
expect("sampler, world_size alone", ValueError, "rank None", "world_size 2", "both", of=lambda: sampler(world_size=2))
expect("sampler, rank too large", ValueError, "rank: got 2", r"0\.\.1", of=lambda: sampler(rank=2, world_size=2))
expect("sampler, rank negative", ValueError, "rank: got -1", r"0\.\.1", of=lambda: sampler(rank=-1, world_size=2))
expect("sampler, world_size 0", ValueError, "world_size: got 0", "at least 1", of=lambda: sampler(rank=0, world_size=0))
expect(
    "sampler, more processes than examples",
    ValueError,
    "world_size: got 3",
    "only 2 examples",
    of=lambda: sampler(rank=0, world_size=3),
)
expect("sampler, a share as policy", TypeError, "0.5", r"Hardest\(keep=", of=lambda: sampler(0.5))
expect("sampler, NaN difficulty", ValueError, "1 of 2", "first at 1", of=lambda: sampler(difficulty=(0.0, math.nan)))
expect("sampler, labels", ValueError, r"\(3,\)", r"\[4\]", of=lambda: sampler(labels=[0, 1, 0]))
expect("sampler that drops a class", ValueError, "class 1", "PerClass", of=lambda: sampler(labels=[0, 0, 0, 1]))

# Datasets

expect("empty dataset", ValueError, "list is empty", of=lambda: dp.IndexedDataset([]))
expect("empty dataset, fingerprint", ValueError, "list is empty", of=lambda: dp.dataset_fingerprint([]))
expect("generator as dataset", TypeError, "generator", "map-style", of=lambda: dp.IndexedDataset(x for x in "ab"))
expect(
    "fingerprint, labels of the wrong length",
    ValueError,
    r"\(1,\)",
    r"\[2\]",
    of=lambda: dp.dataset_fingerprint([(0.0, 1), (1.0, 0)], labels=[1]),
)

# Helpers

expect(
    "losses, shapes",
    ValueError,
    r"\(3,\)",
    r"\(2,\)",
    of=lambda: dp.reduce_loss(torch.ones(3), torch.tensor([0, 1])),
)
expect("losses, owner", TypeError, "float32", "int64", of=lambda: dp.reduce_loss(torch.ones(1), torch.zeros(1)))
expect(
    "checkpoint, loader without index",
    ValueError,
    "list",
    "IndexedDataset",
    of=lambda: dp.score_checkpoint(torch.nn.Linear(3, 2), [[torch.ones(1, 3), torch.tensor([0])]], tracker()),
)


@pytest.mark.parametrize(("attempt", "exception", "patterns"), CASES)
def test_bad_input_is_refused(tmp_path, attempt, exception, patterns):
    with pytest.raises(exception) as refusal:
        attempt(tmp_path)
    assert type(refusal.value) is exception
    for pattern in patterns:
        assert re.search(pattern, str(refusal.value))


# What a refusal leaves behind


def test_finite_rows_count_where_others_are_not_finite():
    logits = torch.tensor([[0.0, math.nan, 0.0], [0.0, 1.0, 2.0], [math.inf, 0.0, 0.0]])
    target = step(index=(0, 1, 2), logits=logits, labels=(0, 1, 2))
    expected = step(index=(1,), logits=logits[1:2], labels=(1,)).compute()["el2n"]
    torch.testing.assert_close(target.compute(allow_skipped=True)["el2n"], expected, equal_nan=True)
    run = target.finish(architecture="mlp", seed=0, allow_skipped=True)
    np.testing.assert_array_equal(run.scores["el2n"], expected.numpy())
    assert run.metadata["skipped"] == {"bad index": 0, "bad label": 0, "not finite": 2}
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
