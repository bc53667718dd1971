"""Tables of ids and probabilities: what goes in comes out, damaged and foreign files do not, and memory is bounded."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import difficulty_prune as dp
from difficulty_prune.policies.easy_to_hard import EasyToHard
from difficulty_prune.policies.uniform import Hardest, Random
from difficulty_prune.policies.weighted import SoftPrune
from difficulty_prune.streams import build_table
from difficulty_prune.support.files import save_vectors

pytest.importorskip("xxhash", reason="xxhash is not installed")

numbers = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60, unique=True)
texts = st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=60, unique=True)
in_folder = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path, ids, p, **options):
    return dp.InclusionTable.write(path, [(ids, p)], **{"weighted": False, **options})


@in_folder
@given(ids=numbers | texts, data=st.data())
def test_what_goes_in_comes_out_in_any_order_and_others_are_unknown(tmp_path, ids, data):
    p = data.draw(st.lists(st.floats(0, 1, width=32), min_size=len(ids), max_size=len(ids)))
    *known, left = ids
    if not known:
        return
    table = write(tmp_path / "table", known, p[:-1])
    expected = dict(zip(known, np.array(p, np.float32), strict=False))
    asked = data.draw(st.permutations([*ids, *known]))
    found = table.inclusion(asked)
    np.testing.assert_array_equal(found, [expected.get(name, np.nan) for name in asked])
    look_up = table.lookup()
    for name, value in zip(asked, found, strict=True):
        one = look_up(name)[1]
        assert (one is None) if np.isnan(value) else (one == value)
    assert look_up(left)[1] is None
    assert len(table) == len(known)


@pytest.mark.parametrize("size", [1, 127, 129, 5_000, 40_000])
def test_blocks_of_any_size_make_the_same_file(tmp_path, size, monkeypatch):
    ids = np.random.default_rng(0).permutation(size * 7)[:size]
    p = np.random.default_rng(1).random(size)
    whole = write(tmp_path / "whole", ids, p)
    monkeypatch.setattr(build_table, "_BLOCK", 1_000)
    cuts = [0, size // 3, size // 3, size // 2, size]
    parts = [(ids[a:b].tolist(), torch.from_numpy(p[a:b])) for a, b in itertools.pairwise(cuts)]
    dp.InclusionTable.write(tmp_path / "parts", parts, weighted=False)
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()
    np.testing.assert_array_equal(whole.inclusion(ids), p.astype(np.float32))
    look_up = whole.lookup()
    assert [look_up(name)[1] for name in ids[:300].tolist()] == p[:300].astype(np.float32).tolist()
    assert np.isnan(whole.inclusion(np.arange(size * 7, size * 9))).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_an_example_takes_12_bytes(tmp_path):
    size = 200_000
    write(tmp_path / "table", np.arange(size), np.full(size, 0.5))
    assert (tmp_path / "table").stat().st_size < 12.1 * size + 1_000


def test_a_table_of_a_policy(tmp_path):
    difficulty = torch.arange(8.0)
    table = dp.InclusionTable.build(tmp_path / "soft", [*"abcdefgh"], SoftPrune(0.75, anneal=0.5, epochs=6), difficulty)
    assert table.inclusion([*"hab"]).tolist() == [1, 0.5, 0.5]
    assert (table.kind, table.weighted, table.redrawn, table.full_from) == ("text", True, True, 3)
    assert table.policy == "SoftPrune(keep=0.75, anneal=0.5, epochs=6, easy_keep=None)"
    assert repr(table) == f"InclusionTable(8 text ids, {table.policy})"
    hardest = dp.InclusionTable.build(tmp_path / "hard", range(8), Hardest(0.25), difficulty)
    assert (hardest.kind, hardest.weighted, hardest.redrawn, hardest.full_from) == ("number", False, False, None)
    assert np.nansum(hardest.inclusion(range(9))) == 2
    per_class = dp.policies.PerClass(SoftPrune(0.5, anneal=0.5, epochs=4))
    of_classes = dp.InclusionTable.build(tmp_path / "class", range(8), per_class, difficulty, [0, 1] * 4)
    assert (of_classes.weighted, of_classes.redrawn, of_classes.full_from) == (True, True, 2)
    numpy = write(tmp_path / "numpy", [1], [0.5], weighted=np.bool_(True), full_from=np.int64(3))
    assert (numpy.weighted, numpy.full_from) == (True, 3)
    plan = dp.InclusionTable.build(tmp_path / "plan", range(8), Random(0.25)(difficulty), difficulty)
    assert sorted(plan.inclusion(range(8)).tolist()) == [0] * 6 + [1] * 2


def test_what_a_table_cannot_say_is_refused(tmp_path):
    difficulty, path = torch.arange(8.0), tmp_path / "table"
    with pytest.raises(ValueError, match=r"policy: got Plan\(4 examples\) with weights up to 3"):
        dp.InclusionTable.build(path, range(8), SoftPrune(0.5)(difficulty), difficulty)
    with pytest.raises(TypeError, match="does not say with what probability"):
        dp.InclusionTable.build(path, range(8), lambda *given: SoftPrune(0.5)(*given), difficulty)
    with pytest.raises(ValueError, match="ids: got 7, expected 8"):
        dp.InclusionTable.build(path, range(7), Hardest(0.5), difficulty)
    for ids, p, options, message in [
        ([1, 2], [0.5], {}, r"p: got shape \(1,\) for 2 ids"),
        ([1, 2], [0.5, 1.5], {}, "p: got 1.5 for id 2"),
        ([1, 2], [0.5, np.nan], {}, "p: got nan for id 2"),
        ([1, 2], [0.5, 0], {"weighted": True}, "p: got 0.0 for id 2, which would never come"),
        ([1, 2], [0.5, 1e-40], {"weighted": True}, "p: got 1e-40"),
        ([], [], {}, "ids: got none"),
        ([5, 6, 5], [0.5] * 3, {}, "ids: number 0 and number 2, counted from 0, are the same"),
        (["", "b"], [0.5] * 2, {}, "empty text"),
    ]:
        with pytest.raises(ValueError, match=message):
            write(path, ids, p, **options)
    with pytest.raises(TypeError, match="both texts and numbers, such as 1 and 'a'"):
        dp.InclusionTable.write(path, [([1], [0.5]), (["a"], [0.5])], weighted=False)
    for blocks, options, message in [
        ([([1], [0.5])], {"weighted": 1}, "weighted: got 1, expected True or False"),
        ([([1], [0.5])], {"redrawn": None}, "redrawn: got None, expected True or False"),
        ([([1], [0.5])], {"policy": Random(0.3)}, r"policy: got Random\(keep=0.3\), expected a text"),
        ([([1], [0.5])], {"full_from": 1.0}, "full_from: got 1.0"),
        (([1, 2, 3], [0.5] * 3), {}, r"blocks: got \[1, 2, 3\] among them, expected pairs"),
        ({"a": 0.5}, {}, "blocks: got 'a' among them, expected pairs"),
    ]:
        with pytest.raises(TypeError, match=message):
            dp.InclusionTable.write(path, blocks, **{"weighted": False, **options})
    assert list(tmp_path.iterdir()) == []


def test_two_texts_with_one_hash_are_refused_and_another_salt_helps(tmp_path, monkeypatch):
    real = build_table.hash_ids
    monkeypatch.setattr(build_table, "hash_ids", lambda ids, salt: real(ids, salt) >> np.uint64(60 if salt == 0 else 0))
    ids = [f"image-{i}" for i in range(20)]
    with pytest.raises(ValueError, match=r"have the same hash: .* for which salt=1 helps"):
        write(tmp_path / "table", ids, [0.5] * 20)
    assert not (tmp_path / "table").exists()
    assert write(tmp_path / "table", ids, [0.5] * 20, salt=1).inclusion(ids).tolist() == [0.5] * 20


def test_ids_of_the_other_kind_are_refused_and_not_unknown(tmp_path):
    table = write(tmp_path / "table", ["7", "8"], [0.5, 0.5])
    for ask in (lambda: table.inclusion([7]), lambda: table.lookup()(7)):
        with pytest.raises(TypeError, match="ids: got 7, expected a text, as the ids of"):
            ask()
    with pytest.raises(TypeError, match="expected a number"):
        write(tmp_path / "numbers", [7], [0.5]).inclusion(["7"])
    assert table.inclusion([]).shape == (0,)


def test_it_travels_as_its_path_and_a_replaced_file_is_noticed(tmp_path):
    table = write(tmp_path / "table", [1, 2], [0.25, 0.5])
    content = pickle.dumps(table)
    assert len(content) < 500
    assert pickle.loads(content).inclusion([2, 1, 3]).tolist()[:2] == [0.5, 0.25]  # noqa: S301
    assert copy.deepcopy(table) is table
    write(tmp_path / "table", [1, 2], [0.25, 0.75])
    assert table.inclusion([2]).tolist() == [0.5]  # the old file, until it is closed
    with pytest.raises(ValueError, match="the file was replaced by another table"):
        pickle.loads(content)  # noqa: S301


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "table"
    write(path, np.arange(400), np.full(400, 0.5))
    content = path.read_bytes()
    for end in [0, 7, 8, 100, len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match="table"):
            dp.InclusionTable(path)
    for place in np.random.default_rng(0).permutation(len(content))[:200].tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises((ValueError, TypeError)):
            dp.InclusionTable(path)
    path.write_bytes(content)
    assert len(dp.InclusionTable(path)) == 400
    with pytest.raises(FileNotFoundError, match="no such file"):
        dp.InclusionTable(tmp_path / "none")


def test_foreign_files_are_refused(tmp_path):
    dp.Plan(torch.tensor([0]), torch.ones(1)).save(tmp_path / "plan")
    with pytest.raises(ValueError, match="holds a plan, expected a table"):
        dp.InclusionTable(tmp_path / "plan")
    table = write(tmp_path / "table", [1, 2], [0.25, 0.5])
    rules = {**table.rules.__dict__}
    arrays = {"hash": np.arange(2, dtype=np.uint64), "starts": np.array([0, 2], np.uint64), "p": np.ones(2, np.float32)}
    for wrong in [
        {"rules": {}},
        {"rules": {**rules, "kind": "colour"}},
        {"rules": {**rules, "bits": 3}},
        {"rules": {**rules, "weighted": 1}},
        {"rules": {**rules, "salt": -1}},
        {"rules": {**rules, "full_from": "never"}},
        {"rules": None},
    ]:
        save_vectors(tmp_path / "odd", build_table.KIND, 1, arrays, wrong)
        with pytest.raises(ValueError, match="odd: not a valid table"):
            dp.InclusionTable(tmp_path / "odd")
    for name, values in [("p", np.ones(3, np.float32)), ("p", np.ones(2)), ("starts", np.array([0, 9], np.uint64))]:
        save_vectors(tmp_path / "odd", build_table.KIND, 1, {**arrays, name: values}, {"rules": rules})
        with pytest.raises(ValueError, match="odd: "):
            dp.InclusionTable(tmp_path / "odd")
    save_vectors(tmp_path / "new", build_table.KIND, 2, arrays, {"rules": rules})
    with pytest.raises(ValueError, match="newer"):
        dp.InclusionTable(tmp_path / "new")


@pytest.mark.parametrize("policy", [dp.policies.EasyToHard(0.5), dp.policies.Review(0.5, gap=4)], ids=repr)
def test_a_policy_that_keeps_others_in_each_epoch_needs_a_table_for_each(tmp_path, policy):
    ids, difficulty = list(range(20)), torch.arange(20.0)
    with pytest.raises(ValueError, match=r"keeps others in every epoch.*InclusionTable.build\(..., epoch=0\)"):
        dp.InclusionTable.build(tmp_path / "table", ids, policy, difficulty)
    assert not (tmp_path / "table").exists()
    for epoch in (0, 3):
        table = dp.InclusionTable.build(tmp_path / "table", ids, policy, difficulty, epoch=epoch)
        expected = policy.at(epoch).inclusion(difficulty)
        np.testing.assert_array_equal(table.inclusion(ids), expected.numpy().astype(np.float32))
        assert table.full_from is None
    soft = dp.InclusionTable.build(tmp_path / "soft", ids, SoftPrune(0.5, anneal=0.5, epochs=2), difficulty)
    assert soft.full_from == 1


@pytest.mark.parametrize("policy", [EasyToHard(0.5, anneal=0.5, epochs=2), SoftPrune(0.5, anneal=0.5, epochs=2)])
def test_what_is_left_out_in_every_epoch_does_not_come_back_with_the_others(tmp_path, policy):
    ids, difficulty = list(range(20)), torch.arange(20.0)
    policy = dp.policies.WithoutWrong(policy, wrong=0.1)
    with pytest.raises(ValueError, match="leaves some out in every epoch, and others until epoch 1"):
        dp.InclusionTable.build(tmp_path / "table", ids, policy, difficulty)
    if not policy.unbiased:
        table = dp.InclusionTable.build(tmp_path / "table", ids, policy, difficulty, epoch=1)
        assert table.inclusion(ids).tolist() == [1.0] * 18 + [0.0] * 2


@pytest.mark.parametrize("other", [{"weighted": False}, {"redrawn": False}, {"full_from": 3}], ids=str)
def test_a_file_with_other_rules_is_another_table(tmp_path, other):
    rules = {"weighted": True, "redrawn": True, "full_from": None}
    content = pickle.dumps(dp.InclusionTable.write(tmp_path / "table", [([1, 2], [0.25, 0.5])], **rules))
    dp.InclusionTable.write(tmp_path / "table", [([1, 2], [0.25, 0.5])], **{**rules, **other})
    with pytest.raises(ValueError, match="the file was replaced by another table"):
        pickle.loads(content)  # noqa: S301


def test_a_url_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def blocks():
        pytest.fail("a block was asked for")
        yield [1], [0.5]

    with pytest.raises(ValueError, match="memory://keep/table: such a file is written to a folder of this machine"):
        dp.InclusionTable.write("memory://keep/table", blocks(), weighted=True)
    assert list(tmp_path.iterdir()) == []
