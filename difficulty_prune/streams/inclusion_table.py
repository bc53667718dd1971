"""A table of ids and the probability that each is kept: 12 bytes an example, in a file that is mapped, not loaded."""

from __future__ import annotations

import os
import reprlib
from bisect import bisect_left
from collections.abc import Callable, Iterable
from struct import error as StructError
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ..policies.base import Policy, at_epoch
from ..policies.plan import Plan
from ..support.checks import true_or_false, whole_number
from ..support.digest import digest_of_text
from ..support.files import MALFORMED, open_vectors
from ..support.hashing import hash_ids, pack_signed, xxh3
from ..support.ids import id_array, id_of
from .build_table import FORMAT, KIND, Rules, write_table

_BLOCK: Final = 1 << 20  # ids
_SEARCHED: Final = 1 << 14  # ids at once, whose places stay in the processor's cache


class InclusionTable:
    """Probabilities of inclusion by id, in a file that all processes of a machine share.

    The file holds the 64-bit hash of each id and its probability in float32, sorted by hash. It is mapped: a process
    takes no memory of its own for it. Make one with `build` or `write`, and open it with `InclusionTable(path)`.
    Pickled, it is its path. Do not change the file while it is in use; `build` and `write` replace it whole.

    Args:
        path: of the file.
        check: whether to read all of it, to compare it with its digests; otherwise only its header is checked.

    Attributes:
        kind: "text" or "number", what its ids are.
        weighted: whether a sample that is kept weighs 1 / probability; otherwise 1.
        redrawn: whether every epoch draws anew; otherwise all have the same samples.
        full_from: the first epoch that has all samples, with weight 1; None if none does.
        policy: what the probabilities are from, for people.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is cut short, damaged, of another kind, or newer than this library; the message names it.
        OSError: it cannot be read; the message names it and says what to do.

    >>> import tempfile
    >>> from difficulty_prune.policies import SoftPrune
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = InclusionTable.build(f"{folder}/t", [7, 8, 9, 10], SoftPrune(0.75), [0.3, 0.1, 0.2, 0.9])
    ...     table.inclusion([10, 8, 77])
    array([1. , 0.5, nan], dtype=float32)
    """

    def __init__(self, path: str | os.PathLike[str], *, check: bool = True) -> None:
        vectors, header = open_vectors(path, KIND, FORMAT)
        self.path = vectors.path
        try:
            rules = Rules.parse(header)
            shapes = {name: (kind.dtype.str, len(kind.shape)) for name, kind in vectors.kinds.items()}
            if shapes != {"hash": ("<u8", 1), "starts": ("<u8", 1), "p": ("<f4", 1)}:
                raise ValueError(f"got arrays {reprlib.repr(shapes)}")
            sizes = {name: kind.shape[0] for name, kind in vectors.kinds.items()}
            if vectors.digest("p") is None:
                raise ValueError("it has no digests")
            if sizes["hash"] != sizes["p"] or sizes["hash"] == 0 or sizes["starts"] != 2**rules.bits + 1:
                raise ValueError(f"got sizes {sizes}")
        except MALFORMED as error:
            raise ValueError(f"{path}: not a valid table of inclusion probabilities ({error})") from error
        if check:
            vectors.check()
        self.rules = rules
        self._digest = vectors.digest("hash"), vectors.digest("p"), digest_of_text(repr(rules))
        self._hash, self._p = vectors.mapped("hash"), vectors.mapped("p")
        self._starts = vectors.mapped("starts")
        if int(self._starts[0]) != 0 or int(self._starts[-1]) != len(self._hash):
            raise ValueError(f"{path}: the file is damaged: its index ends at {int(self._starts[-1])}")

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        ids: Any,
        policy: Policy,
        difficulty: Any,
        labels: Any = None,
        *,
        salt: int = 0,
        epoch: int | None = None,
    ) -> InclusionTable:
        """Makes the table of a policy, as a file that is written whole or not at all.

        Args:
            path: of the file to write.
            ids: [N] texts or whole numbers, the id of each example, as runs have them.
            policy: one of `dp.policies`, or a plan whose weights are all 1. Of a policy with `anneal` the table knows
                the epoch from which all is kept.
            difficulty: [N], high = hard.
            labels: [N], for policies that need them; see `dp.policies`.
            salt: another one gives ids other hashes.
            epoch: the one that the table is for, of a policy that goes through the data (`EasyToHard`, `Review`) and so
                needs a table for each.

        Raises:
            TypeError, ValueError: as the policy and `write` raise them; or a policy without `inclusion`, or one that
                needs to know the epoch.
        """
        full_from = getattr(policy, "full_from", None) if epoch is None else None
        if epoch is not None:
            policy = at_epoch(policy, whole_number(epoch, "epoch"))
        elif full_from != 1 and at_epoch(policy, 0) != at_epoch(policy, 1):
            raise ValueError(
                f"policy: {policy!r} keeps others in every epoch, but a table has one probability for each; make one "
                "for each epoch: InclusionTable.build(..., epoch=0)"
            )
        if isinstance(policy, Plan) and bool((policy.weight != 1).any()):
            raise ValueError(
                f"policy: got {policy!r} with weights up to {float(policy.weight.max()):g}, which a table has no place "
                "for: give the policy that drew it, so that every epoch draws anew"
            )
        if not hasattr(policy, "inclusion"):
            raise TypeError(
                f"policy: got {policy!r}, which does not say with what probability it keeps an example; give one of "
                "dp.policies, or compute the probabilities and call InclusionTable.write(path, [(ids, p)], ...)"
            )
        inclusion: torch.Tensor = policy.inclusion(difficulty, labels)
        late: Any = policy if full_from is None else at_epoch(policy, full_from)
        if full_from is not None and bool((late.inclusion(difficulty, labels) < 1).any()):
            raise ValueError(
                f"policy: {policy!r} leaves some out in every epoch, and others until epoch {full_from}, but a table "
                "does not tell one from the other; make one for each epoch: InclusionTable.build(..., epoch=0)"
            )
        names = id_array(ids)
        if len(names) != len(inclusion):
            raise ValueError(f"ids: got {len(names)}, expected {len(inclusion)}, one for each difficulty")
        values = inclusion.numpy()
        return cls.write(
            path,
            ((names[i : i + _BLOCK], values[i : i + _BLOCK]) for i in range(0, len(names), _BLOCK)),
            weighted=getattr(policy, "unbiased", False),
            redrawn=getattr(policy, "redrawn", False),
            full_from=full_from,
            policy=repr(policy),
            salt=salt,
        )

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        blocks: Iterable[tuple[Any, Any]],
        *,
        weighted: bool,
        redrawn: bool = True,
        full_from: int | None = None,
        policy: str = "probabilities of your own",
        salt: int = 0,
    ) -> InclusionTable:
        """Makes the table of probabilities of your own, from blocks, so that not all need to be in memory.

        Args:
            path: of the file to write.
            blocks: pairs of ids [n], all texts or all whole numbers, and their probabilities [n] in [0, 1].
            weighted, redrawn, full_from, policy: the attributes of the table.
            salt: as for `build`.

        Raises:
            TypeError: ids that are neither texts nor whole numbers, or of both kinds; blocks that are no pairs; or
                options of another kind.
            ValueError: no ids; a probability outside of [0, 1], or 0 in a weighted table; an id that occurs twice; or
                two texts with the same hash, for which another salt helps.
            OSError: it cannot be written; the message names the file and says what to do.
        """
        if not isinstance(policy, str):
            raise TypeError(
                f"policy: got {policy!r}, expected a text for people; a table of a policy is made by "
                "InclusionTable.build(path, ids, policy, difficulty)"
            )
        flags = (true_or_false(weighted, "weighted"), true_or_false(redrawn, "redrawn"))
        full = None if full_from is None else whole_number(full_from, "full_from")
        rules = Rules("", *flags, full, policy, whole_number(salt, "salt"), 0)
        write_table(path, blocks, rules)
        return cls(path, check=False)

    @property
    def kind(self) -> str:
        return self.rules.kind

    @property
    def weighted(self) -> bool:
        return self.rules.weighted

    @property
    def redrawn(self) -> bool:
        return self.rules.redrawn

    @property
    def full_from(self) -> int | None:
        return self.rules.full_from

    @property
    def policy(self) -> str:
        return self.rules.policy

    def inclusion(self, ids: Any) -> NDArray[np.float32]:
        """The probability of each id, [n] float32; NaN for one that the table does not know.

        Raises:
            TypeError: ids of another kind than the table's.
        """
        return self.of_hashes(self.hashes(ids))

    def hashes(self, ids: Any) -> NDArray[np.uint64]:
        """The hash of each id, [n]; TypeError for ids of another kind than the table's."""
        names = id_array(ids)
        if len(names) and (names.dtype == object) != (self.kind == "text"):
            self._refuse_kind(names[:1].tolist()[0])
        return hash_ids(names, self.rules.salt)

    def _refuse_kind(self, name: Any) -> None:
        raise TypeError(f"ids: got {name!r}, expected a {self.kind}, as the ids of {self.path} are")

    def of_hashes(self, hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
        """The probability of each hash, [n] float32; NaN for one that the table does not have."""
        found = np.empty(len(hashes), np.float32)
        for start in range(0, len(hashes), _SEARCHED):
            wanted = hashes[start : start + _SEARCHED]
            place = np.minimum(self._first_not_below(wanted), len(self._hash) - 1)
            found[start : start + _SEARCHED] = np.where(self._hash[place] == wanted, self._p[place], np.float32(np.nan))
        return found

    def _first_not_below(self, wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
        """What `np.searchsorted(self._hash, wanted)` gives, in a quarter of its time: all parts are halved at once."""
        bits = self.rules.bits
        group = (wanted >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(wanted), np.int64)
        low, high = (self._starts[group + i].astype(np.int64) for i in (0, 1))
        for _ in range(int((high - low).max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            below = (low < high) & (self._hash[np.minimum(middle, len(self._hash) - 1)] < wanted)
            low, high = np.where(below, middle + 1, low), np.where(below, high, np.maximum(low, middle))
        return low

    def lookup(self) -> Callable[[str | int], tuple[int, float | None]]:
        """A function of one id, a Python text or number, that gives its hash and its probability, None if not known.

        It is for one id at a time, in a loop; of many at once, `inclusion` takes a tenth of the time for each.
        """
        # Local names, and elements of a memoryview, are what Python reaches fastest.
        hashes, p, starts = (array.data for array in (self._hash, self._p, self._starts))
        hasher, salt, shift, refuse = xxh3(), self.rules.salt, 64 - self.rules.bits, self._refuse_kind
        kind = str if self.kind == "text" else int

        def look_up(name: str | int) -> tuple[int, float | None]:
            if type(name) is not kind:
                refuse(name)
            try:
                data = name.encode("utf-8", "surrogatepass") if kind is str else pack_signed(name)  # type: ignore[union-attr]
            except StructError:
                id_of(name, "ids", "a sample")  # which says why
                raise
            wanted = hasher(data, salt)
            group = wanted >> shift
            end = starts[group + 1]
            place = bisect_left(hashes, wanted, starts[group], end)
            if place < end and hashes[place] == wanted:
                return wanted, p[place]
            id_of(name, "ids", "a sample")  # an empty text names nothing
            return wanted, None

        return look_up

    def __len__(self) -> int:
        return len(self._hash)

    def __repr__(self) -> str:
        return f"InclusionTable({len(self):,} {self.kind} ids, {self.policy})"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": str(self.path), "digest": self._digest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        InclusionTable.__init__(self, state["path"], check=False)
        if self._digest != state["digest"]:
            raise ValueError(f"{self.path}: the file was replaced by another table since this one was opened")

    def __deepcopy__(self, memo: Any) -> InclusionTable:
        return self  # which never changes
