"""Records that were never computed, and sizes of sweeps that are quick."""

from sparsemend.sweeps import Cell, Record, Settings

SIZES = {"calibration_size": 64, "heldout_size": 64, "batch_size": 32, "limit": 100}

_SETTINGS = {
    "scope": "sequential",
    "calibration_size": 64,
    "heldout_size": 32,
    "test_size": 100,
    "batch_size": 32,
    "weights": "w",
    "inputs": "i",
    "test": "t",
    "new_biases": True,
}
_CELL = {
    "network": "n",
    "rule": "erk",
    "mask": "magnitude",
    "repair": "mean",
    "sparsity": 0.9,
    "seed": 0,
}
_RECORD = {
    "achieved_sparsity": 0.9,
    "top1_dense": 0.95,
    "top1_pruned": 0.2,
    "top1_repaired": 0.6,
    "chance": 0.1,
    "kl": 0.3,
    "agreement": 0.7,
    "seconds": 1.0,
    "versions": {"torch": "2"},
    "densities": {"fc": 0.1},
}


def make_settings(**values):
    return Settings(**(_SETTINGS | values))


def make_cell(**values):
    return Cell(**(_CELL | values))


def make_record(cell=None, settings=None, **values):
    settings = settings or make_settings()
    return Record(cell or make_cell(), settings=settings, **(_RECORD | values))


def table(records):
    """All that records say but the time they took."""
    fields = [*_RECORD, "cell", "settings"]
    fields.remove("seconds")
    return [[getattr(record, field) for field in fields] for record in records]
