"""Who records what the processes of a framework see."""

from __future__ import annotations

import pytest

import difficulty_prune as dp
from difficulty_prune.integrations.training_set import check_processes


def test_records_of_one_process_are_refused_where_there_are_several():
    alone = dp.DifficultyTracker(3, scores=("loss",))
    part = dp.DifficultyTracker(None, scores=("loss",), partition=dp.Partition.split(3))
    for tracker in (alone, part):
        check_processes(tracker, 1, "here")
    with pytest.raises(ValueError, match=r"saw alone, and there are 2; make it here as Diff.*process_group=torch"):
        check_processes(alone, 2, "here")
    with pytest.raises(ValueError, match=r"has a partition, .* one process of 2: .*; make it here as .*, or train"):
        check_processes(part, 2, "here")
