"""The audit page in a real browser."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audit_runs import colours, indexed_runs, runs_of
from browser import Watched, browser, watched

import difficulty_prune as dp


@pytest.fixture(scope="module")
def chromium():
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of 120 examples with a plan, and what it was made of."""
    train, runs, is_wrong = indexed_runs()
    path = tmp_path_factory.mktemp("audit") / "audit.html"
    plan = dp.policies.Easiest(0.75)(torch.from_numpy(runs.difficulty("el2n")))
    report = dp.audit.write(runs, train, path, plan=plan, sampled=30)
    return path, train, runs, is_wrong, plan, report


def download(of: Any, button: str, folder: Path) -> Path:
    with of.page.expect_download() as waiting:
        of.page.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_keys_decide_and_what_was_decided_is_a_table(chromium, page, tmp_path: Path) -> None:
    path, train, runs, *_ = page
    hardest = train.ids[np.argsort(-runs.difficulty("el2n"), kind="stable")]
    suggested = runs.suggested()
    with watched(chromium) as tab:
        tab.open(path)
        assert tab.names()[:3] == hardest[:3].tolist()
        tab.press("acx")  # each goes on to the next
        tab.press("ju")  # leaves out one
        tab.press("kk3")
        assert re.search("(wrong → blue|blue/.*: keep)$", tab.text("#said"))
        found = dp.Decisions.load(download(tab, "#export-csv", tmp_path))
        same = dp.Decisions.load(download(tab, "#export-json", tmp_path))
        assert [(e.id, e.index, e.decision) for e in same] == [(e.id, e.index, e.decision) for e in found]
        assert same.corrections(train) == found.corrections(train)
        header = (tmp_path / "decisions.csv").read_text().splitlines()[0]
        assert header == "id,index,decision,label,weight,note"
        order = [train.ids.tolist().index(name) for name in tab.names()[:5]]
        said = {entry.index: (entry.id, entry.decision, entry.label) for entry in found}
        first, second, third, fourth, fifth = order
        assert said[first] == (train.ids[first], "wrong", train.class_names[suggested[first]])
        assert said[second][1:] == ("keep", None)
        assert said[third][1:] == ("drop", None)
        assert fourth in said  # a key goes to the card with the cursor, three back and one on
        assert said[fourth][1:] == (("keep", None) if train.labels[fourth] == 2 else ("wrong", "blue"))
        assert said[fifth][1:] == ("unsure", None)
        assert found.corrections(train)[first] == suggested[first]


def test_keys_decide_in_the_opened_example_too(chromium, page) -> None:
    path, *_ = page
    with watched(chromium) as tab:
        tab.open(path)
        names = tab.names()
        tab.page.keyboard.press("Enter")
        assert tab.text("#detail-name") == names[0]
        tab.press("x")  # decides, and goes on to the next
        assert tab.text("#detail-said") == f"{names[0]}: drop"
        assert tab.text("#detail-name") == names[1]
        assert tab.page.locator("#detail-state").is_hidden()
        tab.press("jk")
        assert tab.text("#detail-name") == names[1]
        tab.press("zc")  # takes it back, which shows the first example again
        assert tab.text("#detail-said") == f"{names[0]}: keep"
        tab.press("k")
        assert (tab.text("#detail-name"), tab.text("#detail-state")) == (names[0], "keep")
        tab.press("l")  # the choice of a class lies above
        tab.page.select_option("#choose-class", label="blue")
        tab.press("x")  # which is a letter there
        tab.page.keyboard.press("Enter")
        assert tab.text("#detail-name") == names[1]
        tab.page.fill("#detail-note", "")
        tab.page.focus("#detail-note")
        tab.press("wax")  # letters of a note
        assert tab.page.input_value("#detail-note") == "wax"
        tab.page.keyboard.press("Escape")
        assert tab.page.locator("#detail").is_hidden()
        assert tab.page.locator(".card").nth(1).get_attribute("aria-current") == "true"
        states = tab.page.locator(".card .state").all_inner_texts()
        assert states[0] in ("keep", "wrong → blue")
        assert states[1] == "unsure", "what has a note and no decision"


