"""``python -m tale_lab.cli``: the same as ``tale``."""

from tale_lab.cli import main

main()
