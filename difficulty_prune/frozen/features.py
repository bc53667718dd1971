"""One pass over the data that gathers what scores of features need: layers, embedding and logits of every example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.checks import check_index, check_labels, check_logits
from ..scores.catalogue import check_scores, score_names
from ..scores.prediction_depth import prediction_depth
from ..scores.prototype_distance import Metric, prototype_distance
from ..support.counted import counted
from .checkpoint import evaluation_mode, unpack
from .layers import LOGITS, check_layers, choose_layers, find_head, run_layers, trace_calls


@dataclass(frozen=True, eq=False)
class Features:
    """What a model makes of every example, on the CPU. Examples that were not shown have NaN, and the label -1.

    Attributes:
        layers: [N, D] float32 by the name of the layer, in the order in which they run.
        embedding: [N, D] float32, what goes into the last layer with a weight matrix.
        logits: [N, C] float32.
        labels: [N] int64.
    """

    layers: dict[str, Tensor]
    embedding: Tensor
    logits: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        return f"Features({counted(len(self.labels), 'example')}, layers={list(self.layers)})"

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, [N, C] float32."""
        return self.logits.softmax(1)

    @property
    def predictions(self) -> Tensor:
        """Class of the largest logit, [N] int64; the lowest class wins a tie."""
        return torch.where(self.labels < 0, -1, self.logits.argmax(1))

    def scores(
        self,
        names: Iterable[str] = ("prototype_distance", "prediction_depth"),
        *,
        k: int = 30,
        clusters: int | None = None,
        metric: Metric = "euclidean",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Scores [N] float32 by name; NaN for examples that were not shown.

        Args:
            names: of `score_names("features")`.
            k: neighbours of each probe of `prediction_depth`.
            clusters: centres of `self_prototype_distance`; default: the number of classes among the labels.
            metric: of both distances to prototypes.
            seed: of k-means.
            device: where distances are computed; a GPU takes seconds where a CPU takes minutes.

        Raises:
            ValueError: an unknown name, or what `dp.scores.prototype_distance` and `dp.scores.prediction_depth` say.
        """
        result: dict[str, Tensor] = {}
        labels = self.labels.to(device)
        for name in check_scores(names):
            if name == "prediction_depth":
                layers = {layer: features.to(device) for layer, features in self.layers.items()}
                score = prediction_depth(layers, labels, self.predictions.to(device), k=k)
            elif name == "prototype_distance":
                score = prototype_distance(self.embedding.to(device), labels, metric=metric)
            elif name == "self_prototype_distance":
                score = prototype_distance(
                    self.embedding.to(device), labels, prototypes="self", clusters=clusters, metric=metric, seed=seed
                )
            else:
                raise ValueError(f"names: {name!r} is no score of features; choose of {score_names('features')}")
            result[name] = score.cpu()
        return result


@torch.no_grad()
def score_features(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    layers: Iterable[str] | None = None,
    num_examples: int | None = None,
    max_features: int | None = 512,
    device: torch.device | str | None = None,
) -> Features:
    """Shows every example once to a trained model and keeps what comes out of its layers.

    The model is in evaluation mode for the time of the call; its parameters are not touched, and its hooks are removed.

    Layers that are chosen are the blocks of the model in the order in which they run, at most 8 with the logits, which
    come last as "logits". Blocks are found by going down from the model through nn.Sequential, nn.ModuleList and
    modules that hold more than half of the parameters. What has no weights of its own (normalisation, activation,
    pooling) belongs to the block before it. Where there are too many, an even choice keeps the first and the last.

    Args:
        model: maps inputs [B, ...] to logits [B, C].
        loader: as for `score_checkpoint`; every example at most once, without augmentation.
        layers: names as in `model.named_modules()`, or "logits" for the model's output; default: chosen as above; ():
            none. Of a layer that runs several times in a forward pass, the last time is kept.
        num_examples: N; default: the largest index + 1.
        max_features: numbers kept of each example and layer; None: all. A layer [B, C, H, W] that has more is averaged
            over areas of the image (adaptive average pooling) until it fits or one number per channel is left; so are
            [B, C, D, H, W], and [B, T, D] over T. Vectors [B, D] are kept as they are, and the embedding is treated
            like a layer.
        device: where to run; default: the device of the model's first parameter.

    Returns:
        Features, of N x (sum of D) x 4 bytes.

    Raises:
        ValueError: a batch not of the form above, no such layer, a layer that does not run or whose output is not one
            floating-point tensor with a row per example, features that are not finite, or an example shown twice.
        IndexError: an index outside 0..num_examples-1.

    >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> features = score_features(model, [(torch.eye(2), torch.tensor([0, 1]), torch.tensor([2, 0]))])
    >>> {name: tuple(layer.shape) for name, layer in features.layers.items()}
    {'1': (3, 3), 'logits': (3, 2)}
    >>> features.labels
    tensor([ 1, -1,  0])
    """
    if max_features is not None and max_features < 1:
        raise ValueError(f"max_features: got {max_features}, expected 1 or more, or None for all")
    if num_examples is not None and num_examples < 1:
        raise ValueError(f"num_examples: got {num_examples}, expected 1 or more")
    names = None if layers is None else check_layers(model, layers)
    if device is None:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))

    head: str | None = None
    seen: set[int] = set()
    by_layer: dict[str, Tensor] = {}
    of_model: dict[str, Tensor] = {}
    with evaluation_mode(model):
        for batch in loader:
            inputs, labels, index = unpack(batch)
            index = _first_shown(index, len(inputs), seen, num_examples)
            inputs = inputs.to(device)
            if head is None or names is None:
                calls = trace_calls(model, inputs)
                names, head = choose_layers(model, calls) if names is None else names, find_head(model, calls)
            hooked = [name for name in names if name != LOGITS]
            outputs, embedding, logits = run_layers(model, inputs, hooked, head, max_features)
            for name, rows in outputs.items():
                _put(by_layer, name, index, rows, num_examples)
            logits, labels = _checked_output(logits, labels)
            for name, rows in (("embedding", embedding), ("logits", logits), ("labels", labels)):
                _put(of_model, name, index, rows, num_examples)
    if names is None or head is None:
        raise ValueError("loader: got no batches, expected at least one")

    shown = torch.zeros(num_examples or max(seen) + 1, dtype=torch.bool, device="cpu")
    shown[list(seen)] = True
    layers_shown = {name: _finished(table, shown, torch.nan) for name, table in by_layer.items()}
    embedding, logits = (_finished(of_model[name], shown, torch.nan) for name in ("embedding", "logits"))
    if LOGITS in names:
        layers_shown[LOGITS] = logits
    return Features(layers_shown, embedding, logits, _finished(of_model["labels"], shown, -1))


def _first_shown(index: Tensor, rows: int, seen: set[int], num_examples: int | None) -> Tensor:
    """A batch's index on the CPU, checked, of examples that are shown for the first time, and added to those shown."""
    if isinstance(index, Tensor):
        index = index.cpu()
    check_index(index, rows, 2**62 if num_examples is None else num_examples)
    for example in index.tolist():
        if example in seen:
            raise ValueError(
                f"index: example {example} was shown twice, expected every example at most once; use a loader that "
                "goes through the data once and in order"
            )
        seen.add(example)
    return index


def _checked_output(logits: Any, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """The model's output as float32 [B, C] and the labels, both on the CPU."""
    if labels is None:
        raise ValueError("loader: got a batch without labels, expected (inputs, labels, index)")
    if isinstance(logits, Tensor):
        logits = logits.to("cpu", torch.float32, copy=True)
    check_logits(logits)
    check_labels(labels.cpu(), logits)
    return logits, labels.cpu()


def _put(tables: dict[str, Tensor], name: str, index: Tensor, rows: Tensor, num_examples: int | None) -> None:
    """Writes rows [B, ...] into a table that has a row per example, or as many as the highest index asks for.

    Written at once, and not gathered and joined, since there is no memory for two of everything.
    """
    finite = rows.reshape(len(rows), -1).isfinite().all(1)
    if not finite.all():
        example = int(index[~finite][0])
        raise ValueError(f"{name}: example {example} has values that are not finite; has the model diverged?")
    table = tables[name] if name in tables else rows.new_empty(num_examples or 0, *rows.shape[1:])
    if table.shape[1:] != rows.shape[1:]:
        raise ValueError(
            f"{name}: got {tuple(rows.shape[1:])} features per example, {tuple(table.shape[1:])} in earlier batches; "
            "expected inputs of one size"
        )
    needed = int(index.max()) + 1
    if needed > len(table):
        grown = rows.new_empty(max(needed, 2 * len(table)), *rows.shape[1:])
        grown[: len(table)] = table
        table = grown
    table[index] = rows
    tables[name] = table


def _finished(table: Tensor, shown: Tensor, missing: float) -> Tensor:
    """The first len(shown) rows, with `missing` where an example was not shown."""
    rows = table[: len(shown)]
    rows[~shown] = missing
    return rows.clone() if len(table) > len(rows) else rows