def test_undo_reload_filter_and_import(chromium, page, tmp_path: Path) -> None:
    path, train, *_ = page
    with watched(chromium) as tab:
        tab.open(path)
        tab.press("xxu")
        tab.press("z")
        assert tab.text("#said").startswith("Undone")
        tab.page.reload()
        tab.page.wait_for_selector(".card")
        assert tab.page.locator(".card.is-drop").count() == 2
        dropped = tab.page.locator(".card.is-drop .name").all_inner_texts()
        tab.page.select_option("#decision", "drop")
        assert tab.names() == dropped
        assert "decision=drop" in tab.page.url
        tab.page.select_option("#decision", "open")
        before = tab.names()
        tab.press("x")  # it leaves the list, and the next one takes its place
        assert tab.names()[:3] == before[1:4]
        (tmp_path / "more.json").write_text(
            json.dumps(
                [{"index": 7, "decision": "wrong", "label": 1, "weight": 0.5}, {"id": "gone", "decision": "keep"}]
            )
        )
        tab.page.set_input_files("#import", tmp_path / "more.json")
        tab.page.wait_for_selector("#said:has-text('2 decisions imported')", state="attached")
        assert "1 of examples that are not on this page" in tab.text("#said")
        found = {entry.name: entry for entry in dp.Decisions.load(download(tab, "#export-json", tmp_path))}
        assert len(found) == 5
        assert (found[f"id {train.ids[7]}"].label, found[f"id {train.ids[7]}"].weight) == (1, 0.5)
        assert found["id gone"].decision == "keep"
        (tmp_path / "bad.csv").write_text("id,decision,label\na,keep,\nb,perhaps,\n")
        tab.page.set_input_files("#import", tmp_path / "bad.csv")
        tab.page.wait_for_selector("#said:has-text('not imported')", state="attached")
        assert "line 3: decision is “perhaps”" in tab.text("#said")
        tab.press("z")  # takes the whole import back
        assert len(dp.Decisions.load(download(tab, "#export-json", tmp_path))) == 3


def test_views_show_what_they_say_and_stand_in_the_address(chromium, page) -> None:
    path, train, runs, _, plan, report = page
    difficulty, suggested = runs.difficulty("el2n"), runs.suggested()

    def count(tab: Watched) -> int:
        return int(re.match(r"[\d,]+", tab.text("#status"))[0].replace(",", ""))

    with watched(chromium) as tab:
        tab.open(path, "view=dropped")
        assert count(tab) == len(train) - len(plan)
        dropped = sorted(set(range(len(train))) - set(plan.index.tolist()), key=lambda i: (-difficulty[i], i))
        assert tab.names() == train.ids[dropped][: len(tab.names())].tolist()
        tab.open(path, "view=classes")
        assert len({name.split("/")[0] for name in tab.names()[:3]}) == 3
        tab.open(path, "view=random")
        assert tab.names() == train.ids[report.sampled][: len(tab.names())].tolist()
        tab.open(path, "sort=el2n&order=easy&class=1&from=10&to=90")
        wanted = np.argsort(difficulty, kind="stable")
        percentile = dp.convert.ScoreTable.of(runs)["el2n_percentile"]
        wanted = [i for i in wanted if train.labels[i] == 1 and 10 <= percentile[i] <= 90]
        assert count(tab) == len(wanted)
        assert tab.names() == train.ids[wanted][: len(tab.names())].tolist()
        tab.open(path, "view=architectures")
        ranks = [
            dp.convert.score_table.percentile(runs.where(architecture=a).difficulty("el2n")) for a in ("cnn", "vit")
        ]
        most = np.argmax(np.float32(np.abs(ranks[0] - ranks[1])))
        assert tab.names()[0] == train.ids[most]
        tab.open(path, "view=confusion")
        assert count(tab) == int((suggested != train.labels).sum())
        given = train.labels[np.flatnonzero(suggested != train.labels)[0]]
        cell = int(((train.labels == given) & (suggested == (given + 2) % 3)).sum())
        tab.page.click(f'.confusion button[aria-label^="given {train.class_names[given]}, suggested"]:not(.same *)')
        assert count(tab) == cell
        assert f"class={given}" in tab.page.url
        tab.open(path, "view=map")
        frame = tab.page.locator("canvas").bounding_box()
        tab.page.mouse.move(frame["x"] + 60, frame["y"] + frame["height"] / 2)
        tab.page.mouse.down()
        tab.page.mouse.move(frame["x"] + frame["width"] - 14, frame["y"] + frame["height"] - 40)
        tab.page.mouse.up()
        low, high = map(float, re.search(r"box=([^&]*)", tab.page.url)[1].replace("%2C", ",").split(",")[2:])
        confidence = runs.mean("confidence").astype(np.float32)
        assert 0 < count(tab) < len(train)
        assert abs(count(tab) - int(((confidence >= low) & (confidence <= high)).sum())) <= 2


