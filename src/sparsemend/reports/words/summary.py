"""The summary of a report: what each of its results shows."""

from __future__ import annotations

from sparsemend.reports.ablations import find_ablations, gains
from sparsemend.reports.contents import Contents
from sparsemend.reports.words.compression import of_compression
from sparsemend.reports.words.diagnosis import of_diagnosis
from sparsemend.reports.words.sweep import of_sweep


def sentences(contents: Contents) -> list[str]:
    """The summary of a report; its first sentence is the headline."""
    found: list[str] = []
    if contents.records:
        found += of_sweep(contents.records, contents.transitions, contents.leads)
    if contents.compression is not None:
        found += of_compression(contents.compression, contents.allocations)
    for name, diagnosis in contents.diagnoses.items():
        found += of_diagnosis(diagnosis, name if len(contents.diagnoses) > 1 else "")
    for ablation in find_ablations(contents.records):
        found += gains(ablation)
    return found
