"""The collator that says which row each token of a batch is of, beside the collators that people use."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")
pytest.importorskip("datasets", reason="datasets is not installed: pip install datasets")

from small_language_model import make_tokenizer  # noqa: E402

from difficulty_prune.integrations.owner_collator import OwnerCollator  # noqa: E402

SIZE = 9


def padding(side):
    tokenizer = make_tokenizer()
    tokenizer.padding_side = side
    return transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)


def without_mask(side):
    def collate(samples):
        batch = padding(side)(samples)
        del batch["attention_mask"]
        return batch

    return collate


COLLATORS = {
    "padded on the right": padding("right"),
    "padded on the left": padding("left"),
    "padded on the left, no mask": without_mask("left"),
    "flattened": transformers.DataCollatorWithFlattening(),
    "flattened, for FlashAttention": transformers.DataCollatorWithFlattening(
        return_flash_attn_kwargs=True, return_seq_idx=True
    ),
}

token, row = st.integers(2, 20), st.integers(0, SIZE - 1)
lines = st.lists(st.lists(st.tuples(token, row), min_size=1, max_size=7), min_size=1, max_size=4)


@pytest.mark.parametrize("collator", COLLATORS.values(), ids=COLLATORS)
@settings(max_examples=40)
@given(lines=lines)
def test_every_token_finds_its_row(collator, lines):
    samples = [{"input_ids": [t for t, _ in line], "owner": [row for _, row in line]} for line in lines]
    batch = OwnerCollator(collator, SIZE)(samples)
    index, owner = batch["index"], batch["owner"]
    assert owner.shape == batch["input_ids"].shape
    assert index.dtype == owner.dtype == torch.int64
    assert index.is_cpu
    assert sorted(set(index.tolist())) == index.tolist()  # each once
    found = list(zip(batch["input_ids"][owner >= 0].tolist(), index[owner[owner >= 0]].tolist(), strict=True))
    assert found == [pair for line in lines for pair in line]
    plain = collator([{"input_ids": [t for t, _ in line]} for line in lines])
    for name in plain:
        assert torch.equal(torch.as_tensor(batch[name]), torch.as_tensor(plain[name])), name


@pytest.mark.parametrize("side", ["right", "left"])
def test_tokens_that_look_like_padding_are_told_by_the_mask(side):
    batch = OwnerCollator(padding(side), SIZE)([{"input_ids": [0, 0], "index": 4}, {"input_ids": [0] * 3, "index": 2}])
    assert torch.equal(batch["owner"] >= 0, batch["attention_mask"].bool())


def test_an_index_of_a_row_is_that_of_each_token_and_so_is_a_weight():
    samples = [{"input_ids": [5, 6], "index": 7, "weight": 2.0}, {"input_ids": [5], "index": torch.tensor(3)}]
    batch = OwnerCollator(padding("right"), SIZE)(samples)
    assert batch["index"].tolist() == [3, 7]
    assert batch["owner"].tolist() == [[1, 1], [0, -1]]
    assert batch["weight"].tolist() == [[2, 2], [1, 0]]


def test_more_entries_without_a_token_where_processes_agree_on_a_number():
    batch = OwnerCollator(padding("right"), SIZE, rows=4)([{"input_ids": [5, 6], "index": 7}])
    assert batch["index"].tolist() == [7] * 4
    assert batch["owner"].tolist() == [[0, 0]]


def test_batches_that_are_not_recorded_are_those_of_the_other_collator():
    batch = OwnerCollator(padding("right"), SIZE, keep=False)([{"input_ids": [5, 6], "owner": [1, 1], "index": 1}])
    assert batch.keys() == {"input_ids", "labels", "attention_mask"}


@pytest.mark.parametrize("row", [-1, SIZE])
def test_a_row_outside_of_the_data_set_is_refused(row):
    with pytest.raises(IndexError, match=rf"got row {row}, expected 0\.\.8; make the tracker for all rows"):
        OwnerCollator(padding("right"), SIZE)([{"input_ids": [5, 6], "owner": [1, row]}])


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({}, "got samples with input_ids, expected 'owner' or 'index'.*dp.index_rows"),
        ({"owner": [1]}, r"owner: got int64 \(1,\) for 2 tokens"),
        ({"owner": [0.5, 1]}, r"owner: got float64 \(2,\) for 2 tokens"),
        ({"index": 1, "weight": [1.0]}, r"weight: got \(1,\) for 2 tokens"),
    ],
)
def test_samples_that_do_not_say_whose_their_tokens_are_are_refused(sample, message):
    with pytest.raises(ValueError, match=message):
        OwnerCollator(padding("right"), SIZE)([{"input_ids": [5, 6], **sample}])


def test_a_collator_that_changes_the_tokens_is_refused():
    def truncating(samples):
        return padding("right")([{"input_ids": sample["input_ids"][:2]} for sample in samples])

    def shuffling(samples):
        return padding("right")(samples[::-1])

    samples = [{"input_ids": [5, 6, 7], "index": 1}, {"input_ids": [8, 9, 5], "index": 2}]
    for collator in (truncating, shuffling):
        with pytest.raises(ValueError, match=r"data_collator: got input_ids \(2, .\) of samples with 3, 3 tokens"):
            OwnerCollator(collator, SIZE)(samples)
