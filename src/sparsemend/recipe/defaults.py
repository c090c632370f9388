"""What is meant where nothing is said; every keyword, flag and file reads these."""

from sparsemend.allocation import RULES
from sparsemend.patterns import FREE, Pattern

# Rule ``auto`` is no rule of weights or shapes alone, but a search that repairs.
AUTO = "auto"
# Nor is ``branches``, which tries which residual branches to give up.
BRANCHES = "branches"
SEARCHES = (AUTO, BRANCHES)

# Without a rule and a repair of the user's, both are planned for a time; with one of the two, the
# other is this.
SEARCHED_RULE = AUTO
REPAIR = "best"
PLANNED_SECONDS = 600.0
# Of allocations and sweeps, which search only where that is asked for.
PLAIN_RULE = "global"
# Of an ablation: the rule in which layers are forced.
BASE_RULE = "erk"
SCOPE = "sequential"
# Any weights can be kept.
PATTERN = FREE.name
JUDGE = "auto"
# The result has the parameters of the original.
NEW_BIASES = False
# The repair of Relative Repairability, and the mask and weights of channels of a diagnosis.
DIAGNOSED_REPAIR = "variance"
WEIGHTING = "relative"

CALIBRATION_SIZE = 512
# Of a compression that is planned for a time, which takes as many as it has time for.
PLANNED_CALIBRATION_SIZE = 1024
HELDOUT_SIZE = 256
BATCH_SIZE = 128
EVALUATION_BATCH_SIZE = 256
SEED = 0


def plain_rule(pattern: Pattern) -> str:
    """The rule of allocations and sweeps: of a pattern that has a density, the one that fits."""
    even = (name for name, rule in RULES.items() if rule.even)
    return PLAIN_RULE if pattern.density is None else next(even)


def searched_rule(pattern: Pattern) -> str:
    """The rule of a compression with a repair of the user's; nothing is left to be searched for
    where the pattern has a density.
    """
    return SEARCHED_RULE if pattern.density is None else plain_rule(pattern)
