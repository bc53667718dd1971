"""Writes the catalogue of scores into docs/scores.md, between the two marks.

python docs/catalogue.py            # writes
python docs/catalogue.py --check    # exit status 1 if the page is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from difficulty_prune import SCORES, Score

PAGE = Path(__file__).with_name("scores.md")
BEGIN, END = "<!-- catalogue: written by docs/catalogue.py -->", "<!-- end of the catalogue -->"
NEEDS = {
    "loss": "the loss of each step: `tracker.update(index, logits, labels)`, or `update(index, loss=...)`",
    "logits": "the logits of each step: `tracker.update(index, logits, labels)`",
    "input gradients": "the gradient to the input: `tracker.watch` for `vog_loss`, `update(..., inputs=x)` for the "
    "others, or `dp.score_checkpoint` for all",
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


def main() -> int:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page = f"{before}{BEGIN}\n\n{catalogue()}\n\n{END}{after}"
    if "--check" in sys.argv:
        return int(page != PAGE.read_text())
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
