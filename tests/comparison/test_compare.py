"""`dp.compare`: what it trains, how it pairs and resumes, what it says and what it refuses."""

from __future__ import annotations

import copy
import itertools
import json
import math
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.comparison.arms import SameSize, in_words, make_arms
from difficulty_prune.comparison.counting_sampler import CountingSampler
from difficulty_prune.comparison.design import Design
from difficulty_prune.comparison.source_of import source_of

P = dp.policies
SIZE = 200
DIFFICULTY = np.random.default_rng(0).permutation(SIZE).astype(float)


class Recorder:
    """Instead of a training: accuracy follows the mean difficulty of what is visited, and the seed."""

    def __init__(self, gain=0.1, noise=0.004, epochs=3):
        self.gain, self.noise, self.epochs = gain, noise, epochs
        self.visits = []

    def __call__(self, sampler, seed):
        epochs = []
        for epoch in range(self.epochs):
            sampler.set_epoch(epoch)
            epochs.append(list(sampler))
        self.visits.append((seed, epochs))
        visited = np.concatenate([np.array(epoch) for epoch in epochs])
        hard = DIFFICULTY[visited].mean() / SIZE - 0.5
        luck = np.random.default_rng([seed, int(visited @ np.arange(len(visited)))]).normal()
        return 0.7 + self.gain * hard + 0.05 * (len(set(visited.tolist())) == SIZE) + self.noise * luck


def rows_by_kind(found):
    return {row.kind: row for row in found.rows}


def test_every_arm_is_trained_with_every_seed_and_as_many_steps_as_it_should():
    train = Recorder()
    found = dp.compare(train, P.Hardest(keep=0.5), DIFFICULTY, seeds=4, by="el2n")
    assert len(train.visits) == 4 * 4
    rows = rows_by_kind(found)
    assert {kind: (row.examples, row.presentations) for kind, row in rows.items()} == {
        "all": (200, 600), "chance": (100, 300), "few": (200, 300), "policy": (100, 300),
    }  # fmt: skip
    assert rows["policy"].names == ("the hardest 50 % by el2n",)
    for seed in range(4):
        visited = {
            (*sorted(map(len, map(set, epochs))), len(set().union(*epochs)))
            for own, epochs in train.visits if own == seed
        }  # fmt: skip
        assert (200, 200, 200, 200) in visited  # all
        assert (100, 100, 100, 100) in visited  # the same examples in each epoch
        assert any(sizes[:3] == (100, 100, 100) and sizes[3] > 150 for sizes in visited)  # as few steps, of all


def test_the_verdicts_are_those_of_the_results():
    found = dp.compare(Recorder(), [P.Hardest(0.5), P.Easiest(0.5)], DIFFICULTY, seeds=5)
    rows = rows_by_kind(found)
    for row in found.policies:
        for kind, said in row.verdicts["value"].items():
            expected = dp.verdict(row.results["value"], rows[kind].results["value"], than=said.than, cells=2)
            assert said == expected
    best, worst = found.policies
    assert (best.names, worst.names) == (("the hardest 50 %",), ("the easiest 50 %",))
    assert best.verdicts["value"]["chance"].word == "better"
    assert worst.verdicts["value"]["chance"].word == "worse"


def test_the_first_line_answers():
    found = dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, by="el2n")
    line = str(found).splitlines()[0]
    assert line == found.first_line()
    assert line.startswith("Keeping the hardest 50 % by el2n: 0.7")
    assert "points better than chance (" in line
    assert line.endswith("worse than all data, 50 % fewer steps.")
    lost = dp.compare(Recorder(gain=-0.1), P.Hardest(0.5), DIFFICULTY).first_line()
    assert "points worse than chance (" in lost
    assert "take a random part instead" in lost
    assert "WithoutWrong" in lost
    both = dp.compare(Recorder(), [P.Hardest(0.5), P.Easiest(0.5)], DIFFICULTY).first_line()
    assert both.startswith("Worse than chance: keeping the easiest 50 % (by ")
    assert ". The best: keeping the hardest 50 %: 0.7" in both
    all_lost = dp.compare(Recorder(gain=-0.1), [P.Hardest(0.5), P.Window(0.1, 0.4)], DIFFICULTY)
    assert all(row.verdicts["value"]["chance"].word == "worse" for row in all_lost.policies)
    assert all(row.name in all_lost.first_line() for row in all_lost.policies)
    assert ". Worse, too: keeping " in all_lost.first_line()


