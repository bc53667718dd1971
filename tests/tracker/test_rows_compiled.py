"""Rows of every form under `torch.compile`: one graph, the scores of eager, and bad values counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch._dynamo as dynamo
from row_batches import Batch, N, as_numbers, make_batch, scores_of, target_of
from torch._dynamo.testing import CompileCounterWithBackend

import difficulty_prune as dp

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:labels. the targets of:UserWarning"),
    # What the compiler says of its own doings.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:torch\..*"),
]
ONE_OF_EACH_KIND = ("positions", "targets", "owned classes", "binary", "owned binary of positions", "owned values")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    dynamo.reset()
    yield
    dynamo.reset()


def new_tracker(form: str) -> dp.DifficultyTracker:
    return dp.DifficultyTracker(N, scores_of(form), target=target_of(form), right_from=0.5)


def compiled_step(tracker: dp.DifficultyTracker, backend: str = "aot_eager", **options: object):
    counter = CompileCounterWithBackend(backend)

    @torch.compile(backend=counter, fullgraph=True, **options)
    def step(index, scale, given):
        if "logits" in given:
            given = {**given, "logits": given["logits"] * scale}
        tracker.update(index, **given)
        return scale * 2

    return step, counter


def same_shapes(form: str, steps: int) -> list[Batch]:
    """Batches of one shape, as a loader makes them, of which nothing is repeated."""
    first = make_batch(form, 12, weighted=True)
    batches = [first]
    for seed in range(13, 13 + steps - 1):
        g = torch.Generator().manual_seed(seed)
        given = dict(first.given)
        for name in ("logits", "loss"):
            if name in given:
                values = given[name]
                given[name] = torch.rand(values.shape, generator=g).to(values.dtype)
        batches.append(Batch(form, torch.randperm(N, generator=g)[: len(first.index)], given))
    return batches


@pytest.mark.parametrize("form", ONE_OF_EACH_KIND)
def test_a_step_is_one_graph_with_the_scores_of_eager(form) -> None:
    compiled, eager = new_tracker(form), new_tracker(form)
    step, counter = compiled_step(compiled)
    for batch in same_shapes(form, 4):
        assert step(batch.index, torch.ones(()), batch.given).item() == 2
        batch.update(eager)
    assert counter.frame_count == 1
    got, expected = as_numbers(compiled.compute(allow_skipped=True)), as_numbers(eager.compute(allow_skipped=True))
    for name, score in expected.items():
        assert got[name].tobytes() == score.tobytes(), name
    assert compiled.skipped == eager.skipped
    assert torch.equal(compiled.age().nan_to_num(-1), eager.age().nan_to_num(-1))


@pytest.mark.parametrize("form", ["positions", "owned classes", "binary of positions"])
def test_texts_and_images_of_any_size_take_one_graph(form) -> None:
    compiled, eager = new_tracker(form), new_tracker(form)
    step, counter = compiled_step(compiled, "eager", dynamic=True)
    for length in (5, 6, 9):
        batch = make_batch(form, 12)
        given = {}
        for name, values in batch.given.items():
            if isinstance(values, torch.Tensor):
                dimension = 2 if name == "logits" and form == "positions" else 0 if "owned" in form else 1
                repeats = [length if d == dimension else 1 for d in range(values.dim())]
                values = values.repeat(repeats)
            given[name] = values
        step(batch.index, torch.ones(()), given)
        Batch(form, batch.index, given).update(eager)
    assert counter.frame_count == 1
    got, expected = as_numbers(compiled.compute(allow_skipped=True)), as_numbers(eager.compute(allow_skipped=True))
    for name, score in expected.items():
        assert got[name].tobytes() == score.tobytes(), name


def test_bad_values_in_a_graph_are_counted() -> None:
    """Nobody can look at them there; in eager, on the CPU, each of these raises."""
    tracker = dp.DifficultyTracker(N, ("el2n",))
    step, _ = compiled_step(tracker)
    logits = torch.zeros(4, 3)
    owner = torch.tensor([0, 2, -2, 1])
    labels = torch.tensor([0, 0, 0, 9])
    step(torch.tensor([0, 1]), torch.ones(()), {"logits": logits, "labels": labels, "owner": owner})
    assert tracker.skipped == {"bad index": 2, "bad label": 1, "not finite": 0, "changed label": 0}
    weight = torch.tensor([-1.0, 1.0])
    given = {"logits": logits[:2], "labels": labels[:2], "row_weight": weight}
    step(torch.tensor([0, N]), torch.ones(()), given)
    assert tracker.skipped == {"bad index": 3, "bad label": 1, "not finite": 1, "changed label": 0}
    assert tracker.presentations == 1
    with pytest.raises(ValueError, match="3 x bad index, 1 x bad label, 1 x not finite"):
        tracker.compute()


def test_targets_that_are_no_probabilities_are_told_of_when_the_scores_are_asked_for() -> None:
    tracker = dp.DifficultyTracker(N, ("el2n",))
    step, _ = compiled_step(tracker)
    step(torch.tensor([0, 1]), torch.ones(()), {"logits": torch.zeros(2, 3), "labels": torch.ones(2, 3)})
    with pytest.warns(UserWarning, match="targets of 2 rows are no probabilities"):
        tracker.compute()
    tracker.compute()
