"""The catalogue as a table for the documentation."""

from hyperfeast.indicators.catalog import Function, functions, parameters, ta
from hyperfeast.indicators.rule import column
from hyperfeast.indicators.units import units

_HEAD = (
    "| name | what it is | reads | parameters | gives (unit) | lookback | warm-up |",
    "|---|---|---|---|---|---|---|",
)


def catalog_table() -> str:
    """Markdown: one table a group, one row a function of TA-Lib, with its defaults."""
    lines: list[str] = []
    group = ""
    for function in functions():
        if function.group != group:
            group = function.group
            lines += ["", f"### {group}", "", *_HEAD]
        lines.append(_row(function))
    return "\n".join(lines[1:])


def _row(function: Function) -> str:
    on = ("close", column("close") * 0 + 5) if function.name == "MAVP" else None
    rules = {output: ta(function.name, output=output, on=on) for output in function.outputs}
    first = next(iter(rules.values()))
    settable = [f"*{name}*" for name in function.settable]
    takes = "; ".join(
        f"`{one.name}={one.default:g}` {one.range}" for one in parameters(function.name)
    )
    gives = ", ".join(
        f"`{output}` ({units(rule)})" if len(rules) > 1 else str(units(rule))
        for output, rule in rules.items()
    )
    cells = (
        f"`{function.name}`",
        function.title,
        ", ".join([*settable, *function.fixed]),
        takes,
        gives,
        str(first.lookback),
        str(first.warm_up),
    )
    return f"| {' | '.join(cells)} |"
