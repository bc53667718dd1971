"""What pays at which share of wrong labels: the measurements behind `dp.advise`.

    python benchmarks/studies/advice.py --work WORK --out benchmarks/results/advice.json

A small network learns scikit-learn's handwritten digits (1,000 of them; 797 test it), of which a share has a wrong
label: the next digit but two, at random, but the same ones in every training. One training scores them, `label_issues`
estimates which labels are wrong, and `dp.compare` trains afresh with ten seeds on what each policy keeps. About 5
minutes on two cores; what is finished is kept in WORK.
"""

from __future__ import annotations

import argparse
import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import machine
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import difficulty_prune as dp
from difficulty_prune.audit.label_issues import label_issues
from difficulty_prune.policies import Easiest, Hardest, Random, SoftPrune, Stratified, WithoutWrong
from difficulty_prune.support.files import write_atomically

TRAIN, EPOCHS, BATCH, SEEDS = 1000, 15, 50, 10
SHARES, KEEP = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4), (0.5, 0.8)


def data(share: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images and labels of training and test, and which labels are wrong."""
    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:TRAIN], order[TRAIN:]
    wrong = torch.randperm(TRAIN, generator=torch.Generator().manual_seed(1)) < round(share * TRAIN)
    given = torch.where(wrong, (labels[train] + 3) % 10, labels[train])
    return images[train], given, images[test], labels[test], wrong


def train(
    sampler: dp.PruneSampler, seed: int, share: float, tracker: dp.DifficultyTracker | None = None
) -> dict[str, float]:
    """Trains a new network, and says how often it is right about the test images."""
    images, labels, test, truth, _ = data(share)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    steps = sampler.total_steps(BATCH, EPOCHS)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps)
    loader = DataLoader(dp.IndexedDataset(TensorDataset(images, labels)), BATCH, sampler=sampler)
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for x, y, index in loader:
            logits = model(x)
            if tracker is not None:
                tracker.update(index, logits, y)
            loss = F.cross_entropy(logits, y, reduction="none")
            optimizer.zero_grad()
            (loss * sampler.weight(index)).mean().backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return {"accuracy": float((model(test).argmax(1) == truth).float().mean())}


def score(share: float) -> dp.Run:
    """The scores of one training on all."""
    tracker = dp.DifficultyTracker(TRAIN, scores=("el2n", "margin"), mean_probabilities=True, num_classes=10)
    train(dp.PruneSampler(Random(1.0), torch.zeros(TRAIN)), 1000, share, tracker)
    return tracker.finish(architecture="mlp", seed=1000, labels=data(share)[1])


def study(share: float, work: Path) -> dict[str, Any]:
    """What pays at this share of wrong labels."""
    run = score(share)
    runs = dp.RunSet([run])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of most labels being wrong
        issues = label_issues(runs)
    wrong = data(share)[4]
    policies = {}
    for keep in KEEP:
        suspects = issues.index[: TRAIN - round(keep * TRAIN)]
        policies[f"hardest {keep:.0%}"] = Hardest(keep)
        policies[f"easiest {keep:.0%}"] = Easiest(keep)
        policies[f"stratified {keep:.0%}"] = Stratified(keep)
        policies[f"soft {keep:.0%}"] = SoftPrune(keep)
        policies[f"without wrong {keep:.0%}"] = WithoutWrong(Random(keep), wrong=suspects)
    found = dp.compare(
        partial(train, share=share), policies, runs.difficulty("el2n"), seeds=SEEDS, folder=work / f"wrong-{share:g}"
    )
    print(f"\n{share:.0%} wrong labels, {issues.number} estimated\n{found}", flush=True)
    return {
        "wrong": share,
        "estimated": issues.number,
        "of these wrong": int(wrong[issues.index].sum()),
        "accuracy": {row.names[0]: [round(value, 4) for value in row.results["accuracy"]] for row in found.rows},
        "against": {
            row.names[0]: {kind: say(said) for kind, said in row.verdicts["accuracy"].items()} for row in found.policies
        },
    }


def say(found: dp.Verdict) -> dict[str, Any]:
    """A verdict in points."""
    low, high = found.interval or (float("nan"), float("nan"))
    return {
        "word": found.word,
        "points": round(100 * found.difference, 2),
        "low": round(100 * low, 2),
        "high": round(100 * high, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = [study(share, options.work) for share in SHARES]
    write_atomically(options.out, json.dumps({"machine": machine(), "seeds": SEEDS, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
