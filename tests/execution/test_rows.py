"""Data loaders, data sets of rows and lists of rows become unlabelled batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import sparsemend as sm
from sparsemend.execution.batches import call
from sparsemend.execution.rows import as_batches


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(9, 6)
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embedding(input_ids)
        if attention_mask is not None:
            x = x * attention_mask.unsqueeze(2)
        scores: Tensor = self.last(self.first(x.sum(dim=1)).relu())
        return scores


def test_a_loader_gives_its_inputs_without_labels() -> None:
    x, y = torch.randn(10, 4), torch.arange(10)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    labelled = DataLoader(TensorDataset(x, y), batch_size=4)
    assert torch.equal(torch.cat(list(as_batches(model, labelled))), x)
    one, other = (
        sm.compress(model, data, 0.5, "erk", repair="variance")
        for data in (labelled, list(x.split(4)))
    )
    assert torch.equal(one.model[0].weight, other.model[0].weight)


def test_a_loader_of_dictionaries() -> None:
    rows = [{"input_ids": torch.arange(3), "labels": torch.tensor(1)} for _ in range(5)]
    loader: DataLoader[Any] = DataLoader(rows, batch_size=2)  # type: ignore[arg-type]
    assert [sorted(batch) for batch in as_batches(Tagger(), loader)] == [["input_ids"]] * 3


class Columns:
    """What of a ``datasets.Dataset`` is used."""

    column_names = ("text", "input_ids", "label")

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@pytest.mark.parametrize("make", [list, Columns])
def test_rows_are_padded_and_masked(make: Any) -> None:
    texts = [[1 + n % 8] * (1 + n % 4) for n in range(40)]
    rows = [{"text": "a", "input_ids": ids, "label": 1} for ids in texts]
    model = Tagger()
    batches = list(as_batches(model, make(rows)))
    assert [len(batch["input_ids"]) for batch in batches] == [32, 8]
    assert set(batches[0]) == {"input_ids", "attention_mask"}
    # What was padded is judged as if it had been alone.
    alone = torch.cat([model(torch.tensor([ids])) for ids in texts])
    torch.testing.assert_close(torch.cat([call(model, batch) for batch in batches]), alone)
    result = sm.compress(model, make(rows), 0.5, "erk", repair="variance")
    assert result.sparsity == pytest.approx(0.5, abs=0.01)


def test_rows_without_an_argument_of_the_network() -> None:
    with pytest.raises(sm.SparsemendError, match=r"no column .*got \['text'\].*input_ids"):
        as_batches(Tagger(), [{"text": "a"}])


def test_what_is_batches_already_stays() -> None:
    for data in ([torch.zeros(2, 3)], [{"input_ids": torch.zeros(2, 3)}], torch.zeros(4, 3)):
        assert as_batches(Tagger(), data) is data


X = torch.randn(8, 4)
LENGTHS = torch.arange(1, 9)


@pytest.mark.parametrize(
    "data",
    [TensorDataset(X, LENGTHS), TensorDataset(X, X[:, :1]), TensorDataset(X, LENGTHS, X)],
    ids=["labels", "targets", "both"],
)
def test_what_the_network_takes_no_argument_for_is_left_out(data: Dataset[Any]) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    for given in (data, DataLoader(data, batch_size=3)):
        batches = as_batches(model, given)
        assert torch.equal(torch.cat(list(batches)), X)
        assert torch.equal(torch.cat(list(batches)), X)  # and once more


class WithLengths(nn.Module):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return x * lengths.unsqueeze(1)


def test_integers_that_the_network_needs_are_no_labels() -> None:
    model = WithLengths()
    (batch,) = as_batches(model, TensorDataset(X, LENGTHS))
    assert torch.equal(call(model, batch), model(X, LENGTHS))


def test_nor_are_they_in_a_list_of_pairs() -> None:
    for data in ([(X, LENGTHS)], ([X, LENGTHS],), (X, LENGTHS)):
        (batch,) = as_batches(WithLengths(), data)
        assert torch.equal(call(WithLengths(), batch), WithLengths()(X, LENGTHS))
    pairs = [(X, LENGTHS)]
    assert list(as_batches(nn.Linear(4, 3), pairs)) == pairs  # which are then refused


def test_columns_of_a_loader_that_the_network_does_not_take_are_left_out() -> None:
    rows = [{"input_ids": torch.arange(3), "index": n, "text": "a", "label": 1} for n in range(4)]
    loader: DataLoader[Any] = DataLoader(rows, 2)  # type: ignore[arg-type]
    assert [sorted(batch) for batch in as_batches(Tagger(), loader)] == [["input_ids"]] * 2
    other: DataLoader[Any] = DataLoader([{"index": 1}], 1)  # type: ignore[arg-type]
    with pytest.raises(sm.SparsemendError, match=r"no column .*got \['index'\].*input_ids"):
        list(as_batches(Tagger(), other))


@pytest.mark.parametrize("text", ["photos", Path("photos")])
def test_a_path_is_no_batches(text: str | Path) -> None:
    with pytest.raises(sm.SparsemendError, match=r"batches are a text.*sparsemend\.data\.load"):
        as_batches(Tagger(), text)


def test_arrays_and_a_mapping_of_tensors() -> None:
    assert torch.equal(torch.as_tensor(X.numpy()), as_batches(Tagger(), X.numpy()))
    assert isinstance(as_batches(Tagger(), [np.zeros((2, 3))])[0], Tensor)
    pair = {"x": X.numpy(), "lengths": LENGTHS.numpy()}
    (given,) = as_batches(WithLengths(), pair)
    assert torch.equal(call(WithLengths(), given), WithLengths()(X, LENGTHS))
    tokens = {"input_ids": torch.arange(6).view(2, 3)}
    assert as_batches(Tagger(), tokens) == [tokens]


def test_every_function_takes_a_loader_with_labels() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    loader, plain = DataLoader(TensorDataset(X, LENGTHS % 3), 4), list(X.split(4))
    kept = sm.allocate(model, 0.5)
    made = [
        (
            sm.calibrate(model, data).inputs,
            sm.repair(sm.prune(model, kept), model, data)[0].weight.sum(),
            sm.agreement(sm.prune(model, kept), model, data),
            sm.sweep(model, data, 0.5, rules="erk", repairs="mean").records[0].kl,
        )
        for data in (loader, plain)
    ]
    assert made[0] == made[1]
    sm.recalibrate(model, loader)
    tokens, scores = TensorDataset(torch.arange(6).view(2, 3)), nn.Embedding(9, 9)
    assert sm.perplexity(scores, tokens) == sm.perplexity(scores, tokens.tensors[0])
    found = sm.sweep(model, X, 0.5, rules="erk", repairs="mean", test=loader.dataset)
    assert found.records[0].settings.test_size == len(X)
