"""The composition root: everything is built here, from the settings, and nowhere else."""

from hyperfeast.app.composition import App
from hyperfeast.app.logs import configure_logs

__all__ = ["App", "configure_logs"]
