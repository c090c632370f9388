"""Public functions refuse arguments of other kinds, and raise one type of error."""

# ruff: noqa: ARG001

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Union, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sparsemend as sm
from sparsemend.boundary import public
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import call
from sparsemend.reports import Compression

FUNCTIONS = {name: getattr(sm, name) for name in sm.__all__} | {
    "data.load": sm.data.load,
    "models.load": sm.models.load,
    "models.create": sm.models.create,
    "runtime.prepare": sm.runtime.prepare,
    "runtime.load": sm.runtime.load,
    "Allocation": sm.Allocation.__init__,
    "Allocation.from_dict": sm.Allocation.from_dict,
    "Allocation.load": sm.Allocation.load,
    "Calibration.merge": sm.Calibration.merge,
    "Diagnosis.from_dict": sm.Diagnosis.from_dict,
    "Diagnosis.load": sm.Diagnosis.load,
    "Diagnosis.save": sm.Diagnosis.save,
    "CompressionResult.save": sm.CompressionResult.save,
    "Report.save": sm.Report.save,
    "Report.save_figures": sm.Report.save_figures,
    "SweepResult.load": sm.SweepResult.load,
    "SweepResult.to_csv": sm.SweepResult.to_csv,
    "SweepResult.transitions": sm.SweepResult.transitions,
    "AblationResult.to_csv": sm.AblationResult.to_csv,
    "AblationResult.comparisons": sm.AblationResult.comparisons,
    "DataSet.calibration": sm.data.DataSet.calibration,
    "DataSet.heldout": sm.data.DataSet.heldout,
    "DataSet.test": sm.data.DataSet.test,
    "DataSet.test_batches": sm.data.DataSet.test_batches,
}
FUNCTIONS = {
    name: function
    for name, function in FUNCTIONS.items()
    if isinstance(function, types.FunctionType | types.MethodType)
    and inspect.signature(function).parameters
}
PARAMETERS = [
    (name, parameter)
    for name, function in FUNCTIONS.items()
    for parameter, hint in get_type_hints(function).items()
    if parameter != "return" and Any not in (hint, *get_args(hint))
]


def test_there_are_public_functions():
    assert {"compress", "sweep", "recalibrate", "load_checkpoint"} <= FUNCTIONS.keys()
    assert len(PARAMETERS) > 120


