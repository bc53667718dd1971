"""How fast the audit page opens and scrolls in a real browser: images in the page, and rows of numbers.

    python benchmarks/studies/audit_page.py --out benchmarks/results/audit-page.json

Needs playwright and Debian's chromium. The page opens until its first card is there; then it is scrolled by 40 pixels
in each frame for 5 seconds. No GPU draws it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from machine import machine
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table
from torch.utils.data import TensorDataset

import difficulty_prune as dp
from difficulty_prune.support.files import write_atomically

OPTIONS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
REPEATS: Final = 3
SCROLL: Final = """seconds => new Promise(done => {
  const box = [...document.querySelectorAll('*')].find(e => e.scrollHeight > e.clientHeight + 2000
    && /auto|scroll/.test(getComputedStyle(e).overflowY)) || document.scrollingElement;
  const frames = []; const start = performance.now(); let last = start;
  const step = now => {
    frames.push(now - last); last = now; box.scrollTop += 40;
    if (now - start < 1000 * seconds) requestAnimationFrame(step); else done({frames, top: box.scrollTop});
  };
  requestAnimationFrame(step);
})"""


def images(size: int) -> Any:
    """Random images of 64 x 64, which compress worse than photographs."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 64, 64, 3), np.uint8)
    return [(pixels[i % 64], i % 3) for i in range(size)]


def numbers(size: int) -> Any:
    rng = np.random.default_rng(0)
    return TensorDataset(torch.from_numpy(rng.random((size, 3)).astype(np.float32)), torch.arange(size) % 3)


def measure(browser: Any, name: str, dataset: Any, folder: Path) -> dict[str, Any]:
    """Writes a page of the whole dataset, opens it several times and scrolls it."""
    rng, size = np.random.default_rng(1), len(dataset)
    labels = np.arange(size) % 3
    facts = {"labels": labels, "suggested": rng.integers(0, 3, size), "suggested_probability": rng.random(size)}
    run = dp.Run({"el2n": rng.random(size), "margin": rng.normal(size=size)}, architecture="mlp", seed=0, **facts)
    path = folder / "audit.html"
    start = time.perf_counter()
    dp.audit.write(run, dataset, path, most=size)
    row: dict[str, Any] = {"page": name, "write_s": time.perf_counter() - start, "megabytes": path.stat().st_size / 1e6}
    opened, frames = [], []
    for _ in range(REPEATS):
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        page = context.new_page()
        start = time.perf_counter()
        page.goto(path.as_uri())
        page.wait_for_selector(".card")
        opened.append(time.perf_counter() - start)
        found = page.evaluate(SCROLL, 5)
        assert found["top"] > 2000, "the page did not scroll"
        frames += found["frames"][1:]
        context.close()
    return {
        **row,
        "open_s": float(np.median(opened)),
        "open_slowest_s": max(opened),
        "frame_median_ms": float(np.median(frames)),
        "frame_95_percent_ms": float(np.percentile(frames, 95)),
        "frames_per_s": 1000 / float(np.mean(frames)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("chromium is not installed: apt-get install chromium")
    cases = (("5,000 images", images(5000)), ("100,000 rows of numbers", numbers(100_000)))
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=OPTIONS)
        rows = []
        for name, dataset in cases:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure(browser, name, dataset, Path(folder)))
        browser.close()
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.2f}" for value in row.values()))
    Console(width=160).print(table)
    if options.out:
        load = os.getloadavg()[0]
        write_atomically(options.out, json.dumps({"machine": machine(), "load": load, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
