"""What is handed back: compressed checkpoints, and networks in formats that run elsewhere."""

from sparsemend.exports.checkpoint import load_checkpoint, save_checkpoint
from sparsemend.exports.exporting import Export, export

__all__ = ["Export", "export", "load_checkpoint", "save_checkpoint"]
