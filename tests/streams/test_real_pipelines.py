"""The pruner in pipelines of other libraries, each the real one: any number of workers and processes keeps the same."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import tarfile
from itertools import chain
from pathlib import Path

import pytest
import torch
from places import ROOT
from streamed import NAMES, SIZE, Stream, expected, table_of
from torch.utils.data import DataLoader

import difficulty_prune as dp

pytest.importorskip("xxhash", reason="xxhash is not installed")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create . worker processes"),
]

EPOCH = 2


@pytest.fixture
def pruner(tmp_path):
    pruner = dp.StreamPruner(table_of(tmp_path / "table"), "id")
    pruner.set_epoch(EPOCH)
    return pruner


def by_name(samples, key="id") -> dict[str, float]:
    found = [(sample[key], sample["weight"]) for sample in samples]
    assert len(found) == len(dict(found))
    return dict(found)


# WebDataset: samples of tar files, with "__key__"

files_left_open = pytest.mark.filterwarnings(
    "ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def shards(tmp_path) -> list[str]:
    paths = [str(tmp_path / f"shard-{i}.tar") for i in range(6)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for name in NAMES[number::6]:
                info = tarfile.TarInfo(f"{name}.cls")
                info.size = 1
                tar.addfile(info, io.BytesIO(b"3"))
    return paths


def of_tar_files(pruner, **options):
    named = dp.StreamPruner(pruner.table, "__key__", **options)
    named.set_epoch(EPOCH)
    return named


def web_dataset(shards, pruner):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    dataset = wds.WebDataset(shards, shardshuffle=False, nodesplitter=wds.split_by_node, empty_check=False)
    return dataset.compose(of_tar_files(pruner).pipe)


@files_left_open
@pytest.mark.parametrize("workers", [0, 1, 8])
def test_webdataset_with_any_number_of_workers(shards, pruner, workers):
    loader = DataLoader(web_dataset(shards, pruner), batch_size=None, num_workers=workers, generator=torch.Generator())
    assert by_name(loader, "__key__") == expected(pruner, EPOCH)


@files_left_open
def test_webdataset_in_four_processes(shards, pruner, monkeypatch):
    shares = []
    for rank in range(4):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "4")
        shares.append(list(web_dataset(shards, pruner)))
    assert all(0 < len(share) < SIZE / 2 for share in shares)
    assert by_name(chain(*shares), "__key__") == expected(pruner, EPOCH)


@files_left_open
def test_webdataset_drops_before_it_decodes(shards, pruner):
    """It decodes all fields but those whose names begin with two underscores."""
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    pruner = of_tar_files(pruner, weight_key="__weight__")
    for kept in (
        wds.WebDataset(shards, shardshuffle=False).compose(pruner.pipe),
        wds.WebDataset(shards, shardshuffle=False).select(pruner.keeps).map(pruner.attach),
    ):
        batches = list(kept.decode().to_tuple("__key__", "cls", "__weight__").batched(8))
        assert {label for _, labels, _ in batches for label in labels.tolist()} == {3}
        found = {name: float(w) for names, _, weight in batches for name, w in zip(names, weight, strict=True)}
        assert found == pytest.approx(expected(pruner, EPOCH))


@files_left_open
def test_webdataset_cannot_decode_a_weight_by_another_name(shards, pruner):
    """What docs/troubleshooting.md says of it."""
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    dataset = wds.WebDataset(shards, shardshuffle=False).compose(of_tar_files(pruner).pipe).decode()
    with pytest.raises(Exception, match=r"^$") as caught:
        list(dataset)
    kind, cause = type(caught.value).__name__, str(caught.value.__cause__)
    del caught
    gc.collect()  # which closes the file that it was reading
    assert kind == "DecodingError"
    assert "k,v = weight, " in cause


# Hugging Face datasets


def hugging_face(pruner):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = datasets.Dataset.from_dict({"id": NAMES, "x": list(range(SIZE))})
    return rows.to_iterable_dataset(num_shards=8).filter(pruner.keeps).map(pruner.attach)


@pytest.mark.parametrize("workers", [0, 1, 8])
def test_hugging_face_with_any_number_of_workers(pruner, workers):
    loader = DataLoader(hugging_face(pruner), batch_size=None, num_workers=workers, generator=torch.Generator())
    for epoch in (EPOCH, 5):
        pruner.set_epoch(epoch)
        assert by_name(loader) == expected(pruner, epoch)


def test_hugging_face_in_four_processes(pruner):
    distributed = pytest.importorskip("datasets.distributed", reason="datasets is not installed")
    shares = [distributed.split_dataset_by_node(hugging_face(pruner), rank, 4) for rank in range(4)]
    assert by_name(chain(*shares)) == expected(pruner, EPOCH)


def test_hugging_face_by_batches_of_ids(pruner):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = datasets.Dataset.from_dict({"id": NAMES}).to_iterable_dataset()
    kept = rows.filter(lambda ids: pruner.decide(ids)[0].tolist(), batched=True, input_columns="id", batch_size=50)
    assert by_name(kept.map(pruner.attach)) == expected(pruner, EPOCH)


def test_hugging_face_resumes_where_it_was(pruner):
    dataset = hugging_face(pruner)
    samples = iter(dataset)
    first = [next(samples) for _ in range(30)]
    later = hugging_face(pruner)
    later.load_state_dict(dataset.state_dict())
    assert by_name([*first, *later]) == expected(pruner, EPOCH)


# torchdata


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # which torchdata calls
@pytest.mark.parametrize(
    "stream_of", [hugging_face, lambda pruner: dp.PrunedStream(Stream(), pruner)], ids=["hf", "own"]
)
def test_a_stateful_loader_resumes_where_it_was(pruner, stream_of):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    def loader():
        return stateful.StatefulDataLoader(
            stream_of(pruner), batch_size=8, num_workers=2, generator=torch.Generator().manual_seed(0)
        )

    cut = loader()
    batches = iter(cut)
    first = [next(batches)["id"] for _ in range(5)]
    later = loader()
    later.load_state_dict(cut.state_dict())
    assert [*first, *(batch["id"] for batch in later)] == [batch["id"] for batch in loader()]


# torchdata's nodes


def nodes_of(pruner, rank=0, world=1, workers=0):
    nodes = pytest.importorskip("torchdata.nodes", reason="torchdata is not installed")
    source = nodes.Batcher(nodes.IterableWrapper(Stream(rank=rank, world=world)), batch_size=16, drop_last=False)
    if workers:
        kept = nodes.ParallelMapper(source, pruner.prune, num_workers=workers, in_order=False, method="thread")
    else:
        kept = nodes.Mapper(source, pruner.prune)
    return nodes.Loader(nodes.Unbatcher(kept))


@pytest.mark.parametrize("workers", [0, 1, 8])
def test_torchdata_nodes_with_any_number_of_workers(pruner, workers):
    assert by_name(nodes_of(pruner, workers=workers)) == expected(pruner, EPOCH)


def test_torchdata_nodes_in_four_processes_and_resumed(pruner):
    shares = [nodes_of(pruner, rank, 4) for rank in range(4)]
    assert by_name(chain(*shares)) == expected(pruner, EPOCH)
    loader = nodes_of(pruner)
    samples = iter(loader)
    first = [next(samples) for _ in range(30)]
    later = nodes_of(pruner)
    later.load_state_dict(loader.state_dict())
    assert by_name([*first, *later]) == expected(pruner, EPOCH)


# MosaicML Streaming, which `.ci/mosaicml` brings


@pytest.fixture
def mds(tmp_path) -> str:
    streaming = pytest.importorskip("streaming", reason="mosaicml-streaming is not installed: see .ci/mosaicml")
    with streaming.MDSWriter(out=str(tmp_path / "mds"), columns={"id": "str", "x": "int"}, size_limit=1 << 12) as out:
        for i, name in enumerate(NAMES):
            out.write({"id": name, "x": i})
    return str(tmp_path / "mds")


@pytest.mark.filterwarnings("ignore")  # of Streaming's own
@pytest.mark.parametrize("workers", [0, 1, 8])
def test_mosaicml_streaming_with_any_number_of_workers(mds, pruner, workers):
    import streaming

    dataset = streaming.StreamingDataset(local=mds, shuffle=True, batch_size=1)
    loader = DataLoader(dp.PrunedStream(dataset, pruner), batch_size=None, num_workers=workers)
    assert by_name(loader) == expected(pruner, EPOCH)


@pytest.mark.parametrize("workers", [0, 2])
def test_mosaicml_streaming_in_four_processes(mds, pruner, workers):
    epochs = (EPOCH, 5)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "4"]
    program = ROOT / "tests" / "helpers" / "streaming_process.py"
    arguments = map(str, (program, mds, pruner.table.path, workers, *epochs))
    settings = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [*command, *arguments], env=os.environ | settings, capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stderr
    shares = [json.loads(Path(mds, f"rank-{rank}.json").read_text()) for rank in range(4)]
    for number, epoch in enumerate(epochs):
        kept = [share[number] for share in shares]
        assert all(0 < len(share) < SIZE / 2 for share in kept)
        pairs = [tuple(pair) for pair in chain(*kept)]
        assert len(pairs) == len(dict(pairs)), "an id twice"
        assert dict(pairs) == expected(pruner, epoch)
