"""Published peers of the reconstruction, written from their papers' definitions.

``python -m benchmarks.peers --help`` compares them at the same layer densities, on the same
images, in one process. For networks whose layers run once in a forward pass.
"""
