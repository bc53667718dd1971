"""Sets of runs: their statistics, their groups, and where they are loaded from."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_runs import SIZE, holes, make_run, runs_of, score_tables, some_probabilities

import difficulty_prune as dp

# Statistics and groups


def test_matrix_is_one_row_per_run():
    runs = holes()
    matrix = runs.matrix("el2n")
    assert matrix.dtype == np.float64
    assert matrix.shape == (6, SIZE)
    for row, run in zip(matrix, runs, strict=True):
        np.testing.assert_array_equal(row, run.scores["el2n"].astype(np.float64))


@pytest.mark.parametrize("score", ["el2n", "aum"])
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_mean_and_standard_error_leave_out_missing_examples(score):
    runs = holes()
    matrix = runs.matrix(score)
    seen = (~np.isnan(matrix)).sum(0)
    assert seen[0] == 0
    assert seen[1] == 1
    assert 0 < np.isnan(matrix[:, 2:]).sum() < matrix[:, 2:].size
    np.testing.assert_allclose(runs.mean(score), np.nanmean(matrix, axis=0), rtol=1e-12)
    expected = np.nanstd(matrix, axis=0, ddof=1) / np.sqrt(np.maximum(seen, 1))
    np.testing.assert_allclose(runs.standard_error(score), expected, rtol=1e-9, atol=1e-15)
    assert np.isnan(runs.mean(score)[0])
    assert np.isnan(runs.standard_error(score)[:2]).all()
    assert not np.isnan(runs.mean(score)[1:]).any()


def test_statistics_raise_no_warning_where_nothing_is_known():
    runs = dp.RunSet([make_run(seed=s, missing=range(SIZE)) for s in range(2)])
    assert np.isnan(runs.mean("el2n")).all()
    assert np.isnan(runs.standard_error("el2n")).all()


def test_standard_error_of_one_run_is_not_known():
    assert np.isnan(dp.RunSet([make_run()]).standard_error("el2n")).all()


@given(
    value=st.one_of(st.just(0.0), st.floats(1e-3, 1e6), st.floats(-1e6, -1e-3)),
    runs=st.integers(2, 40),
    single=st.booleans(),
)
def test_runs_that_all_agree_show_no_standard_error(value, runs, single):
    """Two runs that never forgot an example do not show that no run ever would."""
    value = np.float32(value) if single else value
    table = np.full((runs, 3), value)
    table[0, 1] += 1
    found = dp.RunSet(runs_of(table)).standard_error("aum")
    assert np.isnan(found[[0, 2]]).all()
    assert found[1] == pytest.approx(abs(table[0, 1] - table[1, 1]) / runs, rel=1e-6)


def test_mean_is_double_precision_from_single_precision_runs():
    runs = dp.RunSet(
        dp.Run({"loss": np.full(2, value, np.float32)}, architecture="mlp", seed=s)
        for s, value in enumerate((2.0**24, 1.0))
    )
    assert runs.mean("loss").tolist() == [(2.0**24 + 1) / 2] * 2
    assert runs.mean("loss").dtype == np.float64


@pytest.mark.parametrize("score", [name for name in dp.score_names() if name not in dp.score_names("runs")])
def test_difficulty_is_high_for_hard_examples(score):
    runs = dp.RunSet([dp.Run({score: [1.0, 2.0, np.nan]}, architecture="mlp", seed=0)])
    sign = 1 if dp.SCORES[score].higher_is_harder else -1
    np.testing.assert_array_equal(runs.difficulty(score), [sign * 1.0, sign * 2.0, np.nan])
    np.testing.assert_array_equal(runs.mean(score), [1.0, 2.0, np.nan])


def test_names_of_scores_and_architectures():
    runs = dp.RunSet(
        [
            dp.Run({"aum": [1.0], "el2n": [1.0], "loss": [1.0]}, architecture="b", seed=0),
            dp.Run({"loss": [1.0], "aum": [1.0]}, architecture="a", seed=0),
            dp.Run({"loss": [1.0], "aum": [1.0], "margin": [1.0]}, architecture="b", seed=1),
        ]
    )
    assert runs.scores == ("loss", "aum"), "those of every run, in the order of the catalogue"
    assert runs.architectures == ("b", "a")
    with pytest.raises(ValueError, match=r"Run\('a'.*no score 'el2n'.*loss, aum"):
        runs.matrix("el2n")


def test_where_selects_by_metadata():
    runs = dp.RunSet(
        [make_run(seed=s, architecture=a, epochs=e) for s, (a, e) in enumerate([("a", 1), ("b", 1), ("a", 2)])]
    )
    assert [run.seed for run in runs.where(architecture="a")] == [0, 2]
    assert [run.seed for run in runs.where(epochs=1)] == [0, 1]
    assert [run.seed for run in runs.where(architecture="a", epochs=2)] == [2]
    assert isinstance(runs.where(seed=1), dp.RunSet)
    with pytest.raises(ValueError, match=r"'epochs': 3.*\['1', '2'\]"):
        runs.where(epochs=3)
    with pytest.raises(ValueError, match="width"):
        runs.where(width=64)


def test_runs_are_counted_iterated_and_indexed():
    runs = dp.RunSet(make_run(seed=s) for s in range(3))
    assert len(runs) == 3
    assert runs.num_examples == SIZE
    assert [run.seed for run in runs] == [0, 1, 2]
    assert runs[-1].seed == 2


def test_labels_come_from_the_first_run_that_knows_them():
    labels = np.arange(SIZE) % 3
    runs = dp.RunSet([make_run(seed=0), make_run(seed=1, labels=labels), make_run(seed=2, labels=labels)])
    np.testing.assert_array_equal(runs.labels, labels)
    assert dp.RunSet([make_run()]).labels is None


@given(table=score_tables)
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
def test_mean_error_and_median_are_those_of_numpy(table):
    runs = dp.RunSet(runs_of(table))
    known = (~np.isnan(table)).sum(0)
    error = np.nanstd(table, axis=0, ddof=1) / np.sqrt(np.maximum(known, 1))
    np.testing.assert_allclose(runs.mean("aum"), np.nanmean(table, axis=0), rtol=1e-12, atol=1e-9)
    found, scale = runs.standard_error("aum"), np.abs(np.nanmean(table, axis=0))
    same, differ = (np.nanmax(table, axis=0) == np.nanmin(table, axis=0)), error > 1e-13 * scale
    np.testing.assert_allclose(found[differ], error[differ], rtol=1e-9, atol=1e-9)
    assert np.isnan(found[same | (known < 2)]).all()
    np.testing.assert_array_equal(runs.median("aum"), np.nanmedian(table, axis=0))


def slow_rank_fractions(row):
    """(rank - 0.5) / n, where the rank is the middle of the places that an example and its equals could take."""
    known = [x for x in row if not np.isnan(x)]
    for x in row:
        lower, equal = sum(y < x for y in known), sum(y == x for y in known)
        yield (lower + (equal + 1) / 2 - 0.5) / len(known) if equal else np.nan


@given(table=score_tables)
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
def test_rank_mean_is_the_mean_of_the_ranks_within_the_runs(table):
    expected = np.nanmean([list(slow_rank_fractions(row)) for row in table], axis=0)
    np.testing.assert_allclose(dp.RunSet(runs_of(table)).rank_mean("aum"), expected, rtol=1e-12)


def test_rank_mean_does_not_depend_on_the_scale_of_a_run():
    rows = np.random.default_rng(0).random((5, SIZE))
    scaled = rows * np.array([[1.0], [1e6], [1e-6], [3.0], [1.0]]) - 7
    expected = dp.RunSet(runs_of(rows)).rank_mean("aum")
    np.testing.assert_allclose(dp.RunSet(runs_of(scaled)).rank_mean("aum"), expected)
    assert 0 < expected.min() < expected.max() < 1
    assert expected.mean() == pytest.approx(0.5)


def test_parts_of_the_examples_make_the_whole():
    """More examples than are worked on together; each is 1 of 40, and has the numbers that this one has among 40."""
    rng = np.random.default_rng(0)
    labels, p = np.arange(SIZE) % 3, some_probabilities(classes=3)
    facts = [(rng.normal(size=SIZE), rng.random(SIZE) < 0.5, rng.permutation(p)) for _ in range(6)]

    def numbers(times):
        runs = dp.RunSet(
            dp.Run(
                {"aum": np.tile(aum, times)},
                architecture="mlp",
                seed=seed,
                labels=np.tile(labels, times),
                seen=np.tile(seen, times),
                probabilities=np.tile(probabilities, (times, 1)),
            )
            for seed, (aum, seen, probabilities) in enumerate(facts)
        )
        estimates = runs.memorization(), runs.held_out_consistency()
        told = [np.stack([e.value, e.standard_error, e.seen, e.unseen]) for e in estimates]
        return [*told, runs.median("aum"), runs.model_accuracy(), runs.mean("aum"), runs.standard_error("aum")]

    for large, small in zip(numbers(5000), numbers(1), strict=True):
        np.testing.assert_array_equal(large, np.tile(small, 5000))


def test_matrix_of_some_examples():
    runs = holes()
    for examples in (slice(3, 9), slice(None, None, -7), np.array([5, 0, 5]), np.arange(SIZE) % 2 == 0):
        np.testing.assert_array_equal(runs.matrix("aum", examples), runs.matrix("aum")[:, examples])


@pytest.mark.parametrize("what", ["matrix", "median", "rank_mean"])
def test_what_needs_one_number_per_run_says_so(what, tmp_path):
    np.savez(tmp_path / "table.npz", c_score=np.linspace(0, 1, SIZE))
    runs = dp.RunSet([make_run()]).with_table(tmp_path / "table.npz")
    for score in ("memorization", "c_score"):
        with pytest.raises(ValueError, match=rf"{what}: '{score}' is one number .*runs\.mean\('{score}'\)"):
            getattr(runs, what)(score)
    with pytest.raises(ValueError, match=r"Run\('mlp'.*no score 'loss'; all runs have el2n, aum"):
        getattr(runs, what)("loss")
    with pytest.raises(ValueError, match="there is no score 'eln2'; did you mean 'el2n'"):
        getattr(runs, what)("eln2")


def test_group_by_parts_the_runs_in_order_of_appearance():
    facts = [("b", 1), ("a", 1), ("b", 2)]
    runs = dp.RunSet(make_run(seed=s, architecture=a, epochs=e) for s, (a, e) in enumerate(facts))
    groups = runs.group_by("architecture")
    assert {name: [run.seed for run in group] for name, group in groups.items()} == {"b": [0, 2], "a": [1]}
    assert list(groups) == ["b", "a"]
    for name, group in groups.items():
        np.testing.assert_array_equal(group.mean("aum"), runs.where(architecture=name).mean("aum"))
    assert {epochs: len(group) for epochs, group in runs.group_by("epochs").items()} == {1: 2, 2: 1}


def test_group_by_keeps_tables_and_runs_without_the_field(tmp_path):
    np.savez(tmp_path / "table.npz", c_score=np.linspace(0, 1, SIZE))
    runs = dp.RunSet([make_run(width=8), make_run(seed=1)]).with_table(tmp_path / "table.npz")
    groups = runs.group_by("width")
    assert list(groups) == [8, None]
    np.testing.assert_array_equal(groups[None].mean("c_score"), np.linspace(0, 1, SIZE))


def test_group_by_refuses_what_it_cannot_group_by():
    runs = dp.RunSet([make_run(options={"lr": 0.1}, epochs=3)])
    with pytest.raises(
        ValueError, match=r"no run has a field 'width'; the runs have architecture, seed, .*options, epochs"
    ):
        runs.group_by("width")
    with pytest.raises(ValueError, match=r"'options' of Run\('mlp'.* is \{'lr': 0.1\}, expected text or a number"):
        runs.group_by("options")


# Loading


@pytest.fixture
def folder(tmp_path):
    for seed in range(3):
        make_run(seed=seed).save(tmp_path / f"mlp-{seed}.safetensors")
    (tmp_path / "notes.txt").write_text("not a run")
    return tmp_path


def test_load_from_glob_folder_path_and_list(folder):
    def seeds(paths):
        return [run.seed for run in dp.RunSet.load(paths)]

    assert seeds(str(folder / "*.safetensors")) == [0, 1, 2]
    assert seeds(folder / "mlp-[12].safetensors") == [1, 2]
    assert seeds(folder) == [0, 1, 2]
    assert seeds(str(folder)) == [0, 1, 2]
    assert seeds(folder / "mlp-1.safetensors") == [1]
    assert seeds([folder / "mlp-2.safetensors", str(folder / "mlp-0.safetensors")]) == [2, 0]
    assert seeds(path for path in sorted(folder.glob("*.safetensors"))) == [0, 1, 2]


def test_load_one_file_whose_name_looks_like_a_pattern(tmp_path):
    path = tmp_path / "mlp[width=64].safetensors"
    make_run(seed=5).save(path)
    assert [run.seed for run in dp.RunSet.load(path)] == [5]


def test_load_where_nothing_is(folder):
    for paths in (folder / "resnet-*", str(folder / "none"), [folder / "none.safetensors"]):
        with pytest.raises(FileNotFoundError, match=re.escape(str(paths[0] if isinstance(paths, list) else paths))):
            dp.RunSet.load(paths)
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        dp.RunSet.load(folder / "empty")


def test_load_names_the_one_bad_file(folder):
    path = folder / "mlp-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        dp.RunSet.load(folder)


def test_load_refuses_runs_of_different_data(folder):
    make_run(seed=3, fingerprint="beef").save(folder / "mlp-3.safetensors")
    with pytest.raises(ValueError, match="f00d and beef"):
        dp.RunSet.load(folder)


def test_means_of_counts_are_tied_whatever_the_order_of_the_runs():
    values = np.array(list(itertools.permutations((0, 1, 3))) + list(itertools.permutations((0, 1, 4)))).T
    runs = dp.RunSet(dp.Run({"forgetting": row}, architecture="mlp", seed=i) for i, row in enumerate(values))
    assert len(np.unique(runs.mean("forgetting"))) == 2
