"""What the processes of a group exchange, so that all of them know what each has seen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor

_NAMES: Final = 31  # of a definition that are compared one by one
_BYTE_OF_PADDING: Final = 255  # so that the index of a padded row is -1, `ops.PADDING`
# The newer name is that of PyTorch 2.14, which deprecates the other.
_all_gather: Final[Any] = getattr(dist, "all_gather_single", getattr(dist, "all_gather_into_tensor", None))


class Group:
    """The processes that train together.

    Args:
        process_group: from `torch.distributed`.

    Attributes:
        definition: what every process must have in common; compared in the first exchange.
        largest_batch: rows that `gather_rows` has room for, of each process; what is set here before its first call is
            the least.
        advice: what to say of processes that do not take part.

    Raises:
        TypeError: no process group.
    """

    def __init__(self, process_group: Any) -> None:
        if not (dist.is_available() and isinstance(process_group, dist.ProcessGroup)):
            raise TypeError(
                f"process_group: got {process_group!r}, expected one of torch.distributed, such as "
                "torch.distributed.group.WORLD after init_process_group"
            )
        self.process_group = process_group
        self.definition: dict[str, Any] = {}
        self.largest_batch = 0
        self.advice = (
            "In every process, call update in every step, and compute, finish and state_dict too where gradients are "
            "scored"
        )
        self._agreed = self._compared = False

    @property
    def is_first(self) -> bool:
        """Whether this process is the first of the group."""
        return self.rank == 0

    @property
    def rank(self) -> int:
        """The place of this process in the group."""
        return dist.get_rank(self.process_group)

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return dist.get_world_size(self.process_group)

    def gather_rows(self, index: Tensor, *columns: Tensor) -> list[Tensor]:
        """Rows of all processes, in the order of their ranks.

        Everything travels as bytes, in one exchange. Sizes do not, since reading them would be to wait for the device:
        every process sends as many rows as the largest first batch has, and fills up with rows of index -1.

        Args:
            index: [B] int64; B may differ between processes, but not grow beyond the largest first batch.
            columns: [B] or [B, ...] each, of any dtype.

        Raises:
            ValueError: more rows than the largest first batch.
            RuntimeError: a process of the group has ended, or made fewer calls.
        """
        index = torch.where(index < 0, torch.iinfo(index.dtype).max, index)  # a bad one is not to pass for padding
        parts = [index, *(column.detach() for column in columns)]
        rows = self._at_home(torch.cat([_as_bytes(part) for part in parts], 1))
        capacity = self._rows_to_send(len(rows), rows.device)
        mine = rows.new_full((capacity, rows.shape[1]), _BYTE_OF_PADDING)
        mine[: len(rows)] = rows
        everyone = rows.new_empty(self.world_size * capacity, rows.shape[1])
        self._exchange(lambda: _all_gather(everyone, mine, group=self.process_group))
        everyone = everyone.to(index.device)
        widths = [math.prod(part.shape[1:]) * part.element_size() for part in parts]
        return [_from_bytes(own, like) for own, like in zip(everyone.split(widths, 1), parts, strict=True)]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes, on the device of the values."""
        total = self._at_home(values).clone()
        self._exchange(lambda: dist.all_reduce(total, group=self.process_group))
        return total.to(values.device)

    def largest(self, values: Tensor) -> Tensor:
        """Of the values of all processes, element by element, the largest, on the device of the values."""
        found = self._at_home(values).clone()
        self._exchange(lambda: dist.all_reduce(found, dist.ReduceOp.MAX, group=self.process_group))
        return found.to(values.device)

    def merge_moments(self, count: Tensor, mean: Tensor, m2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moments of what all processes saw, from what each saw (Chan et al. 1979): count [B], mean and M2 [B, P]."""
        total, own = self.sum(count), count[:, None].float()
        overall = self.sum(mean * own) / total[:, None].clamp(min=1)
        return total, overall, self.sum(m2.float() + own * (mean - overall).square())

    def _rows_to_send(self, rows: int, device: torch.device) -> int:
        if not self._agreed:
            largest = torch.tensor(max(rows, self.largest_batch), device=device)
            self._exchange(lambda: dist.all_reduce(largest, dist.ReduceOp.MAX, group=self.process_group))
            self.largest_batch = int(largest)
            self._agreed = True
        if rows > self.largest_batch:
            raise ValueError(
                f"got a batch of {rows} examples, expected at most {self.largest_batch}, the largest first batch of "
                "any process in the group: the processes agree on a size once, and not in each step"
            )
        return self.largest_batch

    def _at_home(self, values: Tensor) -> Tensor:
        """The values where the backend exchanges them: Gloo's on the CPU, NCCL's on the accelerator."""
        backend = str(dist.get_backend(self.process_group))
        accelerator = torch.accelerator.current_accelerator() if "gloo" not in backend else None
        home = torch.device("cpu") if accelerator is None else accelerator
        return values if values.device.type == home.type else values.to(home)

    def compare(self, definition: Mapping[str, Any], of: str, what_to_do: str) -> None:
        """ValueError, in all processes, unless what each of them gives is the same.

        Args:
            definition: what they must have in common, plain values.
            of: whose it is.
            what_to_do: where they differ.
        """
        names = sorted(definition)[:_NAMES]
        of_each = [_digest(definition), *(_digest({name: definition[name]}) for name in names)]
        own = torch.tensor([*of_each, *[0] * (_NAMES + 1 - len(of_each))], dtype=torch.int64, device="cpu")
        largest, smallest = self.largest(torch.stack([own, -own]))
        if int(largest[0]) != -int(smallest[0]):
            others = [
                name for name, differs in zip(names, (largest != -smallest)[1:].tolist(), strict=False) if differs
            ]
            raise ValueError(
                f"the {of} of the process group differ in {', '.join(others) or 'what they have'}; that of process "
                f"{self.rank} has {definition}. {what_to_do}"
            )

    def _compare(self) -> None:
        self._compared = True
        if self.definition:
            what_to_do = "Make them alike in every process: the same number of examples and classes, scores and options"
            self.compare(self.definition, "trackers", what_to_do)

    def _exchange(self, collective: Callable[[], object]) -> None:
        if not self._compared:
            self._compare()
        try:
            collective()
        except RuntimeError as error:
            raise RuntimeError(
                f"process {self.rank} of the group could not exchange with the others: one of them has ended (its own "
                f"error says why), or made fewer calls than this one. {self.advice}"
            ) from error


def _as_bytes(values: Tensor) -> Tensor:
    """[B, ...] of any dtype -> [B, bytes]."""
    return (values.flatten(1) if values.dim() > 1 else values[:, None]).contiguous().view(torch.uint8)


def _from_bytes(rows: Tensor, like: Tensor) -> Tensor:
    """[R, bytes] -> [R, ...] with the dtype and the rest of the shape of another tensor."""
    return rows.contiguous().view(like.dtype).reshape(len(rows), *like.shape[1:])


def _digest(definition: Mapping[str, Any]) -> int:
    """56 bits."""
    text = json.dumps(definition, sort_keys=True, default=repr)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
