"""What a training over many processes costs, where each has the records of its own examples alone.

    python benchmarks/studies/many_processes.py --out benchmarks/results/many-processes.json

Local processes (gloo) record a loss for each of their examples and plan with every policy: memory, exchanges, bytes and
time are measured. A first, smaller round plans the same by one process and compares what is kept. From these numbers,
and from the time of all-reduces of two sizes, follows what 8 to 1,024 processes take for 1.28 million, 400 million and
5 billion examples. All-reduces are taken to go around a ring, as gloo's do: 2 (W - 1) hops, each as long as one between
local processes; and to move 2 bytes for each one, at the rate measured here or given with --gigabits.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor

import difficulty_prune as dp
from difficulty_prune.policies.compose import PerClass
from difficulty_prune.policies.stratified import Stratified
from difficulty_prune.policies.uniform import Hardest, Random, Window
from difficulty_prune.policies.weighted import Importance, SoftPrune
from difficulty_prune.support.files import write_atomically

POLICIES: Final = {
    "Hardest": Hardest(0.5),
    "Window": Window(0.1, 0.5),
    "Random": Random(0.5),
    "Stratified": Stratified(0.5, drop_hardest=0.1),
    "SoftPrune": SoftPrune(0.5),
    "Importance": Importance(keep=0.5),
    "PerClass(Hardest), 1,000 classes": PerClass(Hardest(0.5)),
}
LARGE: Final = ("Hardest", "SoftPrune")
CLASSES: Final = 1000
SIZES: Final = (1_281_167, 400_000_000, 5_000_000_000)
WORLDS: Final = (8, 64, 256, 1024)
BATCH: Final = 256  # examples of a process in a step
CHUNK: Final = 1 << 17
EXCHANGED: Final = 48  # bytes of an example that are exchanged in a step where every process has all records


class Counting(dp.Partition):
    """Counts what it exchanges."""

    exchanges, bytes, seconds = 0, 0, 0.0

    def counted(self, values: Tensor, exchange: Any) -> Tensor:
        start = time.perf_counter()
        result: Tensor = exchange(values)
        self.seconds += time.perf_counter() - start
        self.exchanges += 1
        self.bytes += values.numel() * values.element_size()
        return result

    def sum(self, values: Tensor) -> Tensor:
        return self.counted(values, super().sum)

    def largest(self, values: Tensor) -> Tensor:
        return self.counted(values, super().largest)

    def compare(self, definition: dict[str, Any], of: str, what_to_do: str) -> None:
        self.exchanges += 1
        self.bytes += 512
        super().compare(definition, of, what_to_do)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def losses(positions: Tensor) -> Tensor:
    """The same for an example, whoever has it: an exponential distribution, as losses have after a while."""
    uniform = ((positions * 2654435761 % 4294967291).double() + 1) / 4294967292
    return -uniform.log()


def measure(rank: int, world: int, size: int, folder: str, policies: tuple[str, ...]) -> None:
    """One process: records, then plans; leaves a file."""
    torch.set_num_threads(1)
    group = None
    if world > 1:
        store = f"file://{folder}/store-{world}"
        dist.init_process_group("gloo", store, rank=rank, world_size=world, timeout=timedelta(minutes=20))
        group = dist.group.WORLD
    before = peak()
    partition = Counting.split(size, group)
    own = torch.from_numpy(partition.ids)
    tracker = dp.DifficultyTracker(None, scores=("loss",), partition=partition)
    start, exchanged = time.perf_counter(), partition.exchanges
    for first in range(0, len(own), CHUNK):
        places = torch.arange(first, min(first + CHUNK, len(own)))
        tracker.update(places, loss=losses(own[places]).float())
    recorded = time.perf_counter() - start
    in_steps = partition.exchanges - exchanged
    resident = peak() - before
    rows = {name: plan(partition, POLICIES[name], tracker, own) for name in policies}
    found = {
        "examples": len(own), "exchanges_in_steps": in_steps, "record_s": recorded, "resident_bytes": resident,
        "peak_bytes": peak() - before, "plans": rows, "all_reduce_s": all_reduces(group) if world > 1 else {},
    }  # fmt: skip
    Path(folder, f"{world}-{rank}.json").write_text(json.dumps(found))
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


def plan(partition: Counting, policy: Any, tracker: dp.DifficultyTracker, own: Tensor) -> dict[str, Any]:
    partition.exchanges, partition.bytes, partition.seconds = 0, 0, 0.0
    start, processor = time.perf_counter(), time.process_time()
    difficulty = tracker.source("loss")()
    made = partition.plan(policy, difficulty, own % CLASSES if isinstance(policy, PerClass) else None, seed=0)
    partition.visits(len(made))
    return {
        "exchanges": partition.exchanges, "bytes": partition.bytes, "s": time.perf_counter() - start,
        "processor_s": time.process_time() - processor, "exchanging_s": partition.seconds,
        "kept": made.summary()["kept"], "here": len(made), "checksum": checksum(partition, made),
    }  # fmt: skip


def checksum(partition: Counting, made: dp.Plan) -> int:
    """Adds up over processes, to the same where they keep the same examples with the same weights."""
    words = partition.words[made.index]
    bits = made.weight.view(torch.int32).long()
    return int(partition.sum(((words * 6364136223846793005) ^ (bits * 1442695040888963407)).sum()))


def all_reduces(group: Any) -> dict[str, float]:
    """Seconds of an all-reduce of 8 bytes and of 2 MB, the fastest of many: on a busy machine others wait."""
    found = {}
    for numbers in (1, 1 << 18):
        values = torch.zeros(numbers, dtype=torch.int64)
        times = []
        for _ in range(60):
            start = time.perf_counter()
            dist.all_reduce(values, group=group)
            times.append(time.perf_counter() - start)
        found[str(numbers * 8)] = sorted(times)[len(times) // 4]
    return found


def run(world: int, size: int, policies: tuple[str, ...] = tuple(POLICIES)) -> list[dict[str, Any]]:
    """What each process of a round found."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(target=measure, args=(rank, world, size, folder, policies)) for rank in range(world)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return [json.loads(Path(folder, f"{world}-{rank}.json").read_text()) for rank in range(world)]


