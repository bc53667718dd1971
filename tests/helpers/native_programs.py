"""Compiles the CUDA kernels with g++ for the emulator in `native/`, and runs programs made of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from native_calls import Call
from places import ROOT

CSRC = ROOT / "csrc"
NATIVE = ROOT / "tests" / "native"
KERNELS = sorted(path.name for path in (CSRC / "cuda").glob("*.cu"))

FLAGS = (
    *("-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-fno-strict-aliasing", f"-I{NATIVE}"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-parameter", "-Wno-maybe-uninitialized"),
)
SANITIZERS = {
    "plain": (),
    # Checks of the stack do not survive a switch between fibers; UndefinedBehaviorSanitizer sees to local arrays.
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "--param=asan-stack=0"),
    "thread": ("-fsanitize=thread",),
}
# What ThreadSanitizer would be told of, native/traffic.cpp counts.
COUNTED = ("-fsanitize=thread",)


@dataclass(frozen=True)
class Run:
    order: int  # emulator::Order
    shared_bytes: int
    every: int = 1  # of a launch of many blocks, only each so-manieth runs


@dataclass
class Batch:
    """Calls, and the file of their arguments."""

    calls: list[Call]
    path: Path

    def split(self, results: bytes) -> dict[Call, bytes]:
        parts, start = {}, 0
        for call in self.calls:
            parts[call] = results[start : start + call.result_bytes]
            start += call.result_bytes
        assert start == len(results)
        return parts


@dataclass
class Outcome:
    status: int
    report: str
    results: dict[Call, bytes]  # empty where the status is not 0
    printed: str


class Workshop:
    """Compiles and runs in the background. A step waits only for steps submitted before it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = 0
        self.pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1))
        self.environment = {
            **os.environ,
            "LC_ALL": "C",
            "ASAN_OPTIONS": "detect_leaks=0",  # needs ptrace, which containers refuse
            "TSAN_OPTIONS": "halt_on_error=1:atexit_sleep_ms=0",
        }

    def execute(self, *command: object) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        return subprocess.run(
            words, capture_output=True, text=True, errors="replace", env=self.environment, check=False
        )

    def new_path(self, name: str) -> Path:
        self.files += 1
        return self.folder / f"{self.files}-{name}"

    def gcc(self, target: Path, *arguments: object) -> Path:
        done = self.execute("g++", *FLAGS, *arguments, "-o", target)
        assert done.returncode == 0, done.stderr
        return target

    def compile(self, source: Path, flags: Sequence[str]) -> Future[Path]:
        target = self.new_path(f"{source.stem}.o")
        return self.pool.submit(self.gcc, target, *flags, "-x", "c++", "-c", source)

    def link(self, flags: Sequence[str], objects: Sequence[Future[Path]]) -> Future[Path]:
        target = self.new_path("program")
        return self.pool.submit(lambda: self.gcc(target, *flags, *(o.result() for o in objects)))

    def batch(self, calls: Iterable[Call]) -> Batch:
        batch = Batch(list(calls), self.new_path("arguments"))
        batch.path.write_bytes(b"".join(call.encode() for call in batch.calls))
        return batch

    def make_calls(self, program: Future[Path], batch: Batch, run: Run) -> Future[Outcome]:
        results = self.new_path("results")

        def step() -> Outcome:
            done = self.execute(program.result(), batch.path, results, run.order, run.shared_bytes, run.every)
            made = batch.split(results.read_bytes()) if done.returncode == 0 else {}
            return Outcome(done.returncode, done.stderr, made, done.stdout)

        return self.pool.submit(step)
