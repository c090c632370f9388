"""Commands from the options that they take: each option becomes a flag of typer."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from sparsemend.cli._output import friendly_errors
from sparsemend.errors import SparsemendError
from sparsemend.progress import announcing
from sparsemend.recipe.options import Option

JSON = Option("json", bool, "Print one JSON object, for machines.", False)


class Argument(Option):
    """An option that is given by its position, without a name."""


@dataclass(frozen=True)
class Given:
    """What was said: the values of a command's options, as attributes by their names.

    Attributes
    ----------
    values
        Name → value; the default where nothing was said.
    """

    values: Mapping[str, Any]

    @classmethod
    def of(cls, options: Iterable[Option], values: Mapping[str, Any]) -> Given:
        """Values of some options, with defaults for those that are missing."""
        return cls({option.name: values.get(option.name, option.default) for option in options})

    def __getattr__(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        raise AttributeError(f"the command has no option {name!r}")

    def only(self, options: Iterable[Option]) -> dict[str, Any]:
        """Name → value of some of the options, as keywords of a function."""
        return {option.name: self.values[option.name] for option in options}


@dataclass(frozen=True)
class Command:
    """A command and its options.

    Attributes
    ----------
    run
        Does it; its docstring is the help.
    options
        In the order of the help.
    interrupted
        What is said on Ctrl-C where no file was written.
    """

    run: Callable[[Given], None]
    options: tuple[Option, ...]
    interrupted: str

    def function(self) -> Callable[..., None]:
        """The command as typer takes it: a keyword for each option, with today's choices."""

        @functools.wraps(self.run)
        def function(**values: Any) -> None:
            with friendly_errors(self.interrupted), announcing():
                _check_texts(self.options, values)
                self.run(Given(values))

        parameters = [_parameter(option) for option in self.options]
        vars(function)["__signature__"] = inspect.Signature(parameters)
        function.__annotations__ = {each.name: each.annotation for each in parameters}
        return function


def command(
    *options: Option, interrupted: str = "interrupted; nothing was written"
) -> Callable[[Callable[[Given], None]], Command]:
    """Make a command of a function: it takes these options, and ``--json``.

    Of options of the same name the last counts, at the place of the first.
    """
    chosen = {option.name: option for option in (*options, JSON)}
    return lambda run: Command(run, tuple(chosen.values()), interrupted)


def _check_texts(options: Iterable[Option], values: Mapping[str, Any]) -> None:
    """Refuse empty texts, as of a shell's variable that was never set."""
    for option in options:
        value = values[option.name]
        if option.type is str and "" in (value if isinstance(value, list) else [value]):
            raise SparsemendError(f"{option.spelling} is empty", fix="leave it out, or say what")


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = list[option.type] if option.several else option.type  # type: ignore[name-defined]
    if not option.required and option.default is None:
        kind = kind | None
    text = _literal(option.text())
    flag = (
        typer.Argument(help=text, show_default=False)
        if isinstance(option, Argument)
        else typer.Option(option.spelling, help=text)
    )
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if option.required else option.default,
        annotation=Annotated[kind, flag],
    )


def _literal(text: str) -> str:
    """A text that is shown as it is: rich would draw a picture for the ``:end:`` of a range."""
    return re.sub(r":(?=\w+:)", ":[none][/none]", text)
