"""The processor as the files of Linux tell of it; the files are made here."""

from __future__ import annotations

from pathlib import Path

import pytest

from difficulty_prune.support.processor import LEVELS, Processor, read_processor

FLAGS = {
    "x86-64": "fpu sse2",
    "x86-64-v3": " ".join(LEVELS["x86-64-v3"]),
    "x86-64-v4": " ".join((*LEVELS["x86-64-v3"], *LEVELS["x86-64-v4"])),
}
VERSION_1 = {"quota": 300_000, "period": 100_000}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def read(folder: Path, proc: dict[str, str], cgroup: dict[str, str]) -> Processor:
    return read_processor(write(folder / "proc", proc), write(folder / "cgroup", cgroup))


def cpuinfo(cores: int, flags: str = "fpu") -> str:
    return "\n".join(f"processor\t: {i}\nmodel name\t: Fast 3000\nflags\t\t: {flags}\n" for i in range(cores))


@pytest.mark.parametrize("level", FLAGS)
def test_name_cores_affinity_load_and_level(level: str, tmp_path: Path) -> None:
    proc = {
        "cpuinfo": cpuinfo(8, FLAGS[level]),
        "self/status": "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-1,5\n",
        "loadavg": "1.25 2.00 3.00 1/100 4242\n",
    }
    assert read(tmp_path, proc, {}) == Processor("Fast 3000", 8, 3, None, 1.25, level)


def test_a_level_needs_all_its_instructions(tmp_path: Path) -> None:
    without_fma = FLAGS["x86-64-v4"].replace("fma", "")
    assert read(tmp_path, {"cpuinfo": cpuinfo(1, without_fma)}, {}).level == "x86-64"


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000\n", "a/cpu.max": "200000 100000\n"}, 0.5),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
        ("0::/a\n", {"a/cpu.max": "unreadable\n"}, None),
        ("4:cpu,cpuacct:/a\n0::/\n", {f"cpu,cpuacct/a/cpu.cfs_{n}_us": f"{v}" for n, v in VERSION_1.items()}, 3.0),
        ("1:cpu:/\n", {f"cpu/cpu.cfs_{n}_us": f"{v}" for n, v in {**VERSION_1, "quota": -1}.items()}, None),
        ("", {}, None),
    ],
)
def test_the_quota_is_the_smallest_of_the_groups_around(
    groups: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    proc = {"cpuinfo": cpuinfo(4), "self/status": "Cpus_allowed_list: 0-3\n", "self/cgroup": groups}
    found = read(tmp_path, proc, files)
    assert found.quota == quota
    assert found.usable == (4 if quota is None else max(1, -int(-quota // 1)))


def test_without_these_files_python_is_asked(tmp_path: Path) -> None:
    found = read(tmp_path, {}, {})
    assert found.cores == found.allowed >= 1
    assert (found.quota, found.load) == (None, None)


def test_more_time_than_cores_is_of_no_use() -> None:
    assert Processor("x", 64, 2, 8.0, None, "x86-64-v4").usable == 2
    assert Processor("x", 64, 64, 0.25, None, "x86-64-v4").usable == 1
