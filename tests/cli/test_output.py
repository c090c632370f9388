import warnings

import pytest
import typer

from sparsemend import SparsemendError, SparsemendWarning
from sparsemend.cli._output import friendly_errors, percent, print_json
from sparsemend.files import atomic_write


def test_an_error_is_one_line_as_it_is(capsys):
    with pytest.raises(typer.Exit) as caught, friendly_errors():
        raise SparsemendError("[bold]first[/bold]\nsecond :smile:", "x" * 300)
    assert caught.value.exit_code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: [bold]first[/bold] second :smile:: got '{'x' * 300}'\n"


def test_warnings_come_out_after_the_work(capsys):
    with friendly_errors():
        warnings.warn("mind the [gap]", SparsemendWarning, stacklevel=1)
        print("result")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("result\n", "warning: mind the [gap]\n")


def test_interruption(capsys):
    with pytest.raises(typer.Exit) as caught, friendly_errors():
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert capsys.readouterr().err == "interrupted; nothing was written\n"


def test_an_interruption_says_what_was_written(tmp_path, capsys):
    def work():
        for name in ("a.txt", "b.txt"):
            atomic_write(tmp_path / name, lambda file: file.write(b"x"))
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit), friendly_errors():
        work()
    files = f"{tmp_path / 'a.txt'}, {tmp_path / 'b.txt'}"
    assert capsys.readouterr().err == f"interrupted; before that it wrote {files}\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (MemoryError(), "MemoryError (test_output.py"),
    ],
)
def test_other_errors_are_one_line_too(capsys, error, text):
    with pytest.raises(typer.Exit) as caught, friendly_errors():
        raise error
    assert caught.value.exit_code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {text}")
    assert said.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error():
    with pytest.raises(BrokenPipeError), friendly_errors():
        raise BrokenPipeError


def test_json_has_no_nan(capsys):
    print_json({"a": 1, "b": [None, "é"]})
    assert capsys.readouterr().out == '{"a": 1, "b": [null, "\\u00e9"]}\n'
    with pytest.raises(ValueError, match="JSON"):
        print_json({"a": float("nan")})


def test_percent():
    assert percent(0.98765) == "98.77 %"
    assert percent(None) == "-"
