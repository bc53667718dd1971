"""Scores as Parquet, CSV and npz: they come back as they went, and malformed lines are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.convert.score_table import percentile

NAN = float("nan")
FORMATS = ("csv", "npz", "parquet")
WRITE = {"csv": dp.convert.to_csv, "npz": dp.convert.to_npz, "parquet": dp.convert.to_parquet}
READ = {"csv": dp.convert.from_csv, "npz": dp.convert.from_npz, "parquet": dp.convert.from_parquet}


@pytest.fixture(params=FORMATS)
def suffix(request) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return request.param


def runs(ids=("a,1", 'b"2', "c\n3", "d 4"), number: int = 2) -> dp.RunSet:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), size=(number, 4)).astype(np.float32)
    p[:, 3] = NAN
    score = rng.normal(size=(number, 4))
    score[:, 3] = NAN
    facts = {"labels": [0, 2, 1, 1], "ids": list(ids), "class_names": ["x", "y", "z"]}
    return dp.RunSet(
        dp.Run({"aum": score[s], "el2n": score[s] ** 2}, architecture="a", seed=s, mean_probabilities=p[s], **facts)
        for s in range(number)
    )


def equal(a: dp.convert.ScoreTable, b: dp.convert.ScoreTable) -> None:
    assert a.columns == b.columns
    assert len(a) == len(b)
    for name in a.columns:
        assert a[name].dtype == b[name].dtype, name
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("ids", [("a,1", 'b"2', "c\n3", "d \r"), (7, 3, -1, 2**62), ("é", "01", "日本", " x")])
def test_what_goes_out_comes_back(tmp_path: Path, suffix: str, ids) -> None:
    given = dp.convert.ScoreTable.of(runs(ids), paths=["p/1", "p/2", "p/3", "p/4"])
    WRITE[suffix](runs(ids), tmp_path / f"t.{suffix}", paths=["p/1", "p/2", "p/3", "p/4"])
    found = READ[suffix](tmp_path / f"t.{suffix}")
    equal(found, given)
    assert [p.name for p in tmp_path.iterdir()] == [f"t.{suffix}"]
    WRITE[suffix](found, tmp_path / f"again.{suffix}")
    equal(READ[suffix](tmp_path / f"again.{suffix}"), given)


def test_one_run_comes_back_as_a_run(tmp_path: Path, suffix: str) -> None:
    run = runs(number=1)[0]
    dp.convert.write(run, tmp_path / f"t.{suffix}")
    found = dp.convert.read(tmp_path / f"t.{suffix}", architecture="a", seed=7, epochs=3)
    for name in run.scores:
        np.testing.assert_array_equal(found.scores[name], run.scores[name])
    for name in ("labels", "ids", "suggested"):
        assert found.read(name).tolist() == run.read(name).tolist()
    np.testing.assert_array_equal(found.suggested_probability, run.suggested_probability)
    assert (found.seed, found.metadata["epochs"]) == (7, 3)


def test_the_columns_are_what_a_loop_over_the_examples_finds() -> None:
    together, table = runs(number=3), dp.convert.ScoreTable.of(runs(number=3))
    p = np.stack([run.mean_probabilities for run in together]).astype(float).mean(0)
    for i in range(4):
        values = [float(run.scores["aum"][i]) for run in together]
        if i == 3:
            assert np.isnan(table["aum"][i])
            assert np.isnan(table["aum_percentile"][i])
            assert (table["aum_runs"][i], table["suggested"][i]) == (0, -1)
            continue
        assert table["aum"][i] == pytest.approx(np.mean(values))
        assert table["aum_standard_error"][i] == pytest.approx(np.std(values, ddof=1) / 3**0.5)
        easier = sum(together.difficulty("aum")[j] < together.difficulty("aum")[i] for j in range(3))
        assert table["aum_percentile"][i] == pytest.approx(100 * (easier + 0.5) / 3)
        assert table["suggested"][i] == p[i].argmax()
        assert table["suggested_probability"][i] == pytest.approx(p[i].max())
        assert table["label_quality"][i] == pytest.approx(p[i, together.labels[i]])


def test_votes_where_no_run_keeps_all_probabilities() -> None:
    facts = {"architecture": "a", "seed": 0}
    first = dp.Run({"aum": [0, 1]}, suggested=[2, -1], suggested_probability=[0.5, NAN], **facts)
    second = dp.Run({"aum": [1, 1]}, suggested=[1, -1], suggested_probability=[0.25, NAN], **facts)
    table = dp.convert.ScoreTable.of(dp.RunSet([first, second]))
    assert table["suggested"].tolist() == [2, -1]
    np.testing.assert_array_equal(table["suggested_probability"], [0.25, NAN])
    assert "label_quality" not in table


def test_a_chosen_score_and_one_of_many_runs(tmp_path: Path) -> None:
    facts = {"architecture": "a", "labels": [0, 1]}
    each = [dp.Run({"el2n": [0.5, 1]}, seed=s, predictions=[0, s], scale=s, **facts) for s in range(2)]
    table = dp.convert.ScoreTable.of(dp.RunSet(each), scores=["model_accuracy"])
    assert table["model_accuracy"].tolist() == [1, 0.5]
    assert table["model_accuracy_runs"].tolist() == [2, 2]
    assert table["model_accuracy_percentile"].tolist() == [25, 75]
    with pytest.raises(ValueError, match="no score 'el3n'"):
        dp.convert.ScoreTable.of(dp.RunSet(each), scores=["el3n"])


@given(st.lists(st.one_of(st.just(NAN), st.integers(-3, 3).map(float)), max_size=12))
def test_percentiles_are_ranks_by_counting(values) -> None:
    known = [v for v in values if v == v]
    for v, found in zip(values, percentile(np.array(values)), strict=True):
        if v != v:
            assert np.isnan(found)
        else:
            below, same = sum(k < v for k in known), sum(k == v for k in known)
            assert found == pytest.approx(100 * (below + same / 2) / len(known))


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.one_of(st.just(NAN), st.floats(-1e100, 1e100))),
        min_size=1,
        unique_by=lambda row: row[0],
    ),
    st.sampled_from(("csv", "npz", "parquet")),
)
def test_any_ids_and_numbers_come_back(tmp_path_factory, rows, suffix) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    if suffix == "npz" and any(name.endswith("\0") for name, _ in rows):
        return  # refused, see below
    run = dp.Run({"aum": [v for _, v in rows]}, architecture="a", seed=0, ids=[name for name, _ in rows])
    path = tmp_path_factory.mktemp("t") / f"t.{suffix}"
    WRITE[suffix](run, path)
    found = READ[suffix](path)
    assert list(map(str, found["id"].tolist())) == [name for name, _ in rows]
    np.testing.assert_array_equal(found["aum"], run.scores["aum"])


def test_unknown_columns_are_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("index,aum,split\n1,0.5,train\n0,,test\n")
    table = dp.convert.from_csv(tmp_path / "t.csv")
    assert table["split"].tolist() == ["train", "test"]
    np.testing.assert_array_equal(table.to_run().scores["aum"], [NAN, 0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("index,aum\n0,1\n1,high\n", "line 3: aum: got 'high', expected a number, or nothing"),
        ("index,aum\n0,1\n\n1.5,2\n", "line 4: index: got '1.5', expected a whole number"),
        ("index,aum\n,1\n", "line 2: index: got '', expected a whole number"),
        ("index,label,aum\n0,99999999999999999999,1\n", "line 2: label: got '9{20}'"),
        ("index,aum\n0,1,2\n", "line 2 has 3 cells, expected 2"),
        ("index,aum\n0,1\n0,1\n", "index 0 is there more than once"),
        ("id,aum\na,1\nb,1\na,1\n", "id a is there more than once"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(tmp_path: Path, text, message) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        dp.convert.from_csv(tmp_path / "t.csv")
    assert str(tmp_path / "t.csv") in str(refusal.value)


def test_a_table_of_some_examples_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("index,aum\n0,1\n2,1\n")
    with pytest.raises(ValueError, match=r"2 rows, but none or several of index 1"):
        dp.convert.read(tmp_path / "t.csv")
    (tmp_path / "u.csv").write_text("index,split\n0,1\n")
    with pytest.raises(ValueError, match="index, split, none of which is a score"):
        dp.convert.read(tmp_path / "u.csv")


@pytest.mark.parametrize("name", ["t.npz", "t.parquet"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"PK\x03\x04" + bytes(60)])
def test_garbage_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: not a"):
        dp.convert.read(tmp_path / name)


def test_npz_refuses_what_it_cannot_hold_and_what_is_no_table(tmp_path: Path) -> None:
    run = dp.Run({"aum": [1.0]}, architecture="a", seed=0, ids=["a\0"])
    with pytest.raises(ValueError, match=r"id 'a\\x00' ends in a zero"):
        dp.convert.to_npz(run, tmp_path / "t.npz")
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "m.npz", aum=np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"column 'aum' is \(2, 2\)"):
        dp.convert.from_npz(tmp_path / "m.npz")
    np.savez(tmp_path / "l.npz", aum=np.zeros(2), el2n=np.zeros(3))
    with pytest.raises(ValueError, match="columns of different lengths"):
        dp.convert.from_npz(tmp_path / "l.npz")
    content = bytearray((tmp_path / "l.npz").read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 99  # how it is compressed
    (tmp_path / "l.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"l\.npz: not a table in \.npz, or damaged \(That compression method"):
        dp.convert.from_npz(tmp_path / "l.npz")


def test_parquet_says_what_a_score_is_and_refuses_other_types(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    dp.convert.to_parquet(runs(), tmp_path / "t.parquet")
    about = parquet.read_schema(tmp_path / "t.parquet").metadata[b"difficulty_prune"]
    assert b'"aum": {"higher_is_harder": false' in about
    parquet.write_table(pyarrow.table({"index": [0, 1], "aum": ["x", "y"]}), tmp_path / "u.parquet")
    with pytest.raises(ValueError, match=r"column 'aum' holds string, 0 empty; expected numbers"):
        dp.convert.from_parquet(tmp_path / "u.parquet")
    parquet.write_table(pyarrow.table({"index": [0, None], "aum": [1.0, 2]}), tmp_path / "v.parquet")
    with pytest.raises(ValueError, match=r"column 'index' holds int64, 1 empty"):
        dp.convert.from_parquet(tmp_path / "v.parquet")


def test_pandas_reads_the_same(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    dp.convert.to_csv(runs(), tmp_path / "t.csv")
    frame = pandas.read_csv(tmp_path / "t.csv")
    np.testing.assert_allclose(frame["aum"], runs().mean("aum"), rtol=1e-15)
    assert frame["id"].tolist() == runs().ids.tolist()
    given = dp.convert.to_pandas(runs())
    assert given["aum_runs"].tolist() == [2, 2, 2, 0]


def test_what_a_missing_library_is_needed_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"a \.parquet file needs pyarrow: pip install 'difficulty-prune\[parquet\]'"):
        dp.convert.to_parquet(runs(), tmp_path / "t.parquet")


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"kind '\.xlsx', expected one of \.parquet, \.csv, \.npz"):
        dp.convert.write(runs(), tmp_path / "t.xlsx")
    with pytest.raises(ValueError, match="format: got 'excel', expected one of parquet, csv, npz, aum"):
        dp.convert.write(runs(), tmp_path / "t.csv", "excel")
    with pytest.raises(TypeError, match=r"runs: got list, expected a dp\.Run or a dp\.RunSet"):
        dp.convert.to_csv([1], tmp_path / "t.csv")
    with pytest.raises(ValueError, match="paths: got 1, expected 4"):
        dp.convert.to_csv(runs(), tmp_path / "t.csv", paths=["a"])
