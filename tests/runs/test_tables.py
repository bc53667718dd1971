"""Published tables by file: every format, every way to be the wrong table."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.runs.tables import PUBLISHED_NAMES

LABELS = np.array([3, 1, 4, 1, 5])
VALUES = [0.0, 0.25, 0.5, 0.75, 1.0]
NAN = float("nan")


def make_runs(size: int = 5, **facts) -> dp.RunSet:
    rng = np.random.default_rng(0)
    labels = LABELS if size == 5 else None
    return dp.RunSet(
        dp.Run({"el2n": rng.random(size)}, architecture=name, seed=0, labels=labels, **facts) for name in ("a", "b")
    )


def write(path: Path, **columns) -> Path:
    """A table in the format that the name asks for."""
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".npy":
        names, arrays = list(columns), [np.asarray(values) for values in columns.values()]
        dtype = [(name, array.dtype) for name, array in zip(names, arrays, strict=True)]
        np.save(path, np.array(list(zip(*arrays, strict=True)), dtype=dtype))
    elif path.suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(
            pyarrow.table({name: pyarrow.array(np.asarray(values).tolist()) for name, values in columns.items()}), path
        )
    elif path.suffix == ".safetensors":
        labels = columns.pop("labels", None)
        dp.Run(columns, architecture="published", seed=0, labels=labels).save(path)
    else:
        cut = "," if path.suffix == ".csv" else "\t"
        rows = zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True)
        path.write_text("\n".join(cut.join(map(str, row)) for row in (columns, *rows)) + "\n")
    return path


FORMATS = ("npz", "npy", "csv", "tsv", "parquet", "safetensors")


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_published_score(tmp_path: Path, suffix: str) -> None:
    runs = make_runs().with_table(write(tmp_path / f"t.{suffix}", memorization=VALUES, labels=LABELS))
    assert runs.mean("memorization").tolist() == VALUES
    assert runs.mean("memorization").dtype == np.float64
    assert runs.difficulty("memorization").tolist() == VALUES
    assert list(runs.tables) == ["memorization"]


@pytest.mark.parametrize("index", ["index", "Index", "idx", "id", ""])
@pytest.mark.parametrize("labels", ["labels", "Label", "targets"])
def test_index_and_labels_may_have_their_usual_names(tmp_path: Path, index: str, labels: str) -> None:
    order = [4, 0, 3, 1, 2]
    columns = {index: order, labels: LABELS[order], "c_score": np.array(VALUES)[order]}
    assert make_runs().with_table(write(tmp_path / "t.csv", **columns)).mean("c_score").tolist() == VALUES
    wrong_order = columns | {index: range(5)}
    with pytest.raises(ValueError, match=f"column '{labels}' differs"):
        make_runs().with_table(write(tmp_path / "t.csv", **wrong_order))


def test_a_column_of_another_score_is_not_taken_for_the_one_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has the columns tr_mem, 0 of which may be 'c_score'"):
        make_runs().with_table(write(tmp_path / "t.npz", tr_mem=VALUES), "c_score")


@pytest.mark.parametrize("suffix", ["npz", "npy", "csv", "tsv", "parquet"])
def test_rows_are_placed_by_their_index(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t.{suffix}", index=[4, 0, 2], c_score=[0.5, 0.25, 1.0], labels=LABELS[[4, 0, 2]])
    runs = make_runs().with_table(path)
    np.testing.assert_array_equal(runs.mean("c_score"), [0.25, NAN, 1.0, NAN, 0.5])
    np.testing.assert_array_equal(runs.difficulty("c_score"), [-0.25, NAN, -1.0, NAN, -0.5])


@pytest.mark.parametrize("suffix", ["npz", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("ids", [["cat/1.png", " x", "é", "7", "nan"], [70, 3, 2, 1, 2**62]])
def test_rows_are_found_by_id_where_the_runs_have_ids(tmp_path: Path, suffix: str, ids: list) -> None:
    order = [4, 0, 2]
    columns = {"id": [ids[i] for i in order], "c_score": [0.5, 0.25, 1.0], "labels": LABELS[order]}
    runs = make_runs(ids=ids).with_table(write(tmp_path / f"t.{suffix}", **columns, index=[0, 1, 2]))
    np.testing.assert_array_equal(runs.mean("c_score"), [0.25, NAN, 1.0, NAN, 0.5])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_rows_of_ids_that_the_runs_lack_are_counted_and_an_id_may_come_once(tmp_path: Path, suffix: str) -> None:
    runs = make_runs(ids=list("abcde"))
    some = write(tmp_path / f"t.{suffix}", id=["b", "x", "y"], c_score=[0.5, 1.0, 1.0], label=[1, 9, 9])
    with pytest.warns(UserWarning, match="2 of 3 rows are of ids that the runs lack, the first is 'x'") as caught:
        found = runs.with_table(some)
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(found.mean("c_score"), [NAN, 0.5, NAN, NAN, NAN])
    with pytest.raises(ValueError, match="column 'id' has 'b' more than once"):
        runs.with_table(write(tmp_path / f"t.{suffix}", id=["b", "b"], c_score=[0.5, 1.0]))
    with pytest.raises(ValueError, match="column 'id'"):
        runs.with_table(write(tmp_path / f"t.{suffix}", id=["X", "Y"], c_score=[0.5, 1.0]))
    with pytest.raises(ValueError, match="column 'label' differs from the labels of the runs for 1 of 1"):
        runs.with_table(write(tmp_path / f"t.{suffix}", id=["b"], c_score=[0.5], label=[3]))


@given(st.permutations(range(5)), st.integers(1, 5))
def test_a_table_of_some_rows_in_any_order_gives_each_example_its_own_value(tmp_path_factory, order, kept) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    rows = order[:kept]
    write(path, c_score=[VALUES[i] for i in rows], index=rows, labels=LABELS[rows])
    got = make_runs().with_table(path).mean("c_score")
    for i in range(5):
        assert (got[i] == VALUES[i]) if i in rows else np.isnan(got[i])


def test_the_files_of_feldman_and_zhang_are_known_by_their_names(tmp_path: Path) -> None:
    assert set(PUBLISHED_NAMES.values()) <= set(dp.SCORES)
    influence = np.zeros((7, 5))  # test x training examples; not looked at
    path = write(tmp_path / "infl.npz", infl=influence, tr_mem=VALUES, tr_labels=LABELS, tt_labels=np.zeros(7, int))
    assert make_runs().with_table(path).mean("memorization").tolist() == VALUES
    assert make_runs().with_table(path, "memorization").mean("memorization").tolist() == VALUES


def test_the_files_of_jiang_and_others_need_a_word(tmp_path: Path) -> None:
    path = write(tmp_path / "cscores.npz", scores=VALUES, labels=LABELS)
    with pytest.raises(ValueError, match=r"has the columns scores, labels, 0 of them named like a score.*say score="):
        make_runs().with_table(path)
    assert make_runs().with_table(path, score="c_score", column="scores").mean("c_score").tolist() == VALUES
    assert make_runs().with_table(path, score="c_score").mean("c_score").tolist() == VALUES, "the only column it can be"


def test_an_array_without_names_is_the_score_that_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", np.array(VALUES, np.float32))
    assert make_runs().with_table(tmp_path / "t.npy", "memorization").mean("memorization").tolist() == VALUES


def test_text_may_have_empty_cells_spaces_a_mark_and_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfindex,c_score,note\r\n0, 0.5 ,x\r\n1,,y\r\n\r\n2,1e-1,\r\n")
    np.testing.assert_array_equal(make_runs().with_table(tmp_path / "t.csv").mean("c_score"), [0.5, NAN, 0.1, NAN, NAN])


def test_a_score_of_your_own_has_the_direction_that_you_declare(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", votes=[5, 4, 3, 2, 1])
    for higher_is_harder, sign in ((True, 1), (False, -1)):
        own = dp.Score("votes", higher_is_harder, "runs", "people", "our survey", "people who chose the label")
        runs = make_runs().with_table(path, own)
        assert runs.mean("votes").tolist() == [5, 4, 3, 2, 1]
        assert runs.difficulty("votes").tolist() == [sign * v for v in (5, 4, 3, 2, 1)]
    assert "votes" not in dp.SCORES


def test_a_table_goes_before_what_the_runs_say_and_another_replaces_it(tmp_path: Path) -> None:
    seen = np.array([True, True, True, True, False])
    runs = make_runs(seen=seen, predictions=LABELS)
    assert runs.mean("c_score")[4] == 1
    runs = runs.with_table(write(tmp_path / "a.csv", c_score=VALUES))
    assert runs.mean("c_score").tolist() == VALUES
    assert runs.held_out_consistency().value[4] == 1, "the runs' own estimate stays at hand"
    other = runs.with_table(write(tmp_path / "b.csv", c_score=VALUES[::-1]))
    assert other.mean("c_score").tolist() == VALUES[::-1]
    assert runs.mean("c_score").tolist() == VALUES, "a set of runs does not change"


def test_tables_stay_with_the_runs_and_are_compared_with_their_scores(tmp_path: Path) -> None:
    runs = make_runs().with_table(write(tmp_path / "a.csv", memorization=VALUES))
    runs = runs.with_table(write(tmp_path / "b.csv", c_score=VALUES)).where(architecture="b")
    assert list(runs.tables) == ["memorization", "c_score"]
    assert runs.scores == ("el2n",)
    correlation = dp.consistency.correlation(runs, ("memorization", "c_score", "el2n")).of_means
    assert correlation[0, 1] == pytest.approx(-1)
    assert correlation.shape == (3, 3)
    with pytest.raises(ValueError, match=r"see runs\.mean\('memorization'\)"):
        runs.matrix("memorization")
    with pytest.raises(ValueError, match="standard_error: none is known for 'c_score'"):
        runs.standard_error("c_score")


def test_what_mean_gives_is_a_copy(tmp_path: Path) -> None:
    runs = make_runs().with_table(write(tmp_path / "a.csv", c_score=VALUES))
    runs.mean("c_score")[:] = 7
    assert runs.mean("c_score").tolist() == VALUES


# The wrong table


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"c_score": VALUES, "labels": [3, 1, 4, 5, 1]}, {}, "'labels' differs .* for 2 of 5 examples.*another order"),
        ({"tr_mem": VALUES, "tr_labels": [0] * 5}, {}, "'tr_labels' differs .* for 5 of 5"),
        ({"c_score": VALUES, "index": range(5), "labels": LABELS + 1}, {}, "for 5 of 5 examples"),
        ({"c_score": VALUES[:4]}, {}, "4 rows for 5 examples; .* needs a column 'index'"),
        ({"c_score": VALUES, "index": [0, 1, 2, 3, 5]}, {}, "'index' has 5 in row 4; .* from 0 to 4"),
        ({"c_score": VALUES, "index": [-1, 1, 2, 3, 4]}, {}, "'index' has -1 in row 0"),
        ({"c_score": VALUES, "index": [0, 1, 1.5, 3, 4]}, {}, "'index' has 1.5 in row 2"),
        ({"c_score": VALUES, "index": [0, 1, 2, 3, 3]}, {}, "'index' has 3 more than once"),
        ({"c_score": [0, 1, float("inf"), 1, 1]}, {}, "'c_score' is infinite in row 2"),
        ({"c_score": VALUES, "memorization": VALUES}, {}, "c_score, memorization, 2 of them named like a score"),
        ({"a": VALUES, "b": VALUES}, {"score": "c_score"}, "columns a, b, 2 of which may be 'c_score'.* column="),
        ({"index": range(5)}, {"score": "c_score"}, "columns index, 0 of which"),
        ({"c_score": VALUES}, {"column": "scores"}, "column: got 'scores', but .* has the columns c_score"),
        ({"a": VALUES}, {"column": "a"}, "0 of them named like a score of the catalogue"),
        ({"a": VALUES}, {"score": "c_scores"}, "no score 'c_scores'"),
        ({"a": VALUES}, {"score": "el2n"}, r"the runs already have a score 'el2n'.*dp\.Score\(name="),
        (
            {"a": VALUES},
            {"score": dp.Score("c_score", True, "runs", "", "", "")},
            "the name 'c_score' is taken by the catalogue",
        ),
        ({"c_score": ["easy", "hard", "easy", "hard", "hard"]}, {}, "'c_score' cannot be read .*there are c_score"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "csv"])
def test_a_table_that_does_not_fit_is_refused_by_name(tmp_path: Path, columns, arguments, message, suffix) -> None:
    path = write(tmp_path / f"t.{suffix}", **columns)
    with pytest.raises(ValueError, match=message) as refusal:
        make_runs().with_table(path, **arguments)
    if "no score" not in message and "is taken" not in message:
        assert str(path) in str(refusal.value)


@pytest.mark.parametrize("name", ["index", "labels"])
def test_columns_of_different_lengths_are_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "t.npz", c_score=VALUES, **{name: [0, 1, 2]})
    with pytest.raises(ValueError, match=f"column '{name}'"):
        make_runs().with_table(path)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("content", [b"", b"\x80\x04nonsense", b"PK\x03\x04" + bytes(60), b"\x93NUMPY\x01\x00\xff\xff"])
def test_garbage_is_refused_by_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        make_runs().with_table(path, "c_score")


@pytest.mark.parametrize("suffix", ["npz", "npy", "safetensors"])
@pytest.mark.parametrize("left", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, suffix: str, left: float) -> None:
    path = write(tmp_path / f"t.{suffix}", c_score=VALUES)
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content))])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        make_runs().with_table(path)


def test_a_damaged_column_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    np.savez_compressed(path, c_score=np.random.default_rng(0).random(5))
    content = bytearray(path.read_bytes())
    content[60:100] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="column 'c_score' cannot be read"):
        make_runs().with_table(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "went off",))

    bomb = np.array([Bomb()] * 5, dtype=object)
    np.save(tmp_path / "t.npy", bomb, allow_pickle=True)
    np.savez(tmp_path / "t.npz", c_score=bomb)
    for name in ("t.npy", "t.npz"):
        with pytest.raises(ValueError, match=rf"{name}.*(pickled|allow_pickle)"):
            make_runs().with_table(tmp_path / name, "c_score")
    assert not (tmp_path / "went off").exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_header_that_is_no_python_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    columns, content = np.array([(0, 0.5)], [("index", "<i4"), ("score", "<f8")]), io.BytesIO()
    np.save(content, columns)
    path, damaged = tmp_path / f"t{suffix}", content.getvalue().replace(b"<f8", b",f8")
    if suffix == ".npy":
        path.write_bytes(damaged)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("score.npy", damaged)
    for read in (make_runs().with_table, *[dp.convert.from_npz] * (suffix == ".npz")):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"first line is \[\]"),
        ("a,a\n1,2\n", r"first line is \['a', 'a'\], expected different names"),
        ("index,c_score\n0,1\n1\n", "row 1 has 1 cells, expected 2"),
    ],
)
def test_text_that_is_no_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        make_runs().with_table(tmp_path / "t.csv")


def test_other_files_and_missing_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.feather").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"t\.feather: got a file of kind '\.feather', expected one of \.npz, \.npy"):
        make_runs().with_table(tmp_path / "t.feather")
    for suffix in FORMATS:
        with pytest.raises(FileNotFoundError, match=f"none.{suffix}: no such file"):
            make_runs().with_table(tmp_path / f"none.{suffix}")


def test_a_run_file_of_other_data_is_no_table(tmp_path: Path) -> None:
    dp.Run({"memorization": VALUES}, architecture="x", seed=0, dataset_fingerprint="aaaa").save(
        tmp_path / "t.safetensors"
    )
    with pytest.raises(ValueError, match="fingerprints, bbbb and aaaa"):
        make_runs(dataset_fingerprint="bbbb").with_table(tmp_path / "t.safetensors")


def test_something_else_than_a_score_is_a_type_error(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"score: got 3, expected a name of the catalogue or a dp\.Score"):
        make_runs().with_table(write(tmp_path / "t.csv", a=VALUES), 3)
