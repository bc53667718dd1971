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


@pytest.mark.parametrize("outputs", ["dict", "tuple", "tensor"])
@pytest.mark.parametrize(
    ("labels", "classes", "got"),
    [
        (X[:, 0].tolist(), 1, r"logits \(6, 1\) and labels \(6,\) of torch.float32"),
        ((Y > 0).long().tolist(), 1, r"logits \(6, 1\) and labels \(6,\) of torch.int64"),
        (Y.double().tolist(), 3, r"logits \(6, 3\) and labels \(6,\) of torch.float32"),
        (F.one_hot(Y).float(), 3, r"logits \(6, 3\) and labels \(6, 3\) of torch.float32"),
        (Y[:, None], 3, r"logits \(6, 3\) and labels \(6, 1\) of torch.int64"),
    ],
    ids=["regression", "classes of one logit", "classes as numbers", "several labels", "column"],
)
def test_other_tasks_are_told_to_override_example_loss(tmp_path, labels, classes, got, outputs):
    trainer = make_trainer(tmp_path, Linear(outputs, classes), train=labels_of(labels))
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


class Regression(DifficultyTrainer):
    """As the message says."""

    def example_loss(self, outputs, labels):
        return (outputs["logits"][:, 0] - labels) ** 2


def squared_error(outputs, labels):
    return (outputs["logits"][:, 0] - labels) ** 2


@pytest.mark.parametrize("of_the_class", [True, False], ids=["class", "instance"])
def test_a_regression_with_its_own_loss(tmp_path, of_the_class):
    tracker = dp.DifficultyTracker(SIZE, scores=("loss",))
    kind = Regression if of_the_class else DifficultyTrainer
    trainer = make_trainer(
        tmp_path, Linear(classes=1), kind=kind, tracker=tracker, train=labels_of(X[:, 0].tolist()), learning_rate=0.0
    )
    if not of_the_class:
        trainer.example_loss = squared_error
    trainer.train()
    torch.testing.assert_close(tracker.compute()["loss"], X[:, 0] ** 2)
