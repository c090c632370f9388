"""Formats of exported networks, one file each."""