def test_no_better_than_chance_is_said_and_what_would_have_been_seen():
    found = dp.compare(Recorder(gain=0.0), P.Hardest(0.5), DIFFICULTY)
    assert "no difference to chance seen (" in found.first_line()
    assert "would have been)" in found.first_line()


def test_equal_plans_are_one_row_and_one_training():
    train = Recorder()
    found = dp.compare(train, [P.Hardest(0.5), P.Window(0.0, 0.5), P.Random(0.5), P.Random(1.0)], DIFFICULTY, seeds=3)
    assert len(train.visits) == 3 * 4
    rows = rows_by_kind(found)
    assert rows["policy"].names == ("the hardest 50 %", "the hardest 50 % after the first 0 %")
    assert [row.kind for row in found.policies] == ["policy"]
    assert rows["policy"].verdicts["value"]["chance"].cells == 1
    assert "the same plan: the hardest 50 % after the first 0 %" in str(found)


@pytest.mark.parametrize("keep", [0.3, 0.5])
def test_random_parts_as_large_as_policies_that_go_through_the_data_are_one_row(keep):
    """Equal are those that yield the same positions in every epoch, and no others."""
    policies = [P.EasyToHard(keep, groups=4), P.EasyToHard(keep, groups=5), P.Review(keep, gap=5)]
    policies += [P.EasyToHard(keep, groups=4, anneal=0.5, epochs=6), P.Review(keep + 0.1, gap=5)]
    design = Design(torch.from_numpy(DIFFICULTY), None, {f"{policy}": policy for policy in policies}, 0)
    yielded = {}
    for arm in design.arms:
        sampler = design.sampler(arm, 0)
        epochs = []
        for epoch in range(6):
            sampler.set_epoch(epoch)
            epochs.append(tuple(sampler))
        yielded[arm.name] = tuple(epochs)
    jobs = {name: design.job(arm, 0) for name, arm in ((arm.name, arm) for arm in design.arms)}
    for one, other in itertools.combinations(jobs, 2):
        assert (jobs[one] == jobs[other]) == (yielded[one] == yielded[other]), (one, other)
    assert len(design.arms) == 1 + 2 * 5
    assert len(set(jobs.values())) == 1 + 5 + 3

    found = dp.compare(Recorder(epochs=6), policies[:3], DIFFICULTY, seeds=2)
    (chance,) = (row for row in found.rows if row.kind == "few")
    assert len(chance.names) == 3


def test_a_policy_that_is_all_data_or_chance_has_no_verdict():
    found = dp.compare(Recorder(), [P.Random(0.5)], DIFFICULTY, seeds=2)
    assert not found.policies
    assert found.first_line().startswith("Nothing was compared")


def test_policies_that_draw_anew_must_beat_a_new_random_part_in_each_epoch():
    train = Recorder()
    found = dp.compare(train, [P.SoftPrune(0.5), P.Importance(keep=0.5)], DIFFICULTY, seeds=2)
    assert len(train.visits) == 2 * 4
    assert [row.kind for row in found.rows] == ["all", "few", "policy", "policy"]
    assert found.rows[1].names == ("all data, a random 50 % in each epoch",)
    assert {kind for row in found.policies for kind in row.verdicts["value"]} == {"chance", "all"}
    chance = [epochs for _, epochs in train.visits if len(epochs[0]) == 100 and set(epochs[0]) != set(epochs[1])]
    assert len(chance) == 2 * 3


def test_the_random_arm_follows_a_policy_that_changes():
    policy = P.SoftPrune(0.5, anneal=0.4, epochs=3)
    sampler = dp.PruneSampler(SameSize(policy), DIFFICULTY)
    lengths = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        lengths.append(len(set(sampler)))
        assert float(sampler.plan.weight.max()) == 1
    assert lengths == [100, 200, 200]
    found = dp.compare(Recorder(), policy, DIFFICULTY, seeds=2)
    assert {row.presentations for row in found.rows} == {600, 500}


@settings(max_examples=30)
@given(keep=st.integers(1, 10), seed=st.integers(0, 100))
def test_of_random_the_random_arm_is_itself(keep, seed):
    own = dp.PruneSampler(P.Random(keep / 10), DIFFICULTY, seed=seed)
    assert dp.PruneSampler(SameSize(P.Random(keep / 10)), DIFFICULTY, seed=seed).plan.digest == own.plan.digest