def test_when_to_stop_is_what_python_says(chromium, page) -> None:
    path, train, runs, is_wrong, _, report = page
    drawn = report.sampled[:12]
    decided = np.union1d(np.argsort(-runs.difficulty("el2n"), kind="stable")[:15], drawn)
    entries = [[f"id {train.ids[i]}", {"decision": "wrong" if is_wrong[i] else "keep", "label": None}] for i in decided]
    looked = [i for i in report.sampled[: next(k for k, i in enumerate(report.sampled) if i not in decided)]]
    left = dp.audit.remaining(runs.difficulty("el2n"), decided, is_wrong[decided], sampled=np.isin(decided, looked))
    with watched(chromium) as tab:
        tab.open(path)
        assert "Decide on 20 examples or more" in tab.text("#stop-left")
        tab.press("x")
        key = tab.page.evaluate("Object.keys(localStorage)[0]")
        tab.page.evaluate("([key, text]) => localStorage.setItem(key, text)", [key, json.dumps(entries)])
        tab.page.reload()
        tab.page.wait_for_selector(".card")
        low, high = int(np.floor(left.interval[0])), int(np.ceil(left.interval[1]))
        number = round(left.value)
        plural = "label is" if number == 1 else "labels are"
        assert tab.text("#stop-left") == f"About {number} wrong {plural} left (95 %: {low} to {high})."
        assert tab.text("#stop-next").startswith(f"The next 50 will hold about {round(left.next(50))}.")


def test_names_and_texts_stay_what_they_are_and_run_nothing(chromium, tmp_path: Path) -> None:
    evil = [
        "</script><script>document.title='evil'</script>.png",
        "<img src=x onerror=document.title='evil'>.png",
        "\"quoted\", 'twice'\nand broken.png",
        "right\u202egnp.txt",
        '=1+1,"x".png',
        "\ud800 alone.png",
    ]
    samples = [{"text": f"{name} <b>bold</b> {{{{ 7 * 7 }}}}", "id": name, "label": 0} for name in evil]
    train = dp.IndexedDataset(samples, key="id")
    train.collect_ids()
    facts = {"ids": evil, "labels": [0] * 6, "class_names": ["<i>class</i>"]}
    run = dp.Run({"el2n": np.linspace(1, 0, 6)}, architecture="<u>net</u>", seed=0, **facts)
    dp.audit.write(run, train, tmp_path / "audit.html", title="</title><script>alert(1)</script>", sampled=6)
    with watched(chromium) as tab:
        tab.open(tmp_path / "audit.html")
        assert tab.page.title() == "</title><script>alert(1)</script>"
        assert tab.names()[0] == evil[0]
        assert "right\\u202egnp.txt" in tab.names()
        assert "<b>bold</b> {{ 7 * 7 }}" in tab.text(".card .text")
        assert tab.page.locator(".card b, .card i, .card u, .card img").count() == 0
        tab.press("cccccc")
        for button in ("#export-csv", "#export-json"):
            found = dp.Decisions.load(download(tab, button, tmp_path))
            assert [entry.index for entry in found] == list(range(6))
            wanted = [*evil[:5], None] if button == "#export-csv" else evil
            assert [entry.id for entry in found] == wanted
            assert not found.check(train).missing