class Stranger:
    """What no argument can be; nor can it be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no representation")


def fitting(hint: Any) -> object:
    """Something of an annotated kind, empty where that is possible."""
    if get_origin(hint) in (Union, types.UnionType):
        return fitting(get_args(hint)[0])
    kind = get_origin(hint) or hint
    if kind in (Iterable, Sequence, Mapping, str, int, float):
        return {} if kind in (Iterable, Sequence, Mapping) else kind()
    return nn.Identity() if kind is nn.Module else object.__new__(kind)


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_no_argument_can_be_anything(name, parameter):
    function = FUNCTIONS[name]
    hints, given = get_type_hints(function), {}
    for other, found in inspect.signature(function).parameters.items():
        if found.kind is found.VAR_POSITIONAL:
            if other == parameter:
                with pytest.raises(SparsemendError, match=f"{parameter} is of the wrong kind"):
                    function(Stranger())
                return
        elif found.default is found.empty and found.kind is not found.VAR_KEYWORD:
            given[other] = fitting(hints[other]) if other in hints else None
    with pytest.raises(SparsemendError) as caught:
        function(**given | {parameter: Stranger()})
    assert str(caught.value).startswith(
        f"{parameter} is of the wrong kind: got an object of type Stranger; allowed: "
    )


class Named(Protocol):
    name: str

    def call(self) -> None: ...


@public
def example(
    count: int = 1,
    share: float = 0.5,
    flag: bool = False,
    name: str | None = None,
    names: str | Iterable[str] = (),
    numbers: Sequence[float] = (),
    path: str | Path = "",
    table: Mapping[str, int] | None = None,
    way: Literal["up", "down"] = "up",
    *rest: Tensor,
    module: nn.Module | None = None,
    loss: str | Callable[[Tensor], Tensor] = "",
    named: Named | None = None,
    anything: Any = None,
    **options: Any,
) -> str:
    return "done"


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"count": np.int64(3), "share": 1, "flag": np.bool_(True)},
        {"share": np.float32(0.5), "name": None},
        {"names": "a", "numbers": np.zeros(3)},
        {"names": ["a", "b"], "numbers": torch.ones(2)},
        {"names": (name for name in "ab"), "numbers": range(3)},
        {"names": {"a": 1}, "numbers": (0.5, 1)},
        {"path": Path("a"), "table": {"a": 1}, "way": "down"},
        {"module": nn.Identity(), "loss": torch.nn.functional.relu},
        {"named": types.SimpleNamespace(name="a", call=print)},
        {"anything": object(), "other": object()},
    ],
)
def test_what_fits(arguments):
    assert example(**arguments) == "done"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"count": 1.0}, "count is of the wrong kind: got 1.0; allowed: a whole number"),
        ({"count": True}, "count is of the wrong kind: got True; allowed: a whole number"),
        ({"count": np.bool_(True)}, "got np.True_; allowed: a whole number"),
        ({"share": "0.5"}, "share is of the wrong kind: got '0.5'; allowed: a number"),
        ({"share": False}, "share is of the wrong kind: got False; allowed: a number"),
        ({"flag": 1}, "flag is of the wrong kind: got 1; allowed: True or False"),
        ({"name": b"a"}, "name is of the wrong kind: got b'a'; allowed: a text or None"),
        ({"names": [1]}, "names is of the wrong kind: got [1]; allowed: a text or an iterable, "),
        ({"names": b"ab"}, "allowed: a text or an iterable, each a text"),
        ({"names": np.array(["a"])}, "got ndarray <U1 [1]; allowed: a text or an iterable"),
        ({"numbers": "0.5"}, "allowed: an iterable, each a number"),
        ({"numbers": np.array(1.0)}, "got array(1.); allowed: an iterable, each a number"),
        ({"numbers": [None]}, "got [None]; allowed: an iterable, each a number"),
        ({"path": 3}, "path is of the wrong kind: got 3; allowed: a text or a Path"),
        ({"table": [1]}, "table is of the wrong kind: got [1]; allowed: a mapping or None"),
        ({"way": "left"}, "way is of the wrong kind: got 'left'; allowed: 'up' or 'down'"),
        ({"module": torch.ones(2)}, "got Tensor float32 [2]; allowed: a torch.nn.Module or None"),
        ({"named": Path("a")}, "got PosixPath('a'); allowed: a Named or None"),
        ({"loss": 3}, "loss is of the wrong kind: got 3; allowed: a text or a function"),
    ],
)
def test_what_does_not_fit(arguments, text):
    with pytest.raises(SparsemendError) as caught:
        example(**arguments)
    assert text in str(caught.value)


def test_every_one_of_several_is_looked_at():
    with pytest.raises(SparsemendError, match="rest is of the wrong kind: got 2; allowed: a tens"):
        example(1, 0.5, False, "a", (), (), "", None, "up", torch.ones(1), 2)


def test_arguments_that_do_not_exist_are_pythons_own_error():
    with pytest.raises(TypeError, match=r"^compress\(\) missing a required argument: 'batches'"):
        sm.compress(nn.Identity())


def test_other_errors_are_told_with_their_place():
    @public
    def fails(how: Callable[[], object]) -> object:
        return how()

    def lookup() -> object:
        return {}["k"]

    line = lookup.__code__.co_firstlineno + 1
    with pytest.raises(SparsemendError) as caught:
        fails(lookup)
    assert f"fails failed: KeyError: 'k' (test_boundary.py:{line}, in lookup)" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(SparsemendError, match=r"failed \(No such file or dir.*got '/no/such'"):
        fails(lambda: Path("/no/such").read_text())


@pytest.mark.parametrize(
    "error", [MemoryError, torch.OutOfMemoryError, UserWarning, KeyboardInterrupt]
)
def test_what_is_passed_on(error):
    @public
    def fails() -> None:
        raise error("now")

    with pytest.raises(error):
        fails()


@public
def modes() -> list[bool]:
    inference = torch.is_inference_mode_enabled()
    return [inference, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")]


def test_modes_of_the_caller_do_not_reach_in():
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert modes() == [False, False, False]
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert modes() == [False, True, False]


@public
def fresh(model: nn.Module) -> list[str]:
    return [torch.zeros(1).device.type, call(model, torch.ones(1)).device.type]


class Makes(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        return torch.zeros(1)


def test_a_default_device_of_the_caller_is_for_the_callers_network():
    assert fresh(Makes()) == ["cpu", "cpu"]
    with torch.device("meta"):
        assert fresh(Makes()) == ["cpu", "meta"]
    torch.set_default_device("meta")
    try:
        assert fresh(Makes()) == ["cpu", "meta"]
    finally:
        torch.set_default_device(None)
    assert torch.zeros(1).device.type == "cpu"


def test_what_holds_a_network_is_told_apart():
    with pytest.raises(SparsemendError, match=r"model is of the wrong kind.*; pass its \.model$"):
        sm.discover(types.SimpleNamespace(model=nn.Linear(2, 2)))


def test_values_are_shown_in_short():
    with pytest.raises(SparsemendError) as caught:
        example(name=list(range(10_000)))
    assert len(str(caught.value)) < 500
    with pytest.raises(SparsemendError, match="got Linear"):
        example(count=nn.Linear(2, 2))


def test_results_of_other_files_are_sources_of_reports():
    assert Compression in get_type_hints(sm.report)["sources"].__args__
