"""Datasets that carry positions through a real DataLoader, and fingerprints that tell datasets apart."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import difficulty_prune as dp
from difficulty_prune.data import dataset_labels

SIZE = 23  # a prime, so that the last batch is incomplete


class Tuples(Dataset):
    """Sample i is (a vector that holds i, the label i % 3)."""

    def __len__(self):
        return SIZE

    def __getitem__(self, i):
        return torch.tensor([float(i), 0.5]), i % 3


class Lists(Tuples):
    def __getitem__(self, i):
        return list(super().__getitem__(i))


class Dicts(Tuples):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return {"input": x, "label": y}


class Bare(Tuples):
    def __getitem__(self, i):
        return super().__getitem__(i)[0]


class Batched(Tuples):
    """Fetches whole batches and remembers them; one by one is refused."""

    def __init__(self):
        self.calls = []

    def __getitem__(self, i):
        raise AssertionError("a batch was fetched one by one")

    def __getitems__(self, positions):
        self.calls.append(list(positions))
        return [Tuples.__getitem__(self, i) for i in positions]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(3))


class Unsized(Dataset):
    def __getitem__(self, i):
        return i


class Augmented(Tuples):
    """Adds noise to the examples of `noisy`, as a random augmentation does."""

    def __init__(self, noisy):
        self.noisy = noisy

    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return (x + torch.rand(2), y) if i in self.noisy else (x, y)


def unpack(batch):
    """(inputs, index) of a collated batch, whatever the samples were."""
    if isinstance(batch, dict):
        return batch["input"], batch["index"]
    return batch[0], batch[-1]


def check_epoch(loader):
    """Every position comes exactly once, with its own input; returns the order."""
    order = []
    for batch in loader:
        inputs, index = unpack(batch)
        assert index.dtype == torch.int64
        assert index.shape == inputs.shape[:1]
        assert inputs[:, 0].tolist() == [float(i) for i in index.tolist()]
        order += index.tolist()
    assert sorted(order) == list(range(SIZE))
    return order


# IndexedDataset


@pytest.mark.parametrize("kind", [Tuples, Lists, Dicts, Bare, Batched])
def test_loader_delivers_each_example_with_its_position(kind):
    indexed = dp.IndexedDataset(kind())
    in_order = check_epoch(DataLoader(indexed, batch_size=4))
    shuffled = check_epoch(DataLoader(indexed, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(3)))
    assert in_order == list(range(SIZE))
    assert shuffled != in_order


@pytest.mark.parametrize(("kind", "columns"), [(Tuples, 3), (Lists, 3), (Bare, 2)])
def test_index_is_the_last_element(kind, columns):
    sample = dp.IndexedDataset(kind())[5]
    assert len(sample) == columns
    assert sample[-1] == 5
    assert isinstance(sample[-1], int)


def test_kind_of_sample_is_kept():
    assert type(dp.IndexedDataset(Tuples())[0]) is tuple
    assert type(dp.IndexedDataset(Lists())[0]) is list
    assert type(dp.IndexedDataset(Dicts())[0]) is dict


def test_labels_stay_beside_their_inputs():
    for x, y, index in DataLoader(dp.IndexedDataset(Tuples()), batch_size=5, shuffle=True):
        assert torch.equal(y, index % 3)
        assert torch.equal(x[:, 0].long(), index)


def test_mapping_sample_gains_the_chosen_key_and_is_not_changed():
    sample = {"input": 1.0}
    indexed = dp.IndexedDataset([sample], index_key="position")
    assert indexed[0] == {"input": 1.0, "position": 0}
    assert sample == {"input": 1.0}


def test_key_that_is_taken_is_refused():
    with pytest.raises(ValueError, match=r"'index' already.*key="):
        dp.IndexedDataset([{"index": 7}])[0]


def test_batches_are_fetched_by_one_call_each():
    dataset = Batched()
    order = check_epoch(DataLoader(dp.IndexedDataset(dataset), batch_size=6, shuffle=True))
    assert dataset.calls == [order[i : i + 6] for i in range(0, SIZE, 6)]


def test_batch_fetch_of_the_wrong_length_is_noticed():
    class Short(Batched):
        def __getitems__(self, positions):
            return super().__getitems__(positions)[:-1]

    with pytest.raises(ValueError):
        dp.IndexedDataset(Short()).__getitems__([0, 1, 2])


def test_negative_positions_count_from_the_end():
    indexed = dp.IndexedDataset(Tuples())
    x, _, index = indexed[-1]
    assert (index, x[0].item()) == (SIZE - 1, SIZE - 1)
    assert [sample[-1] for sample in indexed.__getitems__([-1, 0, -SIZE])] == [SIZE - 1, 0, 0]


@pytest.mark.parametrize("position", [SIZE, -SIZE - 1, 10**12])
def test_positions_outside_are_refused(position):
    indexed = dp.IndexedDataset(Tuples())
    with pytest.raises(IndexError, match=rf"{position}.*0\.\.{SIZE - 1}"):
        indexed[position]
    with pytest.raises(IndexError, match=rf"{position}.*0\.\.{SIZE - 1}"):
        indexed.__getitems__([0, position])


def test_plain_iteration_ends():
    assert [sample[-1] for sample in dp.IndexedDataset(Tuples())] == list(range(SIZE))


def test_subset_is_numbered_by_its_own_positions():
    indexed = dp.IndexedDataset(Subset(Tuples(), [9, 4, 7]))
    assert len(indexed) == 3
    assert [(int(x[0]), index) for x, _, index in indexed] == [(9, 0), (4, 1), (7, 2)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # machines with one core
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # Python 3.12 and later
@pytest.mark.parametrize(("context", "kind"), [("fork", Tuples), ("fork", Dicts), ("spawn", Tuples)])
def test_worker_processes(context, kind, monkeypatch):
    if context not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {context} on this system")
    # A spawned worker imports this module by its name, from the folder that the name starts at.
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[__name__.count(".")])
    loader = DataLoader(
        dp.IndexedDataset(kind()),
        batch_size=4,
        shuffle=True,
        num_workers=2,
        multiprocessing_context=context,
        generator=torch.Generator().manual_seed(0),
    )
    order = check_epoch(loader)
    assert order != sorted(order)


def test_pickle_keeps_the_dataset_and_the_key():
    indexed = dp.IndexedDataset([{"x": 1}, {"x": 2}], index_key="position")
    copy = pickle.loads(pickle.dumps(indexed))  # noqa: S301 - written one call earlier
    assert copy[1] == {"x": 2, "position": 1}
    assert len(copy) == 2


def test_iterable_datasets_are_refused():
    with pytest.raises(TypeError, match=r"Stream.*map-style.*dp\.StreamIndex.*dp\.StreamPruner"):
        dp.IndexedDataset(Stream())
    with pytest.raises(TypeError, match=r"generator.*map-style"):
        dp.IndexedDataset(i for i in range(3))


def test_unsized_and_empty_datasets_are_refused():
    with pytest.raises(TypeError, match=r"Unsized has no __len__"):
        dp.IndexedDataset(Unsized())
    with pytest.raises(ValueError, match="list is empty"):
        dp.IndexedDataset([])


# dataset_fingerprint


def make(size=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, generator=generator), torch.arange(size) % 7


def test_fingerprint_is_the_same_for_the_same_content():
    a, b = dp.dataset_fingerprint(TensorDataset(*make())), dp.dataset_fingerprint(TensorDataset(*make()))
    assert a == b
    assert len(a) == 32
    assert int(a, 16) >= 0


def test_fingerprint_sees_through_the_wrapper():
    plain = TensorDataset(*make())
    once = dp.IndexedDataset(plain)
    assert dp.dataset_fingerprint(once) == dp.dataset_fingerprint(plain)
    assert dp.dataset_fingerprint(dp.IndexedDataset(once)) == dp.dataset_fingerprint(plain)


def test_fingerprint_does_not_depend_on_the_kind_of_array():
    x, y = make()
    as_numpy = [(image.numpy(), int(label)) for image, label in zip(x, y, strict=True)]
    as_lists = [[image, label] for image, label in zip(x, y, strict=True)]
    expected = dp.dataset_fingerprint(TensorDataset(x, y))
    assert dp.dataset_fingerprint(as_numpy) == expected
    assert dp.dataset_fingerprint(as_lists) == expected


def test_fingerprint_of_mappings_does_not_depend_on_the_order_of_keys():
    a = [{"input": torch.ones(2), "label": 1}, {"input": torch.zeros(2), "label": 0}]
    b = [dict(reversed(sample.items())) for sample in a]
    assert dp.dataset_fingerprint(a) == dp.dataset_fingerprint(b)


def swapped_labels(x, y):
    y = y.clone()
    y[[1, 2]] = y[[2, 1]]
    return x, y


def one_label(x, y):
    y = y.clone()
    y[1] = 6
    return x, y


def another_order(x, y):
    order = torch.arange(len(x)).flip(0)
    return x[order], y[order]


def one_less(x, y):
    return x[:-1], y[:-1]


def first_example(x, y):
    x = x.clone()
    x[0, 0] += 1e-3
    return x, y


def last_example(x, y):
    x = x.clone()
    x[-1, 2] += 1e-3
    return x, y


@pytest.mark.parametrize(
    "change",
    [one_label, swapped_labels, another_order, one_less, first_example, last_example],
    ids=lambda f: f.__name__,
)
def test_fingerprint_tells_changed_data_apart(change):
    x, y = make()
    before = dp.dataset_fingerprint(TensorDataset(x, y), samples=16)
    assert dp.dataset_fingerprint(TensorDataset(*change(x, y)), samples=16) != before


def test_fingerprint_of_all_examples_sees_any_change():
    x, y = make(50)
    changed = x.clone()
    changed[33, 1] += 1e-3
    a, b = TensorDataset(x, y), TensorDataset(changed, y)
    assert dp.dataset_fingerprint(a, samples=50) != dp.dataset_fingerprint(b, samples=50)


def test_fingerprint_tells_shapes_apart():
    y = torch.zeros(4)
    flat, square = TensorDataset(torch.ones(4, 4), y), TensorDataset(torch.ones(4, 2, 2), y)
    assert dp.dataset_fingerprint(flat) != dp.dataset_fingerprint(square)


def test_fingerprint_with_explicit_labels():
    x, y = make()
    dataset = TensorDataset(x, y)
    default = dp.dataset_fingerprint(dataset)
    assert dp.dataset_fingerprint(dataset, labels=y) == default
    assert dp.dataset_fingerprint(dataset, labels=y.tolist()) == default
    assert dp.dataset_fingerprint(dataset, labels=y.flip(0)) != default
    with pytest.raises(ValueError, match=r"\(199,\).*\[200\]"):
        dp.dataset_fingerprint(dataset, labels=y[:-1])


def test_unlabelled_data_can_be_identified_by_given_labels():
    images = TensorDataset(make()[0])
    assert dp.dataset_fingerprint(images) != dp.dataset_fingerprint(images, labels=[0] * 200)
    assert dp.dataset_fingerprint(images, labels=[0] * 200) != dp.dataset_fingerprint(images, labels=[1] * 200)


def test_fingerprint_refuses_random_augmentation():
    with pytest.raises(ValueError, match="random augmentation"):
        dp.dataset_fingerprint(Augmented(noisy=range(SIZE)))


def test_fingerprint_refuses_augmentation_that_spares_the_first_example():
    with pytest.raises(ValueError, match="random augmentation"):
        dp.dataset_fingerprint(Augmented(noisy=[5]), samples=SIZE)


def test_fingerprint_refuses_an_empty_dataset():
    with pytest.raises(ValueError, match="list is empty"):
        dp.dataset_fingerprint([])


# Labels


class WithTargets(Dataset):
    """Knows its labels without reading an example."""

    targets = (2, 0, 1)

    def __len__(self):
        return 3

    def __getitem__(self, i):
        raise AssertionError("an example was read for its label")


def test_labels_are_taken_from_targets_without_reading():
    assert dataset_labels(WithTargets()).tolist() == [2, 0, 1]
    assert dataset_labels(Subset(WithTargets(), [2, 0])).tolist() == [1, 2]
    assert dataset_labels(dp.IndexedDataset(WithTargets())).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(torch.zeros(3, 2), torch.tensor([2, 0, 1])),
        [("a", 2), ("b", 0), ("c", 1)],
        [{"x": 0, "label": 2}, {"x": 0, "label": 0}, {"x": 0, "label": 1}],
        [{"x": 0, "labels": torch.tensor(2)}, {"x": 0, "labels": torch.tensor(0)}, {"x": 0, "labels": torch.tensor(1)}],
        Subset([("z", 9), ("a", 2), ("b", 0), ("y", 8), ("c", 1)], [1, 2, 4]),
        Subset(Subset(TensorDataset(torch.zeros(4), torch.tensor([5, 1, 0, 2])), [3, 2, 1]), [0, 1, 2]),
        Subset(dp.IndexedDataset([("b", 0), ("c", 1), ("a", 2)]), [2, 0, 1]),
    ],
    ids=["tensors", "tuples", "label", "labels", "subset", "subset of subset", "subset of indexed"],
)
def test_labels_in_order(dataset):
    labels = dataset_labels(dataset)
    assert labels.tolist() == [2, 0, 1]
    assert labels.dtype == np.int64


def test_fingerprint_of_a_subset_is_that_of_the_same_examples():
    x, y = make()
    rows = list(range(10, 60))
    subset = Subset(TensorDataset(x, y), rows)
    assert dp.dataset_fingerprint(subset) == dp.dataset_fingerprint(TensorDataset(x[rows], y[rows]))
    assert dp.dataset_fingerprint(subset) != dp.dataset_fingerprint(Subset(TensorDataset(x, y), rows[::-1]))


@pytest.mark.parametrize(
    "mask", [[True, False, True], np.array([True, False]), torch.tensor([True, False]), [np.True_, np.False_]]
)
def test_a_mask_is_not_taken_for_the_positions_0_and_1(mask):
    with pytest.raises(TypeError, match="got a mask of bool"):
        dp.IndexedDataset(Tuples())[mask]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta", "ignore:.*[Qq]uantiz")
@pytest.mark.parametrize(
    "change",
    [
        torch.Tensor.to_sparse,
        torch.Tensor.to_sparse_csr,
        lambda t: torch.quantize_per_tensor(t, scale=1.0, zero_point=0, dtype=torch.qint8),
    ],
    ids=["sparse", "compressed", "quantised"],
)
def test_fingerprint_takes_tensors_of_any_layout(change):
    found = {dp.dataset_fingerprint([(t, 0), (t, 1)]) for t in (change(torch.eye(2)), torch.eye(2))}
    assert len(found) == 1


def test_fingerprint_takes_arrays_of_any_byte_order_and_conjugates():
    values = np.arange(6.0)
    assert len({dp.dataset_fingerprint([(values.astype(order), 0)]) for order in ("<f8", ">f8")}) == 1
    z = torch.tensor([1 + 2j])
    assert dp.dataset_fingerprint([(z.conj(), 0)]) == dp.dataset_fingerprint([(z.conj().resolve_conj(), 0)])


@pytest.mark.parametrize(
    "example", [torch.nested.nested_tensor([torch.ones(1), torch.ones(2)], layout=torch.jagged), object(), {1, 2}]
)
def test_fingerprint_names_what_it_cannot_hash(example):
    with pytest.raises(TypeError, match=f"holds {type(example).__name__}, which cannot be hashed"):
        dp.dataset_fingerprint([(example, 0)])


@given(value=st.integers(2**53, 2**62))
def test_fingerprint_tells_large_numbers_apart(value):
    a, b = (dp.dataset_fingerprint([(torch.tensor([v]), 0)]) for v in (value, value + 1))
    assert a != b


def test_labels_by_key_are_refused():
    with pytest.raises(TypeError, match="labels: got dict, expected one label per example"):
        dp.dataset_fingerprint([1.0, 2.0], labels={0: 1, 1: 0})


def test_labels_in_bfloat16_are_numbers_too():
    labels = torch.tensor([0, 1, 2])
    assert dp.dataset_fingerprint([1, 2, 3], labels=labels.bfloat16()) == dp.dataset_fingerprint(
        [1, 2, 3], labels=labels.float()
    )
