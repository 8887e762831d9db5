"""The laboratory: measures, tunes and trains; the command ``tale``. The plugin never imports it."""

__all__: list[str] = []
