"""Writes the catalogue of scores and the measured results of each score into docs/scores.md, between the marks.

python docs/catalogue.py            # writes
python docs/catalogue.py --check    # exit status 1 if the page is out of date
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from difficulty_prune.scores.catalogue import SCORES, Score

PAGE = Path(__file__).with_name("scores.md")
RESULTS = PAGE.parents[1] / "benchmarks" / "results" / "every-score.json"
NEEDS = {
    "loss": "the loss of each step: `tracker.update(index, logits, labels)`, or `update(index, loss=...)`",
    "logits": "the logits of each step: `tracker.update(index, logits, labels)`",
    "late logits": "the logits of the second half of the training: `early = tracker.snapshot()` when the first is "
    "over, and `tracker.finish(..., late=early)`, of a tracker of `aum`; or `study --scores late_aum`",
    "input gradients": "the gradient to the input: `tracker.watch` for `vog_loss`, `update(..., inputs=x)` for the "
    "others, or `dp.score_checkpoint` for all three",
    "parameter gradients": '`dp.score_checkpoint(model, loader, tracker, scores=("grand",))` at chosen epochs',
    "features": "a trained model: `dp.score_features(model, loader).scores()`",
    "runs": "several runs: `dp.RunSet.load(...).mean(name)`, or a published table by `with_table`",
}


def entry(score: Score) -> str:
    """One score as a list item."""
    direction = "high" if score.higher_is_harder else "low"
    lines = [
        f"**`{score.name}`**: {score.summary}.",
        f"Hard when {direction}; unit: {score.unit}; source: {score.source}.",
        f"*Trap:* {score.trap}",
    ]
    return "- " + "\n  ".join(lines)


def catalogue() -> str:
    """Every score, grouped by what it needs."""
    parts = []
    for needs, how in NEEDS.items():
        entries = "\n".join(entry(score) for score in SCORES.values() if score.needs == needs)
        parts.append(f"### From {needs}\n\nNeeds {how}.\n\n{entries}")
    return "\n\n".join(parts)


def table() -> str:
    """Every row of the study, the highest correlation first."""
    rows = json.loads(RESULTS.read_text())["rows"]
    lines = ["| score | Spearman with 1 - c_score | AUROC for wrong labels |", "|---|---|---|"]
    for name, row in sorted(rows.items(), key=lambda item: -item[1]["spearman"][0]):
        score, rest = re.fullmatch(r"(\w+)(.*)", name).groups()
        lines.append(f"| `{score}`{rest} | {row['spearman'][0]:+.2f} | {row['auroc'][0]:.2f} |")
    return "\n".join(lines)


def replaced(page: str, name: str, content: str) -> str:
    """The page with the text between the marks of that name replaced."""
    begin, end = f"<!-- {name}: written by docs/catalogue.py -->", f"<!-- end of the {name} -->"
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def main() -> int:
    page = replaced(replaced(PAGE.read_text(), "table", table()), "catalogue", catalogue())
    if "--check" in sys.argv:
        return int(page != PAGE.read_text())
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
