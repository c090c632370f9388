"""The figures of a report, one file each: results become marks in data coordinates."""
