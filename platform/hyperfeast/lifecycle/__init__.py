"""How long rows are kept, and how: declared in sql/lifecycle.toml, shown, planned, applied, enforced."""

from hyperfeast.lifecycle.applying import apply
from hyperfeast.lifecycle.declaration import TableLifecycle, load
from hyperfeast.lifecycle.enforcing import Enforced, enforce
from hyperfeast.lifecycle.expiry import Drop
from hyperfeast.lifecycle.intervals import Interval
from hyperfeast.lifecycle.planning import Change, Compression, Plan, plan
from hyperfeast.lifecycle.showing import Kept, TableState, show

__all__ = [
    "Change", "Compression", "Drop", "Enforced", "Interval", "Kept", "Plan", "TableLifecycle", "TableState",
    "apply", "enforce", "load", "plan", "show",
]  # fmt: skip
