"""A collator that says which row of the data set each token of the batch is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..selected_rows import INDEX, OWNER, WEIGHT

KEYS: Final = (INDEX, OWNER, WEIGHT)
TOKENS: Final = "input_ids"
NOBODY: Final = -1

_WHERE_FROM: Final = (
    "give rows that are not packed an 'index' (dp.IndexedDataset, dp.select_rows), or number the tokens before "
    "packing: dp.index_rows(tokenised)"
)


class OwnerCollator:
    """Puts `index`, `owner` and, where rows are weighted, `weight` beside what another collator makes.

    For a batch of tokens [P, T], of B different rows: `index` [B] int64, the rows' positions in the data set, each
    once; `owner` [P, T] int64, for each token the position in `index` of its row, and -1 where there is none: padding;
    `weight` [P, T] float32. All of this is done on the CPU, so that nothing has to be counted on an accelerator.

    Samples bring an "owner" per token, as `dp.index_rows` writes it, or an "index" per row. The other collator may pad
    its tokens on either side, flatten all samples into one line, or neither; where they went is looked up, not assumed.

    Args:
        collator: makes batches with "input_ids" of samples with "input_ids"; it gets neither index, owner nor weight.
        num_examples: N, above which there is no row.
        keep: False: only takes them away, for batches that are not recorded.
        rows: at least so many entries in `index`, the last ones without a token; for several processes, which exchange
            as many in each step.

    Raises:
        ValueError: samples that say nothing of their rows, or a collator that changes the tokens or their order.
        IndexError: a row outside of 0..N-1.

    >>> from torch.nn.utils.rnn import pad_sequence
    >>> def pad(samples):
    ...     return {"input_ids": pad_sequence([torch.tensor(s["input_ids"]) for s in samples], batch_first=True)}
    >>> samples = [{"input_ids": [5, 6, 7], "owner": [8, 8, 3]}, {"input_ids": [9], "owner": [3]}]
    >>> OwnerCollator(pad, num_examples=10)(samples)
    {'input_ids': tensor([[5, 6, 7],
            [9, 0, 0]]), 'index': tensor([3, 8]), 'owner': tensor([[ 1,  1,  0],
            [ 0, -1, -1]])}
    """

    def __init__(
        self, collator: Callable[[list[Any]], Any], num_examples: int, keep: bool = True, rows: int = 0
    ) -> None:
        self.collator = collator
        self.num_examples = num_examples
        self.keep = keep
        self.rows = rows

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        bare = [{name: value for name, value in sample.items() if name not in KEYS} for sample in samples]
        batch: dict[str, Any] = self.collator(bare)
        if not self.keep:
            return batch
        lines = [np.asarray(sample[TOKENS], dtype=np.int64) for sample in samples]
        owners = [_owner(sample, len(line)) for sample, line in zip(samples, lines, strict=True)]
        self._check(owners)
        index, inverse = np.unique(np.concatenate(owners), return_inverse=True)
        places = _places(batch, lines)
        batch[INDEX] = torch.from_numpy(np.pad(index, (0, max(0, self.rows - len(index))), mode="edge"))
        batch[OWNER] = _at(places, batch[TOKENS], torch.from_numpy(inverse.reshape(-1)), NOBODY)
        if any(WEIGHT in sample for sample in samples):
            weights = [_weight(sample, len(line)) for sample, line in zip(samples, lines, strict=True)]
            batch[WEIGHT] = _at(places, batch[TOKENS], torch.from_numpy(np.concatenate(weights)), 0)
        return batch

    def _check(self, owners: list[NDArray[np.int64]]) -> None:
        for owner in owners:
            bad = owner[(owner < 0) | (owner >= self.num_examples)]
            if len(bad):
                raise IndexError(
                    f"got row {bad[0]}, expected 0..{self.num_examples - 1}; make the tracker for all rows of the "
                    "whole data set, also for those that are not trained on: dp.DifficultyTracker(len(dataset), ...)"
                )


def _owner(sample: dict[str, Any], tokens: int) -> NDArray[np.int64]:
    if OWNER in sample:
        owner = np.asarray(sample[OWNER])
    elif INDEX in sample:
        owner = np.full(tokens, int(sample[INDEX]))
    else:
        raise ValueError(f"got samples with {', '.join(sample)}, expected 'owner' or 'index' among them; {_WHERE_FROM}")
    if owner.shape != (tokens,) or (tokens and owner.dtype.kind not in "iu"):
        raise ValueError(
            f"owner: got {owner.dtype} {owner.shape} for {tokens} tokens, expected a whole number for each; "
            f"{_WHERE_FROM}"
        )
    return owner.astype(np.int64, copy=False)


def _weight(sample: dict[str, Any], tokens: int) -> NDArray[np.float32]:
    weight = np.asarray(sample.get(WEIGHT, 1.0), dtype=np.float32)
    if weight.shape not in ((), (tokens,)):
        raise ValueError(f"weight: got {weight.shape} for {tokens} tokens, expected a number, or one for each token")
    return np.broadcast_to(weight, (tokens,))


def _places(batch: dict[str, Any], lines: list[NDArray[np.int64]]) -> Tensor:
    """Where in the flat batch the tokens of all samples stand, in order."""
    tokens = torch.from_numpy(np.concatenate(lines))
    lengths = [len(line) for line in lines]
    for places in _possible_places(batch[TOKENS], batch.get("attention_mask"), lengths):
        if torch.equal(batch[TOKENS].reshape(-1)[places], tokens):
            return places
    raise ValueError(
        f"data_collator: got {TOKENS} {tuple(batch[TOKENS].shape)} of samples with {_first(lengths)} tokens, expected "
        "just those tokens in their order, padded on one side or joined to one line; truncate before the collator"
    )


def _possible_places(tokens: Tensor, mask: Any, lengths: list[int]) -> Iterator[Tensor]:
    """Likely ones first: a token that is repeated may be the one for padding, so a mask says more than a comparison."""
    lines, width = tokens.shape
    if isinstance(mask, Tensor) and mask.shape == tokens.shape and int((mask != 0).sum()) == sum(lengths):
        yield mask.reshape(-1).nonzero()[:, 0]
    if lines == len(lengths) and max(lengths) <= width:
        for gap in (0, 1):  # on the left
            starts = [line * width + gap * (width - length) for line, length in enumerate(lengths)]
            yield torch.cat(
                [torch.arange(s, s + n, device=tokens.device) for s, n in zip(starts, lengths, strict=True)]
            )
    if lines == 1 and sum(lengths) <= width:
        yield torch.arange(sum(lengths), device=tokens.device)


def _first(lengths: list[int]) -> str:
    return ", ".join(map(str, lengths[:4])) + (", ..." if len(lengths) > 4 else "")


def _at(places: Tensor, like: Tensor, values: Tensor, otherwise: int) -> Tensor:
    """A tensor of the shape of the batch, with the values at those places."""
    flat = torch.full((like.numel(),), otherwise, dtype=values.dtype, device=values.device)
    flat[places] = values
    return flat.view(like.shape)
