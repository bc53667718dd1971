"""What the page is made of: which examples, what is read of them, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_runs import Colours, colours, indexed_runs, runs_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from study_here import study_here

import difficulty_prune as dp
from difficulty_prune.audit.choose import choose
from difficulty_prune.audit.content import content_of
from difficulty_prune.audit.known import collect
from difficulty_prune.audit.render import script_json
from difficulty_prune.cli.main import main
from difficulty_prune.study.study_data import load_data


def run_of(size, labels=None, **facts):
    return dp.Run({"el2n": np.linspace(1, 0, size)}, architecture="mlp", seed=0, labels=labels, **facts)


class Counting(torch.utils.data.Dataset):
    """Texts, of which some cannot be read; counts which were asked for."""

    def __init__(self, size, broken=()):
        self.size, self.broken, self.asked = size, broken, []
        self.targets = [0] * size

    def __len__(self):
        return self.size

    def __getitem__(self, position):
        self.asked.append(position)
        if position in self.broken:
            raise OSError(f"truncated file {position}")
        return f"text {position}", 0


def test_it_reads_only_what_it_shows_and_says_what_it_could_not_read(tmp_path: Path) -> None:
    data = Counting(1000, broken=(0, 3))
    report = dp.audit.write(run_of(1000), data, tmp_path / "a.html", most=100, sampled=20)
    assert sorted(data.asked) == sorted(report.index.tolist())
    assert len(set(report.index.tolist())) == report.shown == 100
    assert report.index[:4].tolist() == [0, 1, 2, 3]  # the hardest of all, in order
    assert set(report.sampled.tolist()) <= set(report.index.tolist())
    assert (report.unreadable, report.examples) == (2, 1000)
    assert "2 could not be shown, the first is 0: cannot be read: OSError: truncated file 0" in str(report)
    assert "100 of 1,000 examples" in str(report)
    assert json.loads(json.dumps(report.to_dict()))["shown"] == 100
    with pytest.raises(ValueError, match="none of 2 samples can be shown; the first is 0: cannot be read: OSError"):
        dp.audit.write(run_of(2), Counting(2, broken=(0, 1)), tmp_path / "b.html")
    assert not (tmp_path / "b.html").exists()


def test_runs_that_never_presented_an_example_and_a_title_of_any_text(tmp_path: Path) -> None:
    never = dp.Run({"el2n": [np.nan, np.nan]}, architecture="mlp", seed=0)
    with pytest.raises(ValueError, match="none of the 2 examples of the runs has a el2n"):
        dp.audit.write(never, [("a", 0), ("b", 1)], tmp_path / "a.html")
    dp.audit.write(run_of(2), [("a", 0), ("b", 1)], tmp_path / "a.html", title="bad\udcff")
    assert "<title>bad\\udcff" in (tmp_path / "a.html").read_text()


def test_the_random_stratum_is_drawn_without_a_look_at_scores_and_by_the_seed(tmp_path: Path) -> None:
    train, runs, _ = indexed_runs(400)
    known = collect(runs, train, None, None)
    drawn = [choose(known, 200, 40, seed).sampled.tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    times = np.zeros(400)
    for seed in range(300, 600):
        times[choose(known, 400, 40, seed).sampled] += 1
    order = np.argsort(known.difficulty)
    assert (
        abs(times[order[:200]].mean() - times[order[200:]].mean()) < 2
    )  # 30 each, standard error of the difference 0.5


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 5))
def test_as_many_as_asked_for_each_once_hardest_first(size: int, most: int, sampled: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(size) < 0.2, np.nan, rng.integers(0, 5, size).astype(float))
    values[0] = 1.0
    labels = rng.integers(0, 3, size)
    runs = dp.RunSet([dp.Run({"el2n": values}, architecture="mlp", seed=0, labels=labels)])
    known = collect(runs, dp.IndexedDataset(list(zip(map(str, range(size)), labels.tolist(), strict=True))), None, None)
    shown = choose(known, most, sampled, seed)
    assert len(set(shown.rows.tolist())) == len(shown.rows) == min(size, most)
    assert set(shown.sampled.tolist()) <= set(shown.rows.tolist())
    assert len(shown.sampled) == min(sampled, most, int((~np.isnan(values)).sum()))
    hardness = np.nan_to_num(values[shown.rows], nan=-1.0)
    assert (np.diff(hardness) <= 0).all()


def test_runs_of_another_dataset_are_refused_and_versions_are_counted(tmp_path: Path) -> None:
    data, is_wrong = colours(60)
    train = dp.IndexedDataset(data)
    by_id, in_order = runs_of(data, is_wrong, ids=train.ids), runs_of(data, is_wrong)
    path = tmp_path / "a.html"
    with pytest.raises(ValueError, match="got 3 examples, expected 60 as in the runs"):
        dp.audit.write(in_order, [("a", 0)] * 3, path)
    other = dp.IndexedDataset([(f"t{i}", 0) for i in range(60)], ids=[f"t{i}" for i in range(60)])
    with pytest.raises(ValueError, match="none of 60 ids"):
        dp.audit.write(by_id, other, path)
    moved = Colours([name[6:] for name, _ in data.samples], np.roll(data.targets, 1), data.true)
    with pytest.raises(ValueError, match="labels differ from those of the runs"):
        dp.audit.write(in_order, moved, path)
    plan = dp.policies.Hardest(0.5)(torch.arange(50.0))
    with pytest.raises(ValueError, match="plan: it is of 50 examples, but the data has 60"):
        dp.audit.write(by_id, train, path, plan=plan)
    with pytest.raises(ValueError, match="score: got 'vog'; all runs have"):
        dp.audit.write(by_id, train, path, score="vog")
    with pytest.raises(ValueError, match="most: got 0, expected at least 1"):
        dp.audit.write(by_id, train, path, most=0)
    with pytest.raises(TypeError, match="runs: got str"):
        dp.audit.write("runs", train, path)  # type: ignore[arg-type]
    assert not path.exists()

    names = [name[6:] for name, _ in data.samples]
    today = Colours([*names[10:], "red/new.png"], [*data.targets[10:], 0], [*data.true[10:], 0])
    report = dp.audit.write(by_id, today, path)
    assert (report.shown, report.examples) == (50, 50)
    assert "50 of 51 examples match; 10 vanished" in str(report)
    assert sorted(report.index.tolist()) == list(range(50))  # positions of today


def test_classes_are_those_of_today_by_name(tmp_path: Path) -> None:
    data, is_wrong = colours(60)
    train = dp.IndexedDataset(data)
    runs = runs_of(data, is_wrong, ids=train.ids)
    today = Colours([n[6:] for n, _ in data.samples], np.array(data.targets) + 1, data.true, ("ape", *data.classes))
    then, now = (collect(runs, dp.IndexedDataset(one), None, None) for one in (data, today))
    assert (now.label == then.label + 1).all()
    assert (now.suggested == then.suggested + 1).all()
    assert (now.agreed == then.agreed).all()


def test_without_mean_probabilities_trained_models_suggest(tmp_path: Path) -> None:
    labels = [0, 1, 1]
    probabilities = np.array([[0.75, 0.25], [0.75, 0.25], [0.25, 0.75]], np.float32)
    run = run_of(3, labels, probabilities=probabilities)
    known = collect(dp.RunSet([run]), dp.IndexedDataset([("a", 0), ("b", 1), ("c", 1)]), None, None)
    assert known.suggested is not None
    assert known.suggested.tolist() == [0, 0, 1]
    assert (known.suggested_from, known.agreed.tolist(), known.asked.tolist()) == (
        "trained models",
        [1, 0, 1],
        [1, 1, 1],
    )
    plain = collect(dp.RunSet([run_of(3, labels)]), dp.IndexedDataset([("a", 0), ("b", 1), ("c", 1)]), None, None)
    assert plain.suggested is None


def test_an_example_that_came_in_place_of_another_is_not_shown_as_it(tmp_path: Path) -> None:
    class Swapping(Colours):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.loader = lambda path: path

        def __getitem__(self, position):
            position = 1 if position == 2 else position
            self.loader(self.samples[position][0])
            return Image.new("RGB", (4, 4)), self.targets[position]

    data = Swapping(["red/1.png", "red/2.png", "red/3.png"], [0, 0, 0], [0, 0, 0])
    report = dp.audit.write(run_of(3, [0, 0, 0], ids=dp.IndexedDataset(data).ids), data, tmp_path / "a.html")
    assert (report.unreadable, report.first_unreadable[:12]) == (1, "'red/3.png':")
    assert "the dataset returned its example 1 in place of 2" in report.first_unreadable


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        ((Image.new("L", (9, 9)), 0), "image"),
        ((torch.rand(3, 8, 8), 0), "image"),
        ((torch.randn(1, 8, 8), 0), "image"),
        ((np.zeros((8, 8, 3), np.uint8), 0), "image"),
        ((np.arange(64.0).reshape(8, 8), 0), "image"),
        ({"image": Image.new("RGBA", (9, 9)), "label": 1, "text": "no"}, "image"),
        ({"pixel_values": torch.rand(3, 8, 8), "labels": 1}, "image"),
        (("text", 0), "text"),
        (b"text", "text"),
        ({"text": "text", "source": "web", "label": 0}, "text"),
        ({"premise": "a", "hypothesis": "b", "label": 0}, "text"),
        ((torch.rand(5), 0), "row"),
        ((3.5, 0), "row"),
        (([1, 2, 3], 0), "row"),
        ({"height": 3.5, "name": "x", "age": 7, "label": 0}, "row"),
        ((object(), 0), "unreadable"),
        (({"a": object()}, 0), "unreadable"),
        ((torch.rand(2, 3, 8, 8), 0), "unreadable"),
    ],
)
def test_what_a_sample_is_decides_what_is_shown(sample, kind: str) -> None:
    content = content_of(sample, 64)
    assert content.kind == kind
    assert (content.image is not None) == (kind == "image")
    if kind == "image":
        assert content.image.mode == "RGB"


def test_images_are_made_smaller_and_keep_their_shape_and_colours() -> None:
    assert content_of(Image.new("RGB", (400, 100), (200, 0, 0)), 64).image.size == (64, 16)
    transparent = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    assert content_of(transparent, 64).image.getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.array([[0, 65535]], np.uint16))
    assert [content_of(deep, 64).image.getpixel((i, 0))[0] for i in (0, 1)] == [0, 255]
    half = torch.tensor([[[0.0, 0.5], [0.25, 0.25]]])  # of 0 to 1, not of the least to the most
    assert content_of(half, 64).image.getpixel((1, 0))[0] == 128


def test_sheets_of_a_page_take_the_place_of_those_before(tmp_path: Path) -> None:
    images = [(np.full((2, 2, 3), shade % 250, np.uint8), 0) for shade in range(5100)]
    (tmp_path / "a-images-of-mine").mkdir()
    first = dp.audit.write(run_of(5100), images, tmp_path / "a.html", most=6000)
    folders = sorted(tmp_path.glob("a-images-*"))
    assert (first.sheets, len(folders)) == (80, 2)
    dp.audit.write(run_of(5100), images[::-1], tmp_path / "a.html", most=6000)
    later = sorted(tmp_path.glob("a-images-*"))
    assert len(later) == 2
    assert later != folders
    assert tmp_path / "a-images-of-mine" in later
    with pytest.raises(ValueError, match="none of"):
        dp.audit.write(run_of(5100), Counting(5100, broken=range(5100)), tmp_path / "b.html", most=6000)
    assert sorted(path.name[:2] for path in tmp_path.iterdir()) == ["a-", "a-", "a."]


@given(st.text(), st.text())
def test_data_cannot_leave_its_script_element(key: str, value: str) -> None:
    text = script_json({key: [value]})
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {key: [value]}


def test_the_command_says_what_it_did_and_what_was_planted(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "study"
    arguments = ["--model", "mlp", "--runs", "1", "--epochs", "3", "--scores", "el2n", "--plant-wrong", "0.03"]
    printed = study_here("--out", str(folder), "--keep", *arguments)
    assert "43 of 1,437 training labels were made wrong on purpose" in printed
    planted = json.loads((folder / "summary.json").read_text())["planted"]
    assert len(planted["index"]) == 43
    assert all(a != b for a, b in zip(planted["true"], planted["given"], strict=True))
    page = tmp_path / "audit.html"
    assert main(["audit", str(folder), "--data", "digits", "-o", str(page), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["planted"]["number"] == 43
    assert facts["planted"]["among_twice_as_many"] > 25  # of a few at random there are 3
    wrong = set(planted["ids"])
    shown = load_data("digits").train.ids[facts["index"]]  # without those set aside for testing
    assert facts["set_aside"] == 360
    assert facts["planted"]["among_first"] == len(wrong & set(shown[:43].tolist()))
    assert page.stat().st_size == facts["bytes"]
    assert main(["audit", str(folder), "--data", "digits", "-o", str(page)]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert f"{page} shows 1,437 of 1,437 examples, sorted by the el2n of 1 run" in said
    assert main(["audit", str(folder), "--data", "digits", "-o", str(tmp_path / "a.txt")]) == 2
    assert "expected one of .html, .htm" in capsys.readouterr().err


def test_runs_over_several_versions_of_the_data_are_joined_when_asked(tmp_path: Path, capsys) -> None:
    for seed, size in enumerate((1797, 1790)):
        scores = {"el2n": np.random.default_rng(seed).random(size)}
        run = dp.Run(scores, architecture="mlp", seed=seed, ids=np.arange(size))
        run.save(tmp_path / "runs" / f"mlp-{seed}.safetensors")
    command = ["audit", str(tmp_path / "runs"), "--data", "digits", "-o", str(tmp_path / "a.html"), "--most", "20"]
    assert main(command) == 2
    assert "as does --join of the commands" in capsys.readouterr().err
    assert main([*command, "--join"]) == 0
    assert "shows 20 of 1,797 examples, sorted by the el2n of 2 runs" in capsys.readouterr().out
