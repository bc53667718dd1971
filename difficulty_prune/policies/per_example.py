"""What a policy was told of each example beside its difficulty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..support.arrays import as_tensor


class PerExample:
    """One number for each example, [N] float64 on the CPU, in a policy: equal by value, and short in print.

    Args:
        values: [N] numbers, N >= 1; or a PerExample.
        name: of the argument, for messages.
        expected: what it should be, for messages.

    Raises:
        TypeError, ValueError: they are no such numbers.

    >>> PerExample([1, 2, 3], "cost", "the cost [N]")
    <3 numbers>
    """

    def __init__(self, values: Any, name: str, expected: str) -> None:
        if isinstance(values, PerExample):
            self.values: Tensor = values.values
        else:
            given = as_tensor(values, name, expected).cpu()
            if given.dim() != 1 or len(given) == 0:
                raise ValueError(f"{name}: got shape {tuple(given.shape)}, expected {expected}")
            self.values = given.double().clone()  # what is changed outside changes nothing here
        self.name = name

    def of(self, positions: Tensor, size: int) -> PerExample:
        """Those of a part of `size` examples; see `Keeping.of`. Of a new one it is not known: NaN."""
        self.check(size)
        part = object.__new__(PerExample)
        part.values, part.name = self.values[positions].masked_fill_(positions < 0, torch.nan), self.name
        return part

    def check(self, size: int) -> Tensor:
        """The values; ValueError unless they are those of so many examples."""
        if len(self.values) != size:
            raise ValueError(f"{self.name}: got {len(self.values)} numbers for {size} examples, expected one for each")
        return self.values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerExample) and torch.equal(self.values, other.values)

    def __hash__(self) -> int:
        return hash(len(self.values))

    def __repr__(self) -> str:
        return f"<{len(self.values):,} numbers>"
