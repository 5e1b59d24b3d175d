"""PostgreSQL: connections, frames in and out, and its errors in our words."""

from hyperfeast.db.connection import Database
from hyperfeast.db.copy import copy_frame

__all__ = ["Database", "copy_frame"]
