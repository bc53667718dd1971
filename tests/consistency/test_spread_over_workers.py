"""Work in pieces: the same result from threads, processes and one process; files by path; failures that name a file."""

from __future__ import annotations

import importlib
import os
import pickle
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noisy_runs import holes, noisy, run_set

import difficulty_prune as dp
from difficulty_prune.consistency import streams
from difficulty_prune.consistency.streams import batches
from difficulty_prune.runs import score_of_runs
from difficulty_prune.runs.score_of_runs import ScoreOfRuns
from difficulty_prune.support import pieces
from difficulty_prune.support.pieces import in_threads, run_pieces

MEASURES = {
    "reliability": lambda runs, executor: dp.consistency.reliability(runs, "el2n", executor=executor).to_dict(),
    "run_agreement": lambda runs, executor: dp.consistency.run_agreement(runs, "el2n", executor=executor).tolist(),
    "rank_error": lambda runs, executor: dp.consistency.rank_error(
        runs, "el2n", resamples=20, executor=executor
    ).to_dict(),
    "stable_subset": lambda runs, executor: dp.consistency.stable_subset(
        runs, "el2n", dp.policies.Hardest(0.5, unseen="keep"), executor=executor
    ).frequency.tolist(),
    "correlation": lambda runs, executor: dp.consistency.correlation(runs, executor=executor).to_dict(),
    "architectures": lambda runs, executor: dp.consistency.correlation(
        runs, "el2n", between="architectures", executor=executor
    ).to_dict(),
}


class Elsewhere(Executor):
    """Works at once, with copies made by pickle, as another machine does."""

    def __init__(self):
        self.sent = []

    def submit(self, function, /, *args, **kwargs):
        content = pickle.dumps((function, args, kwargs))
        self.sent.append(len(content))
        future = Future()
        try:
            function, args, kwargs = pickle.loads(content)  # noqa: S301 - of this test
            future.set_result(pickle.loads(pickle.dumps(function(*args, **kwargs))))  # noqa: S301
        except Exception as error:  # noqa: BLE001 - as executors do
            future.set_exception(error)
        return future


@pytest.fixture(scope="module")
def processes():
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


@pytest.fixture(params=["known", "with holes"])
def saved(request, tmp_path):
    """40 runs of 60 examples in files: two pieces of runs, and four of splits."""
    matrix = noisy(40) if request.param == "known" else holes(40)
    for run in run_set(matrix):
        run.save(tmp_path / f"{run.seed:02}.safetensors")
    with pytest.warns(UserWarning, match="nothing shows"):
        return dp.RunSet.load(tmp_path)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_the_result_is_the_same_wherever_the_work_is_done(saved, measure):
    here = measure(saved, None)
    elsewhere = Elsewhere()
    assert measure(saved, elsewhere) == here
    assert len(elsewhere.sent) > 1
    with ThreadPoolExecutor(3) as threads:
        assert measure(saved, threads) == here
    in_memory = dp.RunSet(dp.Run({"el2n": run.scores["el2n"]}, architecture="mlp", seed=run.seed) for run in saved)
    assert measure(in_memory, Elsewhere()) == here


@pytest.mark.parametrize("test", ["permutation", "welch"])
def test_sensitive_examples_are_the_same_wherever_they_are_tested(monkeypatch, test):
    module = importlib.import_module("difficulty_prune.fingerprint.sensitive_examples")
    monkeypatch.setattr(module, "_PIECE", 16)
    matrix = noisy(8)
    matrix[3, 5] = np.nan
    runs = run_set(matrix, architectures=["cnn", "mlp"] * 4)
    here, elsewhere = dp.fingerprint.sensitive_examples(runs, "el2n", test), Elsewhere()
    found = dp.fingerprint.sensitive_examples(runs, "el2n", test, executor=elsewhere)
    assert len(elsewhere.sent) == 4
    for name in ("index", "p_value", "q_value", "effect"):
        np.testing.assert_array_equal(getattr(found, name), getattr(here, name))
    assert np.flatnonzero(np.isnan(here.p_value)).tolist() == [5]
    with pytest.raises(TypeError, match="executor: got 'threads'"):
        dp.fingerprint.sensitive_examples(runs, "el2n", test, executor="threads")


