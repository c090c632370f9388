"""Where networks come from: one file each, chosen by how a name begins."""
