"""The scripts of the page without a page: the estimate is that of Python, and a linter has nothing to say."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from places import ROOT

import difficulty_prune as dp
from difficulty_prune.audit.render import HERE


def review(seed: int):
    """Difficulties, some of them unknown or alike, and decisions on the hardest and on some at random."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(5, 1500))
    bad = rng.random(size) < rng.uniform(0, 0.5)
    difficulty = rng.normal(size=size) + rng.uniform(-0.5, 3) * bad
    if seed % 3 == 0:
        difficulty = difficulty.round(1)
    if seed % 4 == 0:
        difficulty[rng.random(size) < 0.1] = np.nan
    order = np.argsort(-np.nan_to_num(difficulty, nan=-9))
    top = order[: int(rng.integers(0, size)) // (1 + seed % 5)]
    picked = rng.permutation(size)[: int(rng.integers(1, max(2, size // 4)))]
    index = rng.permutation(np.union1d(top, picked))
    return difficulty, index, bad[index], np.isin(index, picked)


def test_the_page_estimates_what_python_estimates() -> None:
    reviews = [review(seed) for seed in range(40)]
    given = [[[None if np.isnan(x) else x for x in d.tolist()], *(a.tolist() for a in more)] for d, *more in reviews]
    script = (HERE / "remaining.js").read_text() + (
        "\nconst all = (reviews) => reviews.map(([d, place, wrong, sampled]) => {"
        "const found = remaining(Float64Array.from(d, (x) => (x === null ? NaN : x)), place, wrong, sampled);"
        "return found && [found.value, ...found.interval, found.next(50), found.reached]; });"
    )
    with browser() as chromium:
        page = chromium.new_page()
        found = page.evaluate(f"(reviews) => {{ {script} return all(reviews); }}", given)
    refused = 0
    for (difficulty, index, wrong, sampled), numbers in zip(reviews, found, strict=True):
        try:
            left = dp.audit.remaining(difficulty, index, wrong, sampled=sampled)
        except ValueError:
            refused += 1
            assert numbers is None
            continue
        assert numbers[:4] == pytest.approx([left.value, *left.interval, left.next(50)], rel=1e-6, abs=1e-6)
        assert numbers[4] is left.reached
    assert refused < 10


def test_a_linter_has_nothing_to_say(tmp_path: Path) -> None:
    eslint = shutil.which("eslint")
    if eslint is None:
        pytest.skip("eslint is not installed (npm install --global eslint)")
    command = [eslint, "--config", str(ROOT / "eslint.config.mjs"), "--format", "json", str(HERE)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert [one["messages"] for one in json.loads(result.stdout)] == [[]] * len(list(HERE.glob("*.js")))