def test_fingerprints_are_the_same_wherever_examples_are_tested(monkeypatch):
    monkeypatch.setattr(importlib.import_module("difficulty_prune.fingerprint.sensitive_examples"), "_PIECE", 16)
    runs, elsewhere = run_set(noisy(8), architectures=["cnn", "mlp"] * 4), Elsewhere()
    fit, compare = dp.fingerprint.ArchitectureFingerprint.fit, dp.fingerprint.compare_selectors
    here, there = fit(runs, "el2n", 5), fit(runs, "el2n", 5, executor=elsewhere)
    assert there.to_dict() == here.to_dict()
    np.testing.assert_array_equal(there.examples, here.examples)
    assert len(elsewhere.sent) == (4 + 1) * 4, "for each fold and once for all runs, all examples in four pieces"
    compared = compare(runs, "el2n", examples=[1, 5], select=["sensitive"], executor=elsewhere)
    assert compared == compare(runs, "el2n", examples=[1, 5], select=["sensitive"])
    for of in (fit, compare):
        with pytest.raises(TypeError, match="executor: got 4"):
            of(runs, "el2n", executor=4)


def outcome(measure, runs, executor):
    """What comes of it as text, in which NaN is NaN and floats are exact; an error too."""
    try:
        return repr(measure(runs, executor))
    except ValueError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:difficulty. all .* examples have the same value")
@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(sorted(MEASURES)), st.integers(2, 40), st.integers(2, 24), st.integers(0, 99), st.integers(1, 3),
    st.sampled_from([2, 4, 32]),
)  # fmt: skip
def test_any_executor_and_any_number_of_pieces_give_the_same_bits(processes, name, runs, size, seed, kinds, means):
    values = np.random.default_rng(seed).choice([0, 1, 2, 3, 5, 8, np.nan], (runs, size), p=[0.2, *[0.15] * 5, 0.05])
    runs = run_set(values, architectures=[f"cnn{row % kinds}" for row in range(runs)])
    here = outcome(MEASURES[name], runs, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "_MOST_MEANS", means)  # of whole numbers they are the same in any order
        assert outcome(MEASURES[name], runs, None) == here
        assert outcome(MEASURES[name], runs, processes) == here
        with ThreadPoolExecutor(3) as threads:
            assert outcome(MEASURES[name], runs, threads) == here


def test_files_go_as_paths(tmp_path):
    run = dp.Run({"el2n": np.arange(100_000.0)}, architecture="mlp", seed=0, labels=np.zeros(100_000, int))
    run.save(tmp_path / "0.safetensors")
    kept = ScoreOfRuns(dp.RunSet([dp.Run.load(tmp_path / "0.safetensors")]), "el2n")
    assert len(pickle.dumps(kept)) < 1000


def test_a_worker_that_finds_no_file_or_another_one_says_so(saved):
    first = saved[0].path
    elsewhere = Elsewhere()
    values = saved[0].scores["el2n"] + 1
    dp.Run({"el2n": values}, architecture="mlp", seed=0).save(first)
    with pytest.raises(ValueError, match=r"00\.safetensors: a worker finds other values of el2n there than"):
        dp.consistency.reliability(saved, "el2n", executor=elsewhere)
    first.unlink()
    with pytest.raises(FileNotFoundError, match=r"00\.safetensors: a worker does not find this run file; put"):
        dp.consistency.reliability(saved, "el2n", executor=elsewhere)


@pytest.mark.parametrize("saved", ["known"], indirect=True)
def test_a_process_that_finds_no_file_or_another_one_says_so_too(saved, processes):
    """A process that fails to unpickle its work ends without saying why."""
    first = saved[0].path
    first.unlink()
    with pytest.raises(FileNotFoundError, match=r"00\.safetensors: a worker does not find this run file; put"):
        dp.consistency.rank_error(saved, "el2n", executor=processes)
    dp.Run({"el2n": np.arange(60.0)}, architecture="mlp", seed=0).save(first)
    with pytest.raises(ValueError, match=r"00\.safetensors: a worker finds other values of el2n there than"):
        dp.consistency.rank_error(saved, "el2n", executor=processes)


