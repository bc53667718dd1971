"""One of two processes that record rows together; `test_rows_in_groups.py` starts it and checks what it leaves.

python row_group_process.py RANK FOLDER
"""

from __future__ import annotations

import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from row_batches import FORMS, Batch, N, make_batch, scores_of, target_of

import difficulty_prune as dp

STEPS, WORLD = 6, 2


def batch(form: str, step: int, rank: int) -> Batch:
    """What a process sees in a step: as a rule other numbers of examples and of rows than the other one, or none."""
    examples = (4, 3, 0, 4, 1, 2)[(step + rank * 2) % 6]
    return make_batch(form, 1000 + 2 * step + rank, examples, weighted=step % 3 > 0, odd=True)


def tracker_for(form: str, process_group: object = None) -> dp.DifficultyTracker:
    return dp.DifficultyTracker(N, scores_of(form), target=target_of(form), right_from=0.5, process_group=process_group)


def facts(tracker: dp.DifficultyTracker) -> dict[str, object]:
    return {
        "scores": tracker.compute(allow_skipped=True),
        "skipped": tracker.skipped,
        "presentations": tracker.presentations,
        "age": tracker.age(),
    }


def main() -> None:
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "labels: the targets of")
    options = {"rank": rank, "world_size": WORLD, "timeout": timedelta(seconds=120)}
    dist.init_process_group("gloo", f"file://{folder}/store", **options)
    found, states = {}, {}
    for form in FORMS:
        tracker = tracker_for(form, dist.group.WORLD)
        for step in range(STEPS):
            batch(form, step, rank).update(tracker)
            if step == STEPS // 2:
                states[form] = {
                    name: value.clone() if isinstance(value, torch.Tensor) else value
                    for name, value in tracker.state_dict().items()
                }
        found[form] = facts(tracker)
    torch.save(found, folder / f"facts-{rank}.pt")
    torch.save(states, folder / f"states-{rank}.pt")
    (folder / f"done-{rank}").touch()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
