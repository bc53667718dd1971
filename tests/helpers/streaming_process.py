"""One of several processes that read one StreamingDataset; `test_real_pipelines.py` starts them under torchrun.

torchrun streaming_process.py DATA TABLE WORKERS EPOCHS...

It leaves, in the folder of the data, what this process kept: rank-N.json, for each epoch a list of (id, weight).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist
from torch.utils.data import DataLoader

import difficulty_prune as dp

BATCH = 4


def main(data: str, table: str, workers: str, *epochs: str) -> None:
    from streaming import StreamingDataset  # optional, and the tests read this file for doctests

    dist.init_process_group("gloo")
    dataset = StreamingDataset(local=data, shuffle=True, batch_size=BATCH)
    pruner = dp.StreamPruner(table, "id")
    stream = dp.PrunedStream(dataset, pruner)
    loader = DataLoader(stream, batch_size=BATCH, num_workers=int(workers), persistent_workers=int(workers) > 0)
    kept = []
    for epoch in map(int, epochs):
        pruner.set_epoch(epoch)
        batches = [zip(batch["id"], batch["weight"].tolist(), strict=True) for batch in loader]
        kept.append([pair for batch in batches for pair in batch])
        dist.barrier()  # before another epoch, as a training's steps would
    Path(data, f"rank-{dist.get_rank()}.json").write_text(json.dumps(kept))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