def test_a_worker_that_ends_is_an_error_in_words():
    words = r"executor: a worker of ProcessPoolExecutor ended before its work was done \(.*\); perhaps memory"
    with ProcessPoolExecutor(1, get_context("spawn")) as pool, pytest.raises(ConnectionError, match=words):
        list(run_pieces(pool, os._exit, [(1,), (1,)]))


def test_work_that_an_executor_gives_up_is_an_error_in_words():
    class Closing(Executor):
        def submit(self, function, /, *args, **kwargs):
            future = Future()
            future.cancel()
            return future

    with pytest.raises(ConnectionError, match="executor: Closing gave up a piece of the work; are its workers still"):
        dp.consistency.rank_error(run_set(noisy(3)), "el2n", executor=Closing())


def test_a_worker_of_another_version_is_refused(monkeypatch):
    class Older(Executor):
        def submit(self, function, /, *args, **kwargs):
            future = Future()
            with monkeypatch.context() as there:
                there.setattr(pieces, "__version__", "0.0.1")
                try:
                    future.set_result(function(*args, **kwargs))
                except ValueError as error:
                    future.set_exception(error)
            return future

    with pytest.raises(ValueError, match=r"executor: a worker has difficulty_prune 0\.0\.1, the process that asks"):
        dp.consistency.rank_error(run_set(noisy(3)), "el2n", executor=Older())


def test_a_policy_that_cannot_be_sent_is_an_error():
    def policy(difficulty, labels, generator):
        return dp.policies.Hardest(0.5)(difficulty, labels, generator=generator)

    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        dp.consistency.stable_subset(run_set(noisy(3)), "el2n", policy, executor=Elsewhere())


def test_sums_over_pairs_do_not_depend_on_the_pieces(monkeypatch):
    runs = run_set(holes(9), architectures=["cnn", "mlp", "mlp"] * 3)
    whole = dp.consistency.correlation(runs, "el2n", between="architectures")
    monkeypatch.setattr(score_of_runs, "_PIECE", 2)
    elsewhere = Elsewhere()
    found = dp.consistency.correlation(runs, "el2n", between="architectures", executor=elsewhere)
    assert len(elsewhere.sent) == 5
    np.testing.assert_allclose(found.of_runs, whole.of_runs, rtol=1e-12)


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_what_is_no_executor_is_refused(measure):
    with pytest.raises(TypeError, match=r"executor: got 4, expected a concurrent\.futures\.Executor"):
        measure(run_set(noisy(3)), 4)


@pytest.mark.parametrize("matrix", [noisy(40, 70), holes(40, 70)], ids=["known", "with holes"])
def test_means_in_blocks_of_runs_and_examples_are_those_of_a_loop(matrix, monkeypatch):
    monkeypatch.setattr(score_of_runs, "_EXAMPLES", 32)
    monkeypatch.setattr(score_of_runs, "BLOCK", 1024)
    monkeypatch.setattr(streams, "_MEANS", 4 * 70)
    weights = np.random.default_rng(0).integers(0, 3, (9, 40))
    weights[4] = 0
    kept = ScoreOfRuns(run_set(matrix), "el2n")
    means = np.concatenate([kept.means(some) for some in batches(weights, 70)])
    for row, mean in zip(weights, means, strict=True):
        known = ~np.isnan(matrix)
        count = (row[:, None] * known).sum(0)
        expected = np.where(
            count > 0, (row[:, None] * np.where(known, matrix, 0)).sum(0) / np.maximum(count, 1), np.nan
        )
        np.testing.assert_allclose(mean, expected, rtol=1e-12)


def fail_at_one(number):
    if number == 1:
        raise ValueError("piece 1")
    return number


@pytest.mark.parametrize(
    "start",
    [
        lambda: run_pieces(None, fail_at_one, ((number,) for number in range(50))),
        lambda: run_pieces(Elsewhere(), divmod, ((4, 1 - number) for number in range(50))),
        lambda: in_threads(fail_at_one, range(50)),
    ],
    ids=["here", "executor", "threads"],
)
def test_a_failure_ends_the_work(start):
    found = start()
    next(found)
    with pytest.raises((ValueError, ZeroDivisionError)):
        next(found)
    assert list(found) == []