def test_shares_and_names():
    found = dp.compare(Recorder(), {"mine": P.Easiest, "other": P.Hardest}, DIFFICULTY, keep=[0.5, 0.25], seeds=2)
    assert sorted(row.names[0] for row in found.policies) == [
        "25 % by mine", "25 % by other", "50 % by mine", "50 % by other",
    ]  # fmt: skip
    assert all(row.verdicts["value"]["chance"].cells == 4 for row in found.policies)


def test_metrics_of_other_names_and_per_class():
    labels = np.arange(SIZE) % 2

    def train(sampler, seed):
        accuracy = Recorder()(sampler, seed)
        return {"accuracy": accuracy, "loss": 1 - accuracy, "per class": np.array([accuracy, accuracy - 0.2, np.nan])}

    found = dp.compare(train, P.Easiest(0.5), DIFFICULTY, labels=labels, lower_is_better=("loss",))
    (row,) = found.policies
    assert found.metric == "accuracy"
    assert row.verdicts["accuracy"]["chance"].word == row.verdicts["loss"]["chance"].word == "worse"
    assert row.class_verdicts["per class"]["all"]["1"].cells == 2
    assert set(row.classes["per class"]) == {"0", "1"}
    assert "classes that lose against chance (per class): " in str(found)
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(kept["rows"][0]["results"]["loss"]) == 5
    assert kept["in_words"] == str(found)


def test_a_class_that_some_trainings_have_no_number_of_is_named():
    """As the precision of a class that a model never names: it may well be the one that loses most."""

    def train(sampler, seed):
        accuracy = Recorder()(sampler, seed)
        lost = math.nan if len(sampler) < SIZE and seed == 1 else accuracy
        return {"accuracy": accuracy, "precision": {"cat": accuracy, "dog": lost, "owl": math.nan}}

    found = dp.compare(train, P.Hardest(0.5), DIFFICULTY, seeds=2)
    (row,) = found.policies
    assert set(row.class_verdicts["precision"]["all"]) == {"cat"}
    assert str(found).count("because not every training has a number (precision): 'dog'") == 2
    assert "owl" not in str(found)
    assert math.isnan(row.classes["precision"]["dog"][1])
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize("name", ["loss", "test loss", "top1_error", "RMSE"])
def test_a_metric_that_sounds_as_if_less_were_better_is_asked_about(name):
    def train(sampler, seed):
        return {"accuracy": Recorder()(sampler, seed), name: 0.5, "neg_mean_squared_error": -0.1, "lossless": 1}

    with pytest.warns(UserWarning, match=rf"metric '{name}' more is taken as better.* lower_is_better=\('{name}',\)"):
        dp.compare(train, P.Hardest(0.5), DIFFICULTY, seeds=2)
    assert dp.compare(train, P.Hardest(0.5), DIFFICULTY, seeds=2, lower_is_better=name).rows  # without a word


def test_an_interrupted_comparison_goes_on_where_it_was(tmp_path):
    whole = dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, seeds=3)
    breaking = Recorder()

    class Broken(Recorder):
        def __call__(self, sampler, seed):
            if len(self.visits) == 5:
                raise RuntimeError("the machine is gone")
            return super().__call__(sampler, seed)

    breaking = Broken()
    with pytest.raises(RuntimeError, match="machine"):
        dp.compare(breaking, P.Hardest(0.5), DIFFICULTY, seeds=3, folder=tmp_path)
    assert len(list(tmp_path.glob("*-*.json"))) == 5
    breaking.visits = [None] * 6
    found = dp.compare(breaking, P.Hardest(0.5), DIFFICULTY, seeds=3, folder=tmp_path)
    assert len(breaking.visits) == 6 + 12 - 5
    assert [row.results for row in found.rows] == [row.results for row in whole.rows]
    again = Broken()
    again.visits = [None] * 6  # beyond where it breaks
    more = dp.compare(again, [P.Hardest(0.5), P.Easiest(0.5)], DIFFICULTY, seeds=4, folder=tmp_path)
    assert len(again.visits) == 6 + 4 + 4  # the new policy, and the new seed of the others
    assert len(more.seeds) == 4


