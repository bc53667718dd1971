"""The Hugging Face Trainer: what models get to see, what they may return, and tasks other than classification."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
pytest.importorskip("accelerate", reason="accelerate is not installed: pip install accelerate")

import difficulty_prune as dp  # noqa: E402
from difficulty_prune.integrations.transformers import DifficultyTrainer  # noqa: E402

SIZE, CLASSES = 20, 3
X = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(SIZE) % CLASSES
LABELLED = [{"x": x, "labels": y} for x, y in zip(X, Y.tolist(), strict=True)]
UNLABELLED = [{"x": x} for x in X]
RENAMED = [{"x": x, "label": y} for x, y in zip(X, Y.tolist(), strict=True)]
TRAIN = dp.IndexedDataset(LABELLED)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning:torch"),
]

OUTPUTS = {
    "dict": lambda loss, logits: {"logits": logits} if loss is None else {"loss": loss, "logits": logits},
    "ModelOutput": lambda loss, logits: transformers.modeling_outputs.SequenceClassifierOutput(loss, logits),
    "tuple": lambda loss, logits: (logits,) if loss is None else (loss, logits),
    "tuple with more": lambda loss, logits: (
        *(() if loss is None else (loss,)),
        logits,
        (logits[:, None], logits[:, None]),
    ),
    "tensor": lambda loss, logits: logits,
}


class Linear(nn.Module):
    """What a model of transformers looks like from the outside; it writes down which arguments it gets."""

    def __init__(self, outputs="dict", classes=CLASSES):
        super().__init__()
        self.layer = nn.Linear(6, classes)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.outputs = OUTPUTS[outputs]
        self.config = transformers.PreTrainedConfig()  # without which Trainer smooths no labels
        self.seen = set()

    def answer(self, x, labels, **others):
        self.seen |= {*others, *(() if labels is None else ("labels",))}
        logits = self.layer(x)
        return self.outputs(None if labels is None else F.cross_entropy(logits, labels), logits)

    def forward(self, x, labels=None):
        return self.answer(x, labels)


class TakesAll(Linear):
    def forward(self, x, labels=None, **others):
        return self.answer(x, labels, **others)


class TakesNoLabels(Linear):
    def forward(self, x):
        return self.answer(x, None)


def make_trainer(folder, model, *, kind=DifficultyTrainer, tracker=None, train=TRAIN, options=None, **arguments):
    arguments = {
        "per_device_train_batch_size": 6,
        "per_device_eval_batch_size": 6,
        "num_train_epochs": 2,
        "learning_rate": 0.5,
        "optim": "sgd",
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        **arguments,
    }
    args = transformers.TrainingArguments(str(folder), **arguments)
    tracker = tracker or dp.DifficultyTracker(SIZE, scores=("loss", "el2n"))
    return kind(model, args, train_dataset=train, tracker=tracker, **(options or {}))


def trained(folder, model, **options):
    """Scores and weights after a short training."""
    trainer = make_trainer(folder, model, **options)
    trainer.train()
    return trainer.tracker.compute(), trainer.model.layer.weight.detach()


# What the model gets to see


@settings(max_examples=25)
@given(
    kind=st.sampled_from([Linear, TakesAll, TakesNoLabels]),
    outputs=st.sampled_from(["dict", "ModelOutput", "tuple"]),
    data=st.sampled_from([LABELLED, RENAMED, UNLABELLED]),
    indexed=st.booleans(),
    stage=st.sampled_from(["predict", "evaluate", "evaluate while training"]),
    label_names=st.sampled_from([None, [], ["labels"]]),
    more=st.fixed_dictionaries(
        {}, optional={"remove_unused_columns": st.just(False), "label_smoothing_factor": st.just(0.1)}
    ),
)
def test_the_index_reaches_no_model(kind, outputs, data, indexed, stage, label_names, more):
    if kind is TakesNoLabels:
        label_names = []
    if outputs == "tuple":
        more.pop("label_smoothing_factor", None)  # Trainer then takes the logits for the loss, and loses them
    model = kind(outputs)
    data = dp.IndexedDataset(data) if indexed else data
    with TemporaryDirectory() as folder:
        trainer = make_trainer(
            folder,
            model,
            options={"eval_dataset": data},
            label_names=label_names,
            eval_strategy="epoch" if stage == "evaluate while training" else "no",
            num_train_epochs=1,
            **more,
        )
        if stage == "predict":
            found = trainer.predict(data)
            with torch.no_grad():
                np.testing.assert_array_equal(found.predictions, model.layer(X))
            labelled = data is not UNLABELLED and getattr(data, "dataset", None) is not UNLABELLED and label_names != []
            assert found.label_ids is None if not labelled else found.label_ids.tolist() == Y.tolist()
        elif stage == "evaluate":
            trainer.evaluate()
        else:
            trainer.train()
        assert "index" not in model.seen
        assert trainer.tracker.presentations == (SIZE if stage == "evaluate while training" else 0)


def test_metrics_that_are_given_the_inputs_see_no_index(tmp_path):
    seen = []

    def metrics(batch, compute_result):
        seen.append(set(batch.inputs))
        return {}

    model = Linear()
    model.main_input_name = "x"
    trainer = make_trainer(
        tmp_path,
        model,
        options={"eval_dataset": TRAIN, "compute_metrics": metrics},
        include_for_metrics=["inputs"],
        batch_eval_metrics=True,
    )
    trainer.evaluate()
    assert seen == [{"x", "labels"}] * 4


def test_a_model_that_knows_no_labels_trains_on_them(tmp_path):
    scores, weight = trained(tmp_path, TakesNoLabels())
    expected, expected_weight = trained(tmp_path, Linear())
    assert torch.equal(weight, expected_weight)
    assert torch.equal(scores["el2n"], expected["el2n"])


# Shapes of outputs and types of labels


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("outputs", [name for name in OUTPUTS if name != "dict"])
def test_logits_are_found_in_whatever_the_model_returns(tmp_path, outputs, smoothing):
    expected, expected_weight = trained(tmp_path, Linear(), label_smoothing_factor=smoothing)
    scores, weight = trained(tmp_path, Linear(outputs), label_smoothing_factor=smoothing)
    assert torch.equal(weight, expected_weight)
    for name, score in expected.items():
        assert torch.equal(scores[name], score), name


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_are_whole_numbers_of_any_type(tmp_path, dtype):
    train = dp.IndexedDataset([{"x": x, "labels": y} for x, y in zip(X, Y.to(dtype), strict=True)])
    scores, weight = trained(tmp_path, Linear(), train=train)
    expected, expected_weight = trained(tmp_path, Linear())
    assert torch.equal(weight, expected_weight)
    assert torch.equal(scores["loss"], expected["loss"])


def test_labels_have_the_name_that_the_arguments_say(tmp_path):
    class Targets(Linear):
        def forward(self, x, target=None):
            return self.answer(x, target)

    train = dp.IndexedDataset([{"x": x, "target": y} for x, y in zip(X, Y.tolist(), strict=True)])
    scores, _ = trained(tmp_path, Targets(), train=train, label_names=["target"])
    assert torch.equal(scores["loss"], trained(tmp_path, Linear())[0]["loss"])


def test_a_model_of_transformers_may_return_tuples(tmp_path):
    def scores(**options):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, **options
        )
        model = transformers.BertForSequenceClassification(config)
        tokens = torch.randint(0, 30, (SIZE, 5), generator=torch.Generator().manual_seed(1))
        train = dp.IndexedDataset([{"input_ids": t, "labels": i % 2} for i, t in enumerate(tokens)])
        trainer = make_trainer(tmp_path, model, train=train, num_train_epochs=1)
        trainer.train()
        assert trainer.predict(train).predictions.shape == (SIZE, 2)
        return trainer.tracker.compute()["loss"]

    expected = scores()
    assert torch.equal(scores(return_dict=False), expected)
    assert expected.isfinite().all()


# Other tasks


def labels_of(values):
    return dp.IndexedDataset([{"x": x, "labels": value} for x, value in zip(X, values, strict=True)])


def of_task(problem_type, outputs="dict", classes=CLASSES):
    model = Linear(outputs, classes)
    model.config.problem_type = problem_type
    return model


def tracker_of(task, scores=("loss", "el2n")):
    if task == "regression":
        return dp.DifficultyTracker(SIZE, scores=("loss", "recent_loss"))
    return dp.DifficultyTracker(
        SIZE, scores=scores, target="binary" if task == "multi_label_classification" else "classes"
    )


SEVERAL = (torch.rand(SIZE, CLASSES, generator=torch.Generator().manual_seed(2)) < 0.4).float()
TASKS = {
    "classes": ("single_label_classification", Y, CLASSES, 0.0),
    "smoothed classes": ("single_label_classification", Y, CLASSES, 0.2),
    "several labels": ("multi_label_classification", SEVERAL, CLASSES, 0.0),
    "a value": ("regression", X[:, 0].contiguous(), 1, 0.0),
    "a column of one value": ("regression", X[:, :1].contiguous(), 1, 0.0),
    "several values": ("regression", X[:, :CLASSES].contiguous(), CLASSES, 0.0),
}


def true_loss(task, logits, labels):
    """Of one example, in float64; classes as they are, not smoothed."""
    logits, labels = logits.double(), labels.double()
    if task == "regression":
        return sum((z - y) ** 2 for z, y in zip(logits, labels.reshape(-1), strict=True)) / len(logits)
    if task == "multi_label_classification":
        right = [z.sigmoid() if y == 1 else 1 - z.sigmoid() for z, y in zip(logits, labels, strict=True)]
        return sum(-p.log() for p in right) / len(right)
    return -logits.softmax(0)[int(labels)].log()


def a_model(task, outputs):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=outputs, problem_type=task,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


TOKENS = torch.randint(0, 30, (SIZE, 5), generator=torch.Generator().manual_seed(1))


# Several real numbers are taken for labels, here as in transformers, unless the config says otherwise.
SAID = [(name, True) for name in TASKS] + [(name, False) for name in ("classes", "several labels", "a value")]


@pytest.mark.parametrize(("name", "said"), SAID)
def test_every_task_trains_as_by_the_plain_trainer_and_is_scored_by_example(tmp_path, name, said):
    task, labels, outputs, smoothing = TASKS[name]
    samples = [{"input_ids": t, "labels": y} for t, y in zip(TOKENS, labels, strict=True)]
    options = {"label_smoothing_factor": smoothing, "per_device_train_batch_size": 5, "learning_rate": 0.1}

    plain = a_model(task, outputs)
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, optim="sgd", save_strategy="no", logging_strategy="no", use_cpu=True,
        report_to="none", disable_tqdm=True, **options,
    )  # fmt: skip
    transformers.Trainer(plain, arguments, train_dataset=samples).train()

    model = a_model(task if said else None, outputs)
    train = dp.IndexedDataset(samples)
    trainer = make_trainer(tmp_path, model, tracker=tracker_of(task), train=train, **options)
    trainer.train()
    for wanted, got in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got, wanted)

    # At the same weights all along, the scores are those of each example alone.
    options["learning_rate"] = 0.0
    trainer = make_trainer(tmp_path, model, tracker=tracker_of(task), train=train, **options)
    trainer.train()
    with torch.no_grad():
        logits = model.eval()(TOKENS).logits
    expected = torch.stack([true_loss(task, z, y) for z, y in zip(logits, labels, strict=True)])
    scores = trainer.tracker.compute()
    for score in {"loss", "recent_loss"} & set(scores):
        torch.testing.assert_close(scores[score].double(), expected, rtol=1e-5, atol=1e-6)
    assert trainer.tracker.presentations == 2 * SIZE


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_labels_train_as_by_the_plain_trainer_and_are_not_presented(tmp_path, smoothing):
    labels = torch.where(torch.arange(SIZE) % 3 == 1, -100, Y)
    samples = [{"input_ids": t, "labels": y} for t, y in zip(TOKENS, labels.tolist(), strict=True)]
    options = {"label_smoothing_factor": smoothing, "per_device_train_batch_size": 5, "learning_rate": 0.1}
    plain = a_model(None, CLASSES)
    arguments = transformers.TrainingArguments(
        str(tmp_path), num_train_epochs=2, optim="sgd", save_strategy="no", logging_strategy="no", use_cpu=True,
        report_to="none", disable_tqdm=True, **options,
    )  # fmt: skip
    transformers.Trainer(plain, arguments, train_dataset=samples).train()
    model = a_model(None, CLASSES)
    tracker = tracker_of("single_label_classification")
    make_trainer(tmp_path, model, tracker=tracker, train=dp.IndexedDataset(samples), **options).train()
    for wanted, got in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(got, wanted)
    assert torch.equal(tracker.compute()["loss"].isnan(), labels == -100)


@pytest.mark.parametrize("outputs", ["ModelOutput", "tuple", "tensor"])
@pytest.mark.parametrize("name", ["several labels", "a value"])
def test_logits_of_every_task_are_found_in_whatever_the_model_returns(tmp_path, name, outputs):
    task, labels, classes, _ = TASKS[name]
    expected, weights = trained(
        tmp_path, of_task(task, "dict", classes), tracker=tracker_of(task), train=labels_of(labels)
    )
    found = trained(tmp_path, of_task(task, outputs, classes), tracker=tracker_of(task), train=labels_of(labels))
    assert torch.equal(found[1], weights)
    assert torch.equal(found[0]["loss"], expected["loss"])
    assert weights.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
def test_several_labels_are_0_and_1_of_any_type(tmp_path, dtype):
    task = "multi_label_classification"
    expected, weights = trained(tmp_path, of_task(task), tracker=tracker_of(task), train=labels_of(SEVERAL))
    found = trained(tmp_path, of_task(task), tracker=tracker_of(task), train=labels_of(SEVERAL.to(dtype)))
    assert torch.equal(found[1], weights)
    assert torch.equal(found[0]["el2n"], expected["el2n"])


def test_labels_that_are_not_known_neither_train_nor_count(tmp_path):
    task = "multi_label_classification"
    labels = SEVERAL.clone()
    labels[0], labels[1, 1:] = torch.nan, torch.nan
    tracker = tracker_of(task, scores=("loss", "accuracy"))
    scores, weights = trained(tmp_path, of_task(task), tracker=tracker, train=labels_of(labels), learning_rate=0.0)
    assert weights.isfinite().all()
    assert scores["loss"].isnan().tolist() == [True] + [False] * (SIZE - 1)
    torch.testing.assert_close(scores["loss"][1:], torch.full((SIZE - 1,), 2.0).log())
    assert scores["accuracy"][1] == 1 - labels[1, 0]  # logits of 0 say that the label is not there

    model, logits = of_task(task), torch.randn(2, CLASSES, requires_grad=True)
    loss = make_trainer(tmp_path, model, tracker=tracker_of(task)).example_loss({"logits": logits}, labels[:2])
    loss.sum().backward()
    torch.testing.assert_close(loss[1], F.binary_cross_entropy_with_logits(logits[1, 0], labels[1, 0]))
    assert loss[0] == 0
    assert (logits.grad != 0).tolist() == [[False] * 3, [True, False, False]]


@pytest.mark.parametrize(
    ("task", "labels", "classes", "tracker", "options", "message"),
    [
        (None, SEVERAL, 3, {}, {}, "target='classes', expected 'binary' for a multi_label_classification"),
        (None, Y, 3, {"target": "binary"}, {}, "target='binary', expected 'classes' for a single_label_classification"),
        ("regression", X[:, 0], 1, {}, {}, "got the scores el2n, expected 'loss' or 'recent_loss'"),
        (None, X[:, 0], 1, {"scores": ("loss", "confidence")}, {}, "got the scores confidence, expected 'loss'"),
        ("regression", X[:, 0], 1, {"scores": ("vog_loss",)}, {}, "got the scores vog_loss, expected 'loss'"),
        (None, SEVERAL, 3, {"target": "binary"}, {"label_smoothing_factor": 0.1}, "got 0.1, expected 0 for a multi"),
        ("regression", X[:, 0], 1, {"scores": ("loss",)}, {"label_smoothing_factor": 0.1}, "expected 0 for a regr"),
        ("ordinal", Y, 3, {}, {}, "problem_type: got 'ordinal', expected single_label_classification, multi_label"),
        (None, SEVERAL + 0.5, 3, {"target": "binary"}, {}, r"labels: got \d.5, expected 0 or 1 for each logit"),
    ],
)  # fmt: skip
def test_a_tracker_or_an_option_of_another_task_is_refused(tmp_path, task, labels, classes, tracker, options, message):
    tracker = dp.DifficultyTracker(SIZE, **{"scores": ("loss", "el2n"), **tracker})
    model = of_task(task, classes=classes)
    trainer = make_trainer(tmp_path, model, tracker=tracker, train=labels_of(labels), **options)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert tracker.presentations == 0
    assert not model.layer.weight.any()


@pytest.mark.parametrize("outputs", ["dict", "tuple", "tensor"])
@pytest.mark.parametrize(
    ("task", "labels", "classes", "got"),
    [
        (None, (Y > 0).long().tolist(), 1, r"single_label.*logits \(6, 1\) and labels \(6,\) of torch.int64"),
        (None, Y.double().tolist(), 3, r"multi_label.*logits \(6, 3\) and labels \(6,\) of torch.float32"),
        (None, Y[:, None], 3, r"single_label.*logits \(6, 3\) and labels \(6, 1\) of torch.int64"),
        ("single_label_classification", SEVERAL, 3, r"single_label.*logits \(6, 3\) and labels \(6, 3\)"),
        ("multi_label_classification", Y, 3, r"multi_label.*logits \(6, 3\) and labels \(6,\) of torch.int64"),
        ("regression", X[:, 0], 3, r"regression.*logits \(6, 3\) and labels \(6,\) of torch.float32"),
        ("regression", X[:, :2], 1, r"regression.*logits \(6, 1\) and labels \(6, 2\) of torch.float32"),
    ],
    ids=["one logit", "classes as numbers", "column", "soft labels", "classes", "value", "too many values"],
)  # fmt: skip
def test_other_tasks_are_told_to_override_example_loss(tmp_path, task, labels, classes, got, outputs):
    trainer = make_trainer(tmp_path, of_task(task, outputs, classes), train=labels_of(labels))
    with pytest.raises(ValueError, match=got + r".*override DifficultyTrainer\.example_loss"):
        trainer.train()
    assert trainer.tracker.presentations == 0


@pytest.mark.parametrize(
    ("outputs", "got"),
    [
        ({"start_logits": X, "end_logits": X}, "outputs start_logits, end_logits"),
        ({"logits": None}, "outputs logits"),
        ((X, X), r"a tuple of \(20, 6\), \(20, 6\)"),
        ((X[:, None], (X,)), r"a tuple of \(20, 1, 6\), tuple"),
        ((), "a tuple of"),
        ("text", "got str"),
    ],
    ids=["question answering", "none", "two tensors", "tokens", "nothing", "text"],
)
def test_outputs_without_class_logits_are_told_to_override_example_loss(tmp_path, outputs, got):
    trainer = make_trainer(tmp_path, Linear())
    with pytest.raises(ValueError, match=got + r".*override DifficultyTrainer\.example_loss"):
        trainer.example_loss(outputs, Y)


def test_batches_without_labels_are_refused(tmp_path):
    trainer = make_trainer(tmp_path, Linear(), train=dp.IndexedDataset(UNLABELLED))
    with pytest.raises(ValueError, match=r"got batches with x, expected 'labels'.*example_loss"):
        trainer.train()


def absolute_error(outputs, labels):
    return (outputs["logits"][:, 0] - labels).abs()


class OwnRegression(DifficultyTrainer):
    """As the message says."""

    def example_loss(self, outputs, labels):
        return absolute_error(outputs, labels)


@pytest.mark.parametrize("of_the_class", [True, False], ids=["class", "instance"])
def test_a_regression_with_its_own_loss(tmp_path, of_the_class):
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    kind = OwnRegression if of_the_class else DifficultyTrainer
    trainer = make_trainer(
        tmp_path, Linear(classes=1), kind=kind, tracker=tracker, train=labels_of(X[:, 0].tolist()), learning_rate=0.0
    )
    if not of_the_class:
        trainer.example_loss = absolute_error
    trainer.train()
    torch.testing.assert_close(tracker.compute()["loss"], X[:, 0].abs())