def summed_up(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of a round: the slowest and the largest process, per example where that is meant."""
    most = max(part["examples"] for part in found)
    plans = {}
    for name in found[0]["plans"]:
        of_all = [part["plans"][name] for part in found]
        plans[name] = {
            "kept": of_all[0]["kept"], "fewest_here": min(p["here"] for p in of_all),
            "exchanges": of_all[0]["exchanges"], "bytes": of_all[0]["bytes"],
            "s": round(max(p["s"] for p in of_all), 2), "processor_s": round(max(p["processor_s"] for p in of_all), 2),
            "ns_per_example": round(max(p["processor_s"] for p in of_all) / most * 1e9, 1),
        }  # fmt: skip
    return {
        "processes": len(found), "examples": sum(part["examples"] for part in found),
        "exchanges_in_steps": sum(part["exchanges_in_steps"] for part in found),
        "resident_bytes_per_example": round(max(part["resident_bytes"] for part in found) / most, 1),
        "peak_bytes_per_example": round(max(part["peak_bytes"] for part in found) / most, 1),
        "resident_bytes": max(part["resident_bytes"] for part in found),
        "peak_bytes": max(part["peak_bytes"] for part in found), "plans": plans,
    }  # fmt: skip


def state_bytes() -> int:
    """Of a tracker's record of an example and of what names it, counted from the tensors."""
    tracker = dp.DifficultyTracker(None, scores=("loss",), partition=dp.Partition.split(1000))
    tracker.update(torch.arange(1000), loss=torch.zeros(1000))
    state = tracker.state_dict()
    return (
        sum(state[name].nbytes for name in ("table", "last_seen")) // 1000 + state["partition"]["words"].nbytes // 1000
    )


def computed(size: int, world: int, measured: dict[str, Any], hop: float, rate: float, record: int) -> dict[str, Any]:
    own = math.ceil(size / world)
    times = {}
    for name, row in measured["plans"].items():
        exchanging = row["exchanges"] * 2 * (world - 1) * hop + 2 * row["bytes"] / rate
        times[name] = round(own * row["ns_per_example"] * 1e-9 + exchanging, 2)
    return {
        "examples": size, "processes": world, "examples_per_process": own,
        "state_bytes": own * record, "peak_bytes": round(own * measured["peak_bytes_per_example"]),
        "state_bytes_replicated": size * (record - 8), "bytes_per_step": 0,
        "bytes_per_step_replicated": EXCHANGED * BATCH * world, "plan_s": times,
    }  # fmt: skip


def size_of(number: float) -> str:
    """Bytes, for people."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def show(console: Console, measured: dict[str, Any]) -> None:
    """A round."""
    world = measured["processes"]
    table = Table(
        "policy", "exchanges", "MB exchanged", "plan, s", "of a processor, s", "ns an example", "kept", "fewest x W"
    )
    for name, row in measured["plans"].items():
        cells = row["exchanges"], f"{row['bytes'] / 1e6:.2f}", row["s"], row["processor_s"], row["ns_per_example"]
        table.add_row(name, *map(str, cells), f"{row['kept']:,}", f"{row['fewest_here'] * world:,}")
    console.print(
        f"{measured['examples']:,} examples, {world} processes: {measured['exchanges_in_steps']} exchanges in steps; "
        f"{size_of(measured['resident_bytes'])} in a process, {size_of(measured['peak_bytes'])} at most"
    )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=20_000_000, help="examples of all processes (default %(default)s)")
    parser.add_argument("--large", type=int, default=50_000_000, help="planned by two policies (default %(default)s)")
    parser.add_argument("--compared", type=int, default=2_000_000, help="also planned by one (default %(default)s)")
    parser.add_argument("--world", type=int, default=4, help="local processes (default %(default)s)")
    parser.add_argument("--hop-us", type=float, help="of the network; default: as between the local processes")
    parser.add_argument("--gigabits", type=float, help="of the network, a second; default: as measured")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    alone, together = run(1, options.compared), run(options.world, options.compared)
    for name in POLICIES:
        sums = {part["plans"][name]["checksum"] for part in (*alone, *together)}
        if len(sums) > 1:
            raise RuntimeError(f"{name}: {options.world} processes keep other examples than one")
    found = run(options.world, options.size)
    measured, record = summed_up(found), state_bytes()
    large = summed_up(run(options.world, options.large, LARGE))
    reduce = {key: max(part["all_reduce_s"][key] for part in found) for key in found[0]["all_reduce_s"]}
    hops = 2 * (options.world - 1)
    short, long = reduce["8"], reduce[str(8 << 18)]
    hop = short / hops if options.hop_us is None else options.hop_us * 1e-6
    rate = 2 * (8 << 18) / max(long - short, 1e-9) if options.gigabits is None else options.gigabits * 1e9 / 8

    console = Console(width=150)
    console.print(f"{options.compared:,} examples: {options.world} processes keep what one keeps, bit for bit.")
    show(console, measured)
    show(console, large)
    console.print(
        f"State: {record} bytes an example. All-reduce of 8 bytes {short * 1e3:.2f} ms, of 2 MB {long * 1e3:.2f} ms; "
        f"taken for others: {hop * 1e6:.0f} us a hop, {rate / 1e9:.2f} GB a second."
    )
    rows = [computed(size, world, measured, hop, rate, record) for size in SIZES for world in WORLDS]
    table = Table("examples", "W", "state", "while planning", "replicated", "a step", "replicated", "plan, s")
    for row in rows:
        times = row["plan_s"].values()
        table.add_row(
            f"{row['examples']:,}", str(row["processes"]), size_of(row["state_bytes"]), size_of(row["peak_bytes"]),
            size_of(row["state_bytes_replicated"]), "0", size_of(row["bytes_per_step_replicated"]),
            f"{min(times):,.1f} to {max(times):,.1f}",
        )  # fmt: skip
    console.print(table)
    if options.out:
        network = {"all_reduce_s": reduce, "hop_s": hop, "bytes_per_s": rate, "given": options.gigabits is not None}
        results = {"machine": machine(), "compared": options.compared, "state_bytes_per_example": record}
        results |= {"network": network, "measured": measured, "large": large, "computed": rows}
        write_atomically(options.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