def test_a_folder_belongs_to_one_comparison(tmp_path):
    dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"holds another comparison.*difficulty"):
        dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY[::-1].copy(), seeds=2, folder=tmp_path)
    with pytest.raises(ValueError, match=r"holds another comparison.*train"):
        dp.compare(lambda sampler, seed: 0.5, P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}
    victim = next(iter(tmp_path.glob("*-1.json")))
    for damaged in (victim.read_bytes().replace(b"0.7", b"0.8"), b"\xff" + victim.read_bytes()):
        victim.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{victim.name}: not a finished training, or changed since"):
            dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path)
    victim.unlink()
    dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path)
    (tmp_path / "comparison.json").write_text("{")
    with pytest.raises(ValueError, match=r"comparison\.json: not the description"):
        dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path)


def of_values(array, model, *, rate=0.1):
    """A training of a partial, which would take minutes."""

    def train(sampler, seed, rate=rate):
        return 0.5 + 0 * array.sum()

    return partial(train, seed=1), partial(of_values, array, [model], {"a": array.tolist()})


def test_functions_are_told_apart_by_the_values_they_were_given():
    """Arrays too long to print, models of one shape, defaults, and what is enclosed."""
    array, other = np.zeros(5000), np.eye(1, 5000, 2500)[0]
    model, another = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    for of in (lambda x: x, torch.from_numpy, lambda x: torch.from_numpy(x).bfloat16(), lambda x: 1j * x):
        before, after = of_values(of(array), model), of_values(of(array.copy()), model)
        for number, (train, again) in enumerate(zip(before, after, strict=True)):
            assert source_of(train) == source_of(again)
            assert source_of(train) != source_of(of_values(of(other), model)[number])
    assert source_of(of_values(array, model)[0]) != source_of(of_values(array, model, rate=0.2)[0])
    assert source_of(of_values(array, model)[1]) != source_of(of_values(array, another)[1])
    assert " at 0x" not in source_of(partial(Recorder(), data=object(), made={Recorder().__call__}))


def of_code(build, sizes):
    """A training that encloses a class and a tuple."""

    def train(sampler, seed):
        return len(list(sampler)) * len(sizes) / len(build.__name__)

    return train


class Fixed:
    """A training with attributes, of which one can be used to reach it again."""

    def __init__(self, rate, build=torch.nn.Linear):
        self.rate, self.build, self.calls = rate, build, []
        self.again = partial(self.train, config=self)

    def train(self, sampler, seed, config=None):
        self.calls.append(seed)
        return self.rate + 0 * len(list(sampler))

    __call__ = train


def test_functions_are_told_apart_by_code_and_attributes_too():
    for same, again, other in (
        (of_code(torch.nn.Linear, (64, 32)), of_code(torch.nn.Linear, (64, 32)), of_code(torch.nn.Linear, (32, 64))),
        (of_code(torch.nn.Linear, ()), of_code(torch.nn.Linear, ()), of_code(torch.nn.Conv2d, ())),
        (Fixed(0.1), Fixed(0.1), Fixed(0.2)),
        (Fixed(0.1).train, Fixed(0.1).train, Fixed(0.2).train),
        (Fixed(0.1), Fixed(0.1), Fixed(0.1, torch.nn.Conv2d)),
        (partial(of_code, Fixed(0.1)), partial(of_code, Fixed(0.1)), partial(of_code, Fixed(0.2))),
    ):
        assert source_of(same) == source_of(again) != source_of(other)


def test_a_folder_does_not_give_the_results_of_another_object(tmp_path):
    assert dp.compare(Fixed(0.1).train, P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path).full.mean("value") == 0.1
    with pytest.raises(ValueError, match=r"holds another comparison.*source"):
        dp.compare(Fixed(0.2).train, P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path)


def test_a_folder_does_not_give_the_results_of_a_policy_that_differs_later(tmp_path):
    """Their first plans are the same, and so are the words in which they write themselves."""
    order = np.argsort(DIFFICULTY)
    ends = [P.WithoutWrong(P.EasyToHard(0.3, groups=5), wrong=part) for part in (order[-20:], order[-40:-20])]

    class Own:
        redrawn = True

        def __init__(self, later):
            self.later = later

        def at(self, epoch):
            return P.Hardest(self.later) if epoch else P.Random(0.5)

        def __call__(self, *arguments, generator=None):
            return self.at(0)(*arguments, generator=generator)

    for number, (one, other) in enumerate((ends, (Own(0.5), Own(0.5 + 1e-9)), (Own([0.5][0]), Own(0.4)))):
        folder, train = tmp_path / str(number), Recorder()
        for policy in (one, other):
            dp.compare(train, {"mine": policy}, DIFFICULTY, seeds=2, folder=folder)
        assert len(train.visits) == 2 * 3 + 2 * 2  # all but all data anew
        dp.compare(train, {"mine": one}, DIFFICULTY, seeds=2, folder=folder)
        assert len(train.visits) == 2 * 3 + 2 * 2
        both = dp.compare(Recorder(), {"one": one, "other": other}, DIFFICULTY, seeds=2)
        assert [row.names for row in both.policies if row.name in ("one", "other")] in (
            [("one",), ("other",)],
            [("other",), ("one",)],
        )


