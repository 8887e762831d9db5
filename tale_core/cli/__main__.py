"""``python -m tale_core.cli``: the same as ``tale``."""

from tale_core.cli import main

main()
