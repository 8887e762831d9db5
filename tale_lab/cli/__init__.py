"""The command ``tale``; needs the extra ``cli``.

One module per command; `tale_lab.cli.app` registers them.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    from tale_core.errors import MissingExtraError  # noqa: PLC0415  # not a name of this package

    try:
        import rich  # noqa: F401, PLC0415  # typer would fail without it only when it prints
        import typer  # noqa: F401, PLC0415
    except ImportError as exc:
        sys.exit(str(MissingExtraError(exc.name or "typer", "cli")))
    from tale_lab.cli.app import app  # noqa: PLC0415  # after the check

    app(prog_name="tale")
