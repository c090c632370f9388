import dataclasses

from benchmarks.auto import read_cells, table
from tests.sweeps.samples import make_cell, make_record, make_settings

from sparsemend.sweeps.store import open_store


def stored(path, *rows):
    with open_store(path) as store:
        for rule, sparsity, seed, top1 in rows:
            settings = make_settings(budget="30" if rule == "auto" else "")
            cell = dataclasses.replace(make_cell(), rule=rule, sparsity=sparsity, seed=seed)
            store.add(make_record(cell, settings, top1_repaired=top1))
    return path


def test_the_gain_is_over_the_best_rule_of_the_cell_and_over_the_best_on_average(tmp_path):
    first = stored(
        tmp_path / "a.sqlite",
        *[("auto", 0.8, 0, 0.5), ("erk", 0.8, 0, 0.4), ("global", 0.8, 0, 0.3)],
        *[("auto", 0.8, 1, 0.6), ("erk", 0.8, 1, 0.2), ("global", 0.8, 1, 0.1)],
        ("erk", 0.85, 0, 0.9),  # never with auto
        *[("auto", 0.7, 0, 0.9), ("erk", 0.7, 0, 0.1)],  # without one of the rules
    )
    second = stored(
        tmp_path / "b.sqlite", ("auto", 0.9, 0, 0.3), ("erk", 0.9, 0, 0.1), ("global", 0.9, 0, 0.32)
    )
    lines = table(read_cells([first, second]))
    rows = [line.split(" | ") for line in lines if line.startswith("| n |")]
    assert [row[2:] for row in rows] == [
        ["0.8", "2", "30.0", "20.0", "55.0", "+25.0 |"],
        ["0.9", "1", "10.0", "32.0", "30.0", "-2.0 |"],
    ]
    assert "best plain rule on average: global; auto is +16.50" in lines[-1].lower()
    assert lines[-1].endswith("-2.00.")