def test_the_policy_shuts_out_what_is_added(chromium, page, tmp_path: Path) -> None:
    html = page[0].read_text()
    added = "<script>document.title = 'evil'</script><img src='https://example.org/x.png'>"
    (tmp_path / "more.html").write_text(html.replace("</body>", f"{added}</body>"))
    context = chromium.new_context()
    tab = context.new_page()
    sent = []
    tab.on("response", lambda response: sent.append(response.url))
    tab.goto((tmp_path / "more.html").as_uri())
    tab.wait_for_selector(".card")
    assert tab.title() == "audit.html"
    assert not [url for url in sent if "example.org" in url]
    asked = "fetch('https://example.org').then(() => 'ran', () => 'shut')"
    assert tab.evaluate(asked) == "shut"
    context.close()


def test_images_beside_the_page_are_loaded_for_what_is_shown(chromium, tmp_path: Path) -> None:
    data, is_wrong = colours(5200)
    runs = runs_of(data, is_wrong, number=1)
    dataset = [(np.full((4, 4, 3), 40 * label, np.uint8), label) for label in data.targets]
    report = dp.audit.write(runs, dataset, tmp_path / "it's 100%.html", most=6000)
    assert report.sheets == -(-5200 // 64)
    with watched(chromium) as tab:
        tab.open(tmp_path / "it's 100%.html")
        tab.page.wait_for_load_state("networkidle")
        sheets = [url for url in tab.requests if url.endswith(".webp")]
        assert 0 < len(sheets) < 40
        shot = tab.page.locator(".card .tile").first.screenshot()
        assert len(set(np.asarray(_open(shot)).reshape(-1, 3)[:, 0].tolist()) & {0, 40, 80}) == 1


def _open(png: bytes) -> Any:
    import io

    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("RGB")


def test_a_hundred_thousand_rows(chromium, tmp_path: Path) -> None:
    size = 100_000
    rng = np.random.default_rng(0)
    values = rng.random((size, 3)).astype(np.float32)
    labels = rng.integers(0, 3, size)
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(values), torch.from_numpy(labels))
    run = dp.Run({"el2n": rng.random(size)}, architecture="mlp", seed=0, labels=labels)
    report = dp.audit.write(run, dataset, tmp_path / "audit.html", most=size)
    with watched(chromium) as tab:
        tab.open(tmp_path / "audit.html")
        assert tab.page.locator(".card").count() < 100
        tab.press("c")
        tab.page.keyboard.press("End")
        assert tab.names()[-1] == f"example {report.index[-1]}"
        assert tab.page.locator(".card").count() < 100
        assert "[0]" in tab.text(".card .values")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_for_people_who_cannot_see_the_page(chromium, page, scheme: str) -> None:
    if find_spec("axe_core_python") is None:
        pytest.skip("axe-core-python is not installed")
    axe = Path(find_spec("axe_core_python").submodule_search_locations[0], "axe.min.js").read_text()
    size = {"width": 390, "height": 844} if scheme == "dark" else {"width": 1280, "height": 800}
    with watched(chromium, color_scheme=scheme, viewport=size, bypass_csp=True) as tab:
        for state in ("", "view=confusion", "view=map"):
            tab.open(page[0], state)
            tab.press("" if state else "axcuw")
            for key in ("", "?", "Enter") if not state else ("",):
                if key:
                    tab.page.keyboard.press(key)
                tab.page.evaluate(axe)
                found = tab.page.evaluate("axe.run()")
                assert len(found["passes"]) > 10
                bad = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
                assert [(one["id"], one["nodes"][0]["html"]) for one in bad] == []
                tab.page.keyboard.press("Escape")
