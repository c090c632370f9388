"""What a user may say about a compression, each thing once: the table of options.

The command line and TOML files are made from it. The keywords of :func:`sparsemend.compress` and
:func:`sparsemend.sweep` and the columns of a sweep's store agree with it, which is a test.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsemend.allocation import rule_names
from sparsemend.evaluation import judge_names
from sparsemend.layers import CLASSES, EMBEDDING
from sparsemend.masks import default_mask, mask_names
from sparsemend.patterns import pattern_spellings
from sparsemend.recipe import defaults
from sparsemend.recipe.budget import DEFAULT_REPAIRS
from sparsemend.repairs import SCOPES, DistillSettings, repair_names


def read_text(value: Any) -> str:
    """A text as it is."""
    if not isinstance(value, str) or not value:
        raise TypeError("a text")
    return value


def read_count(value: Any) -> int:
    """A whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("a whole number")
    return value


def read_number(value: Any) -> str:
    """A number as written, so that decimals and ranges stay exact."""
    return _as_written(value, "a number, or a range such as '0.80:0.98:0.01'")


def read_limit(value: Any) -> str:
    """A number or a time."""
    return _as_written(value, "a number, or a text such as '10min'")


def _as_written(value: Any, allowed: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError(allowed)
    return str(value)


def read_flag(value: Any) -> bool:
    """Whether something is wanted."""
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _nothing() -> Iterable[str]:
    return ()


# How a value in a file is read, unless the option says otherwise.
_READERS: dict[type, Callable[[Any], Any]] = {
    str: read_text,
    Path: read_text,
    int: read_count,
    float: read_number,
    bool: read_flag,
}


@dataclass(frozen=True)
class Option:
    """One thing that a user may say.

    Attributes
    ----------
    name
        In Python and in files; with dashes in front and between on the command line.
    type
        Of one value.
    help
        One line, in which ``{choices}`` and ``{default}`` stand for these.
    default
        What is meant where nothing is said.
    required
        Whether something must be said.
    several
        Whether it may be said several times, all of which hold.
    choices
        The known names, asked for when the help is shown: parts may be registered until then.
    flag
        On the command line, where it is not the name.
    read
        From a value of a TOML file, or from all of them where several may be said; raises
        TypeError with what is allowed. Default by the type, value for value.
    many
        Keyword of :func:`sparsemend.sweep`, where that takes several, each in its turn; else it is
        the name.
    sweep_help, sweep_default
        Where a sweep has others.
    """

    name: str
    type: type
    help: str
    default: Any = None
    required: bool = False
    several: bool = False
    choices: Callable[[], Iterable[str]] = _nothing
    flag: str = ""
    read: Callable[[Any], Any] | None = None
    many: str = ""
    sweep_help: str = ""
    sweep_default: Any = None

    @property
    def keyword(self) -> str:
        """Of :func:`sparsemend.sweep`."""
        return self.many or self.name

    @property
    def spelling(self) -> str:
        """On the command line."""
        return self.flag or f"--{self.dashed}"

    @property
    def dashed(self) -> str:
        """The name as it is best written in files."""
        return self.name.replace("_", "-")

    def text(self) -> str:
        """The help as of now."""
        return self.help.format(choices=", ".join(self.choices()), default=self.default)

    def read_value(self, value: Any) -> Any:
        """From a file: one value, or where several may be said, one or a list of them."""
        if self.read is not None:
            return self.read(value)
        read = _READERS[self.type]
        if not (self.many or self.several):
            return read(value)
        return [read(part) for part in (value if isinstance(value, list) else [value])]

    def but(self, **changes: Any) -> Option:
        """The same with other attributes."""
        return dataclasses.replace(self, **changes)

    def for_sweep(self) -> Option:
        """The flag of a sweep: None where it is not given, for then the file may say it."""
        return self.but(
            # A range is no number, and a decimal is to stay exact.
            type=str if self.type is float else self.type,
            help=(self.sweep_help or self.help).replace("{default}", str(self.default)),
            default=None,
            required=False,
            several=self.several or bool(self.many),
        )


_MASK = (
    f"Default: {default_mask(True).name} where the repair reconstructs, else "
    f"{default_mask(False).name}."
)

RULE = Option(
    "rule",
    str,
    "One of {choices}; or auto: search for the best; or branches: lamp, but with a light repair "
    "without the residual branches that do harm; or a JSON file: of allocate --json, or of layers "
    "or patterns and their densities. Without a rule and a repair, both are planned for the time "
    "of --budget.",
    choices=rule_names,
    many="rules",
    sweep_help="One of {choices}, auto, branches; repeat for several. Default "
    f"{defaults.PLAIN_RULE}.",
)
MASK = Option(
    "mask",
    str,
    f"One of {{choices}}. {_MASK}",
    choices=mask_names,
    many="masks",
    sweep_help=f"One of {{choices}}; repeat for several. {_MASK}",
)
REPAIR = Option(
    "repair",
    str,
    f"Of {{choices}}; or as in variance+batchnorm. With a rule: default {defaults.REPAIR}.",
    choices=repair_names,
    many="repairs",
    sweep_default=defaults.REPAIR,
    sweep_help="Of {choices}; or as in variance+batchnorm; repeat for several.",
)
SPARSITY = Option(
    "sparsity",
    float,
    "Fraction of weights to remove, in [0, 1).",
    many="sparsities",
    sweep_help="Fraction in [0, 1), or start:end:step with both ends; repeat for several.",
)
TARGET_FLOPS = Option(
    "target_flops",
    float,
    "Instead of a sparsity: share of the dense network's multiplications to keep, in (0, 1].",
    many="target_flops",
    sweep_help="Instead of sparsities: share of the multiplications to keep, in (0, 1]; repeat for "
    "several.",
)
TARGET_LATENCY = Option(
    "target_latency",
    str,
    "Instead of a sparsity: time of one input on the sparse runtime, as in 2ms; on one thread of "
    "this machine.",
    many="target_latency",
    sweep_help="Instead of sparsities: time of one input on the sparse runtime, as in 2ms; repeat "
    "for several.",
)
TARGET_SIZE = Option(
    "target_size",
    str,
    "Instead of a sparsity: size of the packed file, as in 100KiB.",
    many="target_size",
    sweep_help="Instead of sparsities: size of the packed file, as in 100KiB; repeat for several.",
)
# What may be said instead of a sparsity.
TARGETS = (TARGET_FLOPS, TARGET_LATENCY, TARGET_SIZE)
PATTERN = Option(
    "pattern",
    str,
    "Which weights can be kept: one of {choices}. With n:m leave the sparsity out.",
    defaults.PATTERN,
    choices=pattern_spellings,
)
SCOPE = Option("scope", str, "One of {choices}.", defaults.SCOPE, choices=lambda: SCOPES)
BUDGET = Option(
    "budget",
    str,
    f"Time for all, as in 10min (the default) or 1h; with rule auto, for its search, or a number "
    f"of repairs (default {DEFAULT_REPAIRS:g}). Ctrl-C ends it with the best so far.",
    read=read_limit,
    sweep_help=f"For rule auto, per cell: repairs (default {DEFAULT_REPAIRS:g}) or a time, as in "
    "20min.",
)
JUDGE = Option(
    "judge",
    str,
    "How closeness to the dense network is judged: auto, or one of {choices}.",
    defaults.JUDGE,
    choices=judge_names,
    sweep_help="How closeness is judged: auto, or one of {choices}.",
)
OUTPUT = Option("output", str, "Judge this part of the output only, as logits or 0; default all.")
NEW_BIASES = Option(
    "new_biases",
    bool,
    "Give a bias to layers that have neither one nor a BatchNorm behind them.",
    defaults.NEW_BIASES,
)
INCLUDE = Option(
    "include",
    str,
    "Prune these layers only: a name, a pattern such as 'blocks.*', or {choices}; repeat for "
    f"several. '{EMBEDDING}' adds layers that are tied to one.",
    (),
    several=True,
    choices=lambda: (*CLASSES, EMBEDDING),
)
EXCLUDE = Option(
    "exclude",
    str,
    "Leave these layers dense, of which the sparsity is then not: as --include.",
    (),
    several=True,
)
# Which layers are pruned.
LAYERS = (INCLUDE, EXCLUDE)
# And which of their weights can be kept.
STRUCTURE = (*LAYERS, PATTERN)
DISTILL = Option(
    "distill",
    str,
    f"How long repair distill trains: a number of steps (default {DistillSettings().steps:g}), or "
    "2min. With repair best: train its best ending, too.",
    read=read_limit,
)
# What is done: the fields of a recipe.
RECIPE = (
    RULE, MASK, REPAIR, SPARSITY, SCOPE, BUDGET, JUDGE, OUTPUT, NEW_BIASES, *STRUCTURE, DISTILL,
)  # fmt: skip

SEED = Option(
    "seed",
    int,
    "Draws the calibration inputs.",
    defaults.SEED,
    many="seeds",
    sweep_help="Draws the calibration inputs; repeat for several. Default {default}.",
)
CALIBRATION_SIZE = Option(
    "calibration_size",
    int,
    f"Unlabelled training inputs to use; default {defaults.CALIBRATION_SIZE}, or what there is.",
)
HELDOUT_SIZE = Option(
    "heldout_size",
    int,
    "Further ones on which agreement is measured, 0 for none; "
    f"default {defaults.HELDOUT_SIZE}, or a third of what there is.",
)
BATCH_SIZE = Option(
    "batch_size",
    int,
    "Inputs per batch.",
    defaults.BATCH_SIZE,
    sweep_help="Inputs per batch; default {default}.",
)
LIMIT = Option("limit", int, "Evaluate on the first N test inputs; default all.")
# What it is done with: which of the images, and how many.
INPUT = (SEED, CALIBRATION_SIZE, HELDOUT_SIZE, BATCH_SIZE, LIMIT)
