"""Small versions of many architectures with random weights: what is covered, and does it work.

python -m benchmarks.zoo --store zoo.jsonl
"""
