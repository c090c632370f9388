from collections import OrderedDict, UserDict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._pytree import tree_leaves

from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import (
    all_alike,
    batch_size,
    call,
    check_batched,
    check_unlabelled,
    count_inputs,
    cut,
    describe,
    evaluation_mode,
    iterate,
    materialise,
    split_inputs,
    split_labels,
    spread_inputs,
)

X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


class Echo(nn.Module):
    """Returns what it was called with."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, dtype=dtype))

    def forward(self, *args, **kwargs):
        return args, kwargs


# Iterating


def test_one_tensor_is_cut_into_batches():
    x = torch.arange(300)
    parts = list(iterate(x))
    assert [len(part) for part in parts] == [128, 128, 44]
    assert torch.equal(torch.cat(parts), x)


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_iterables_are_taken_as_they_are(kind):
    batches = [X, X + 1]
    assert all(a is b for a, b in zip(materialise(kind(batches)), batches, strict=True))


def test_arrays_become_tensors_wherever_they_are():
    array = X.numpy()
    for batch in (array, (array, 2), ((array,), {"y": array}), {"x": array}):
        (held,) = materialise(iter([batch]))
        leaves = [leaf for leaf in tree_leaves(held) if not isinstance(leaf, int)]
        assert all(torch.equal(leaf, X) for leaf in leaves)
    for other in (array[::-1].copy()[::-1], array.astype(">f4"), np.broadcast_to(array, X.shape)):
        assert torch.equal(materialise([other])[0], X)
    batch = (X, 2)
    assert materialise([batch])[0] is batch


def test_generators_are_held():
    assert len(materialise(X * i for i in range(3))) == 3


@pytest.mark.parametrize("batches", [[], iter(()), torch.empty(0, 3)])
def test_no_batches(batches):
    with pytest.raises(SparsemendError) as caught:
        materialise(batches, "heldout")
    assert str(caught.value) == (
        "heldout is empty; allowed: an iterable of at least one batch of inputs; a generator can "
        "be used only once: pass a list or a data loader"
    )


def test_a_batch_without_inputs_is_refused():
    with pytest.raises(SparsemendError, match=r"batches\[1\] holds no inputs: float32 \[0, 3\]"):
        materialise([X, X[:0]])


# Labels


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
def test_labels_are_refused(kind, dtype):
    with pytest.raises(SparsemendError) as caught:
        materialise([X, kind((X, torch.zeros(6, dtype=dtype)))], "calibration")
    assert str(caught.value) == (
        f"calibration[1] carries labels: a pair of torch.float32 [6, 3] and {dtype} [6]; allowed: "
        "unlabelled inputs; pass only the inputs, for example [x for x, _ in loader]; where "
        "the network takes both, [(batch, {}) for batch in batches]"
    )


@pytest.mark.parametrize(
    "batch",
    [
        X,
        (X, X),
        (X, torch.randn(6)),  # a second input
        (X, torch.zeros(5, dtype=torch.long)),  # not one per input
        (X, torch.zeros(6, 3, dtype=torch.long)),
        (X,),
        {"x": X, "ids": torch.zeros(6, dtype=torch.long)},
        ((X, torch.zeros(6, dtype=torch.long)), {}),
        "text",
    ],
)
def test_inputs_are_not_taken_for_labels(batch):
    check_unlabelled(batch, "batches[0]")


def test_labels_are_split_off():
    labels = torch.arange(6)
    assert split_labels((X, labels), "batches[0]") == (X, labels)
    with pytest.raises(SparsemendError, match=r"batches\[3\] has no labels: Tensor; .*agreement"):
        split_labels(X, "batches[3]")


# Values


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda x: x,
        lambda x: (X, x),
        lambda x: {"x": x},
        lambda x: ((X,), {"y": [x]}),
        lambda x: UserDict(x=x),
        lambda x: x.bfloat16(),
    ],
)
def test_numbers_must_be_finite(value, wrap):
    bad = X.clone()
    bad[2, 1] = value
    with pytest.raises(SparsemendError) as caught:
        materialise([X, wrap(bad)])
    assert str(caught.value) == (
        "batches[1] holds NaN or infinite values; allowed: finite inputs; check the preprocessing "
        "of the calibration data"
    )


# Calling


@pytest.mark.parametrize(
    ("batch", "args", "kwargs"),
    [
        (X, (X,), {}),
        ((X, X), (X, X), {}),
        ([X, X], (X, X), {}),
        ({"a": X}, (), {"a": X}),
        (OrderedDict(a=X), (), {"a": X}),
        (UserDict(a=X), (), {"a": X}),
        (((X,), {"a": X}), (X,), {"a": X}),
        (((X,), UserDict(a=X)), (X,), {"a": X}),
        ((X, {"a": X}), (X, {"a": X}), {}),  # not a pair of args and kwargs: args is no tuple
    ],
)
def test_forms_of_batches(batch, args, kwargs):
    got_args, got_kwargs = call(Echo(), batch)
    torch.testing.assert_close(got_args, args)
    torch.testing.assert_close(dict(got_kwargs), kwargs)
    assert batch_size(batch) == 6
    assert describe(batch).startswith("float32 [6, 3]")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("wrap", [lambda **x: x, lambda **x: UserDict(x)])
def test_floats_get_the_type_of_the_model_and_nothing_else_does(dtype, wrap):
    batch = wrap(x=X, wide=X.double(), ids=torch.arange(6), flag=True)
    _, given = call(Echo(dtype), batch)
    assert {key: getattr(value, "dtype", value) for key, value in given.items()} == {
        "x": dtype,
        "wide": dtype,
        "ids": torch.int64,
        "flag": True,
    }
    assert batch["x"] is X


def test_what_a_network_does_to_its_inputs_in_place_stays_within():
    class InPlace(Echo):
        def forward(self, x):
            return x.mul_(2)

    batch = torch.ones(3)
    assert torch.equal(call(InPlace(), batch), torch.full((3,), 2.0))
    assert torch.equal(batch, torch.ones(3))


def test_inputs_move_to_the_device_of_the_model():
    (x,), given = call(Echo().to("meta"), ((X,), {"ids": torch.arange(6)}))
    assert (x.device.type, given["ids"].device.type) == ("meta", "meta")


def test_a_model_without_parameters_takes_inputs_as_they_are():
    assert call(nn.Identity(), X) is X


def test_a_batch_that_does_not_fit():
    with pytest.raises(SparsemendError) as caught:
        call(nn.Linear(4, 2), X)
    text = str(caught.value)
    assert text.startswith("the network cannot run on this batch (float32 [6, 3]): mat1 and mat2")
    assert "allowed: batches that model(batch), model(*batch) or model(**batch) accepts" in text
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("error", [MemoryError("full"), RuntimeError("CUDA out of memory")])
def test_other_errors_pass(error):
    class Fails(nn.Module):
        def forward(self, *_):
            raise error

    with pytest.raises(type(error)) as caught:
        call(Fails(), X)
    assert caught.value is error


@pytest.mark.parametrize(
    ("model", "single"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(4)),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), torch.ones(3, 5, 5)),
        (nn.Sequential(nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4, 2)), torch.ones(3, 5, 5)),
        (nn.Sequential(nn.Linear(4, 3)), {"input": torch.ones(4)}),
    ],
)
def test_a_single_input_is_no_batch(model, single):
    with pytest.raises(SparsemendError, match=r"no batch dimension: got .*torch.stack\(inputs\)"):
        check_batched(model, single)
    batch = {k: v[None] for k, v in single.items()} if isinstance(single, dict) else single[None]
    check_batched(model, batch)


def test_networks_of_one_batch_size_are_given_batches():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(5, 4) + 1

    check_batched(Fixed(), torch.ones(5, 4))


@pytest.mark.parametrize(
    ("batches", "alike"),
    [
        ([torch.ones(3, 2)], True),
        ([torch.ones(1, 2), torch.ones(2, 2)], True),
        ([{"x": torch.ones(2, 2), "scale": 2.0}], True),
        ([torch.ones(1, 2)], False),
        ([torch.ones(1, 2), torch.zeros(2, 2)], False),
        ([torch.ones(2, 2), torch.ones(2, 3)], False),
        ([torch.eye(2)], False),
    ],
)
def test_inputs_that_are_all_the_same(batches, alike):
    assert all_alike(batches) == alike


@pytest.mark.parametrize(
    ("batch", "size"), [(np.zeros(3), 1), (torch.tensor(2.0), 1), ({"a": 1, "b": X}, 6)]
)
def test_batch_size_is_that_of_the_first_tensor(batch, size):
    assert batch_size(batch) == size


# Cutting

IDS = torch.arange(6)


@pytest.mark.parametrize(
    ("batch", "part"),
    [
        (X, X[1:4]),
        ((X, IDS), (X[1:4], IDS[1:4])),
        ([X, 7], [X[1:4], 7]),
        ({"x": X, "flag": True}, {"x": X[1:4], "flag": True}),
        (UserDict(x=X), {"x": X[1:4]}),
        (((X,), {"ids": [IDS]}), ((X[1:4],), {"ids": [IDS[1:4]]})),
        # Not of the inputs: another number of rows, or none.
        ((X, torch.zeros(5)), (X[1:4], torch.zeros(5))),
        ({"x": X, "scale": torch.tensor(2.0)}, {"x": X[1:4], "scale": torch.tensor(2.0)}),
    ],
)
def test_a_part_of_a_batch(batch, part):
    found = cut(batch, 1, 4)
    torch.testing.assert_close(found, part, rtol=0, atol=0)
    assert batch_size(found) == 3
    assert batch_size(batch) == 6


def test_parts_beyond_the_end_are_shorter():
    assert torch.equal(cut(X, 0, 100), X)
    assert torch.equal(cut(X, 4, 100), X[4:])


def test_several_batches_are_split_between_batches_and_a_single_one_between_its_inputs():
    batches = [torch.arange(n) for n in (4, 3, 2, 1)]
    first, rest = split_inputs(batches, lambda n: n // 2)
    assert [x.tolist() for x in first + rest] == [x.tolist() for x in batches]
    assert (len(first), len(rest)) == (2, 2)
    (first,), (rest,) = split_inputs([torch.arange(5)], lambda n: n - 2)
    assert (first.tolist(), rest.tolist()) == ([0, 1, 2], [3, 4])
    (first,), rest = split_inputs([torch.arange(5)], lambda n: n)
    assert (first.tolist(), rest) == ([0, 1, 2, 3, 4], [])


# Evaluation mode


def test_evaluation_mode_restores_every_flag():
    one = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 3)))
    other = nn.Linear(3, 3).eval()
    one[1][0].eval()
    flags = [m.training for m in one.modules()]
    with evaluation_mode(one, other):
        assert not any(m.training for m in (*one.modules(), *other.modules()))
        assert not torch.is_grad_enabled()
    assert [m.training for m in one.modules()] == flags
    assert not other.training
    assert torch.is_grad_enabled()


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        self.count += 1
        self.mean = self.mean + x.mean(dim=0)
        return x


def test_evaluation_mode_restores_buffers_but_those_of_batchnorms():
    model = nn.Sequential(Counting(), nn.BatchNorm1d(3))
    buffers = dict(model.named_buffers())
    with evaluation_mode(model):
        model(torch.ones(2, 3))
        model(torch.ones(2, 3))
        assert (model[0].count, model[0].mean.sum()) == (2, 6)
        model[1].running_mean.fill_(4)
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert (model[0].count, model[0].mean.sum(), model[1].running_mean.sum()) == (0, 0, 12)


def test_evaluation_mode_restores_after_an_error():
    model = nn.Sequential(nn.Dropout())
    with pytest.raises(KeyError), evaluation_mode(model):
        raise KeyError
    assert all(m.training for m in model.modules())


@given(st.lists(st.integers(1, 7), min_size=1, max_size=8), st.integers(1, 40))
def test_inputs_of_every_batch_alike(sizes, count):
    batches = list(torch.arange(sum(sizes)).split(sizes))
    chosen = spread_inputs(batches, count)
    total = sum(sizes)
    assert count_inputs(chosen) == min(count, total)
    share = min(count, total) / total
    for size, batch in zip(sizes, batches, strict=True):
        found = [part for part in chosen if part[0] == batch[0]]
        assert all(torch.equal(part, batch[: len(part)]) for part in found)
        assert abs(count_inputs(found) - share * size) < 1