def test_a_folder_does_not_give_the_results_of_other_values(tmp_path):
    def trained(rate):
        return dp.compare(
            lambda sampler, seed: rate + 0 * len(list(sampler)), P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path
        )

    trained(0.1)
    assert len(trained(0.1).rows) == 4
    with pytest.raises(ValueError, match=r"holds another comparison.*source"):
        trained(0.2)


def test_any_executor_gives_the_same():
    alone = dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, seeds=3)
    with ThreadPoolExecutor(2) as executor:
        threads = dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, seeds=3, executor=executor)
    with ProcessPoolExecutor(1, get_context("fork")) as executor:
        processes = dp.compare(partial(Recorder(), **{}), P.Hardest(0.5), DIFFICULTY, seeds=3, executor=executor)
    for other in (threads, processes):
        assert [row.results for row in other.rows] == [row.results for row in alone.rows]
        assert [row.presentations for row in other.rows] == [row.presentations for row in alone.rows]
        assert all(row.seconds is None for row in other.rows)
    assert all(row.seconds is not None for row in alone.rows)


def test_trainings_that_ran_side_by_side_have_no_wall_time_afterwards_either(tmp_path):
    with ThreadPoolExecutor(2) as executor:
        dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, seeds=2, executor=executor, folder=tmp_path)
    again = dp.compare(Recorder(), [P.Hardest(0.5), P.Easiest(0.5)], DIFFICULTY, seeds=2, folder=tmp_path)
    assert [row.seconds is None for row in again.rows] == [True] * 4 + [False]
    assert "seconds" not in str(again)


def test_a_failure_in_an_executor_ends_the_comparison_and_keeps_what_is_finished(tmp_path):
    def train(sampler, seed):
        if seed == 1:
            raise RuntimeError("out of memory")
        return Recorder()(sampler, seed)

    with ThreadPoolExecutor(1) as executor, pytest.raises(RuntimeError, match="out of memory"):
        dp.compare(train, P.Hardest(0.5), DIFFICULTY, seeds=2, executor=executor, folder=tmp_path)
    assert len(list(tmp_path.glob("*-0.json"))) == 4


def test_seeds_are_added_until_the_interval_is_narrow():
    first = dp.compare(Recorder(noise=0.02), P.Hardest(0.5), DIFFICULTY)
    width = first.widest
    train = Recorder(noise=0.02)
    found = dp.compare(train, P.Hardest(0.5), DIFFICULTY, until=width / 2)
    assert 5 < len(found.seeds) < 30
    assert found.widest < width / 2
    assert len(train.visits) == 4 * len(found.seeds)
    assert len(dp.compare(Recorder(noise=0.02), P.Hardest(0.5), DIFFICULTY, until=1e-9, most=7).seeds) == 7
    assert len(dp.compare(Recorder(), P.Hardest(0.5), DIFFICULTY, until=100.0).seeds) == 5


def test_the_sampler_of_a_training_counts_what_is_drawn_and_is_a_sampler():
    sampler = CountingSampler(P.Hardest(0.5), DIFFICULTY, seed=3)
    assert list(sampler) == list(dp.PruneSampler(P.Hardest(0.5), DIFFICULTY, seed=3))
    loader = torch.utils.data.DataLoader(torch.arange(SIZE), batch_size=7, sampler=sampler)
    assert sum(len(batch) for batch in loader) == 100
    assert sampler.presentations == 200
    assert len(copy.deepcopy(sampler)) == 100


def value(what, epochs=1):
    def train(sampler, seed):
        for _ in range(epochs):  # all of them the same
            list(sampler)
        return what

    return train


