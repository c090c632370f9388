"""What is handed back: compressed checkpoints."""

from sparsemend.exports.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["load_checkpoint", "save_checkpoint"]
