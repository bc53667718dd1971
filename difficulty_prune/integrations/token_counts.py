"""How many tokens of each row were scored, and what their losses add up to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed
from torch import Tensor


class TokenCounts:
    """Counts, per row of the data set, the tokens that were scored, and adds up their losses.

    The tracker's scores are means over an example's presentations, each of them a mean over tokens, so that a short row
    counts as much as a long one. With these sums a mean over tokens can be had as well, and the two are not mixed up.

    Args:
        num_examples: N.
        process_group: of `torch.distributed`, as of the tracker: each process then counts what it sees itself.

    >>> counts = TokenCounts(3)
    >>> counts.add(torch.tensor([2, 0]), torch.tensor([[0, 0, 1, -1]]), torch.tensor([[1.0, 3.0, 5.0, 0.0]]))
    >>> counts.tokens()
    tensor([1, 0, 2])
    >>> counts.loss() / counts.tokens()
    tensor([5., nan, 2.], dtype=torch.float64)
    """

    def __init__(self, num_examples: int, process_group: Any = None) -> None:
        self.num_examples = num_examples
        self.process_group = process_group
        self.forget()

    def forget(self) -> None:
        """Begins from 0."""
        self._tokens = torch.zeros(self.num_examples, dtype=torch.int64, device="cpu")
        self._loss = torch.zeros(self.num_examples, dtype=torch.float64, device="cpu")

    def add(self, index: Tensor, owner: Tensor, loss: Tensor | None = None) -> None:
        """Adds a step.

        Args:
            index: [B] int64, positions in the data set.
            owner: any shape, int64: for each token the position of its row in `index`, or -1.
            loss: the tokens' losses, of the same shape; none: only counted.
        """
        if self._tokens.device != owner.device:
            self._tokens, self._loss = self._tokens.to(owner.device), self._loss.to(owner.device)
        owner = owner.reshape(-1)
        counts = owner >= 0
        rows = index.to(owner.device, non_blocking=True)[owner.clamp(min=0)]
        self._tokens.index_add_(0, rows, counts.long())
        if loss is not None:
            losses = loss.detach().reshape(-1).to(torch.float64)
            self._loss.index_add_(0, rows, losses.masked_fill(~counts, 0))

    def tokens(self) -> Tensor:
        """[N] int64: how many tokens of each row were scored, over all presentations and processes."""
        return self._of_all(self._tokens)

    def loss(self) -> Tensor:
        """[N] float64, nats: the sum of the losses of those tokens."""
        return self._of_all(self._loss)

    def state_dict(self) -> dict[str, Tensor]:
        """The counts of all processes."""
        return {"tokens": self.tokens(), "loss": self.loss()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replaces the counts; of several processes one goes on with them, and the others from 0.

        Raises:
            ValueError: of another number of rows.
        """
        tokens, loss = state["tokens"], state["loss"]
        if tokens.shape != (self.num_examples,) or loss.shape != tokens.shape:
            raise ValueError(f"tokens: got counts {tuple(tokens.shape)}, expected [{self.num_examples}], one per row")
        self.forget()
        if self.process_group is None or torch.distributed.get_rank(self.process_group) == 0:
            self._tokens, self._loss = tokens.to(torch.int64).clone(), loss.to(torch.float64).clone()

    def _of_all(self, counts: Tensor) -> Tensor:
        counts = counts.clone()
        if self.process_group is not None:
            torch.distributed.all_reduce(counts, group=self.process_group)
        return counts