@pytest.mark.parametrize(
    ("attempt", "error", "says"),
    [
        (dict(train=0.5), TypeError, "train: got 0.5"),
        (dict(train=value(math.nan)), ValueError, "value nan from the training on all data with seed 0"),
        (dict(train=value("good")), TypeError, "value 'good'"),
        (dict(train=value(None)), TypeError, "value None"),
        (dict(train=value({})), ValueError, "at least one number"),
        (dict(train=value({"a": [0.5]})), ValueError, "at least one number"),
        (dict(train=value({1: 0.5})), TypeError, "metric 1"),
        (dict(train=lambda sampler, seed: 0.5), ValueError, "drew nothing from its sampler"),
        (dict(train=value(0.5, 3)), ValueError, "drew 600 positions of epoch 0, which are the same again and again"),
        (dict(executor=3), TypeError, "executor: got 3, expected a concurrent.futures.Executor"),
        (dict(policies="hardest"), TypeError, "policies: got 'hardest', expected policies such as"),
        (dict(policies=3), TypeError, "policies: got 3, expected policies such as"),
        (dict(train=value({"a": 0.5, "b": [math.inf]})), ValueError, "got b inf of class 0 from .*, expected a finite"),
        (dict(train=value(0.5), lower_is_better=("loss",)), ValueError, "lower_is_better: got 'loss'"),
        (dict(policies=P.Hardest), TypeError, "policies: got <class.*keep="),
        (dict(policies=[]), ValueError, "policies: got none"),
        (dict(policies=[P.Hardest(0.5), P.Hardest(0.5)]), ValueError, "twice"),
        (dict(policies=[0.5]), TypeError, "policies: got 0.5"),
        (dict(policies=P.Hardest(0.5), keep=0.3), TypeError, r"policies: got Hardest\(keep=0.5\) beside keep"),
        (dict(policies={"all data": P.Hardest(0.5)}), ValueError, "policies: 'all data' is the name of Hardest"),
        (dict(policies={"a random 50 %": P.Hardest(0.5)}), ValueError, "policies: 'a random 50 %' is the name of"),
        (dict(policies=P.Hardest, keep=1.5), ValueError, "keep: got 1.5"),
        (dict(difficulty=[0.0, math.nan]), ValueError, "1 of 2 examples are NaN"),
        (dict(difficulty=lambda: DIFFICULTY), TypeError, "difficulty: got <function"),
        (dict(labels=[0, 1]), ValueError, r"labels: got shape \(2,\)"),
        (dict(seeds=0), ValueError, "seeds: got 0"),
        (dict(seeds=[1, 1]), ValueError, "each of them once"),
        (dict(seeds=1, until=0.5), ValueError, "seeds: got 1 with until 0.5"),
        (dict(until=0), ValueError, "until: got 0"),
        (dict(until="0.5"), TypeError, "until: got '0.5'"),
        (dict(most=0), ValueError, "most: got 0"),
        (dict(level=95), ValueError, "level: got 95"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(attempt, error, says):
    arguments = dict(train=Recorder(), policies=P.Hardest(0.5), difficulty=DIFFICULTY, seeds=2) | attempt
    with pytest.raises(error, match=says):
        dp.compare(**arguments)
    if isinstance(arguments["train"], Recorder):
        assert not arguments["train"].visits  # before any training


def test_a_random_part_of_another_size_does_not_stand_for_chance():
    """Of examples without a score `Random` keeps all, so that its name says less than it keeps."""
    difficulty = np.where(np.arange(100) < 20, math.nan, np.arange(100.0))
    policies = [P.Random(0.5, unseen="keep"), P.Hardest(0.375, unseen="keep")]
    with pytest.raises(ValueError, match=r"policies: 'a random 50 %' is the name of .* of another training too"):
        dp.compare(value(0.5), policies, difficulty, seeds=2)
    named = dp.compare(value(0.5), {"mine": policies[0], "yours": policies[1]}, difficulty, seeds=2)
    assert {row.name: row.examples for row in named.rows if row.kind == "chance"} == {
        "a random 60 %": 60,
        "a random 50 %": 50,
    }


def test_a_metric_that_no_training_has_ends_the_first_one(tmp_path):
    seen = []

    def train(sampler, seed):
        seen.append(list(sampler))
        return {"accuracy": torch.tensor(0.5, dtype=torch.bfloat16), "of classes": torch.tensor([0.5, math.nan])}

    for options in ({}, {"folder": tmp_path}):
        with pytest.raises(ValueError, match=r"lower_is_better: got 'loss', but .* gave accuracy, of classes; name"):
            dp.compare(train, P.Hardest(0.5), DIFFICULTY, seeds=3, lower_is_better=("loss",), **options)
    assert len(seen) == 2
    dp.compare(train, P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path)
    trained = len(seen)
    with pytest.raises(ValueError, match=r"lower_is_better: got 'loss', but .*json gave"):  # which is read, not trained
        dp.compare(train, P.Hardest(0.5), DIFFICULTY, seeds=2, folder=tmp_path, lower_is_better="loss")
    assert len(seen) == trained


def test_differences_of_a_metric_have_one_unit():
    """A policy that has R2 below 0 makes it no share, for the others too, or `until` would compare points with it."""

    def train(sampler, seed):
        visited = list(sampler)
        few, luck = len(visited) < SIZE / 2, np.random.default_rng([seed, *visited]).normal(size=2) * 0.01
        return {"R2": (-0.2 if few else 0.4) + luck[0], "R2 of": {"a": 0.4, "b": (1.2 if few else 0.9) + luck[1]}}

    found = dp.compare(train, [P.Hardest(0.5), P.Easiest(0.3)], DIFFICULTY, seeds=3)
    for row in found.policies:
        assert not any(verdict.points for verdict in row.of("R2"))
        for of_classes in row.class_verdicts["R2 of"].values():
            assert not any(verdict.points for verdict in of_classes.values())
    widths = [row.verdicts["R2"]["chance"].interval for row in found.policies]
    assert found.widest == pytest.approx(max(high - low for low, high in widths))


def test_metrics_that_change_are_refused():
    names = iter(["accuracy", "error"])

    def train(sampler, seed):
        list(sampler)
        return {next(names): 0.5}

    with pytest.raises(ValueError, match=r"got \['error'\].*expected \['accuracy'\]"):
        dp.compare(train, P.Hardest(0.5), DIFFICULTY, seeds=2)
    of_classes = iter([{"per class": [0.5]}, {}])
    with pytest.raises(ValueError, match=r"got \['accuracy'\].*expected \['accuracy', 'per class'\]"):
        dp.compare(
            lambda sampler, seed: {"accuracy": 0 * len(list(sampler)), **next(of_classes)},
            P.Hardest(0.5), DIFFICULTY, seeds=2,
        )  # fmt: skip


def test_policies_that_go_through_the_data_have_words_and_a_random_part_of_each_epoch_to_beat():
    confidence = np.linspace(0, 1, SIZE)
    assert in_words(P.EasyToHard(0.5), "el2n") == "50 % from easy to hard by el2n"
    assert in_words(P.Review(0.5, gap=4), "el2n") == "the hardest 50 % with reviews within 4 epochs by el2n"
    assert in_words(P.BetaSampling(0.3, confidence), "dual") == "a Beta-sampled 30 % by dual"
    assert in_words(P.Budget(P.Hardest(0.5), confidence), "el2n") == "the hardest 50 % of the cost by el2n"
    assert in_words(P.Budget(P.Random(0.5), confidence), "el2n") == "a random 50 % of the cost"
    without = P.WithoutWrong(P.PerClass(P.Random(0.5)), [3])
    assert in_words(without, "el2n") == "a random 50 % of each class without 1 likely mislabelled"
    reviews = dp.compare(Recorder(), [P.EasyToHard(0.5), P.Review(0.5, gap=4)], DIFFICULTY, seeds=2, by="el2n")
    assert [row.names for row in reviews.rows if row.kind == "few"] == [
        (
            "all data, cut like 50 % from easy to hard by el2n",
            "all data, cut like the hardest 50 % with reviews within 4 epochs by el2n",
        )
    ]
    for policy in (P.EasyToHard(0.5), P.Review(0.5, gap=4)):
        _, chance, own = make_arms({"it": policy}, {"it": SIZE // 2}, SIZE)
        assert isinstance(chance.policy, SameSize)
        assert own.against == {"chance": chance.name, "all": "all data", "few": chance.name}
        sampler = dp.PruneSampler(chance.policy, DIFFICULTY, seed=0)
        first = set(sampler)
        sampler.set_epoch(1)
        second = set(sampler)
        assert len(first) == len(second) == SIZE // 2
        assert 20 < len(first & second) < 80  # of 100 each: another random part
