"""What the figures say, in plain words, from their numbers alone."""

from sparsemend.reports.words.compression import of_compression
from sparsemend.reports.words.diagnosis import of_diagnosis
from sparsemend.reports.words.facts import facts_of
from sparsemend.reports.words.summary import sentences
from sparsemend.reports.words.sweep import of_sweep

__all__ = ["facts_of", "of_compression", "of_diagnosis", "of_sweep", "sentences"]
