"""``python -m sparsemend``: the command line without the installed script."""

from sparsemend.cli import main

if __name__ == "__main__":
    main()
