"""What every chart is made of: axes, lines and levels in the light palette."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hyperfeast.reports.palette import LIGHT

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FONT = '-apple-system, "Segoe UI", Inter, Roboto, "Helvetica Neue", Arial, sans-serif'

SOLID, DASHED, DOTTED = "solid", "7px,4px", "2px,3px"


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis of a layout; `more` as Plotly has it."""
    return {
        "title": {"text": title, "font": {"size": 12, "color": LIGHT.muted}, "standoff": 10},
        "tickfont": {"size": 12, "color": LIGHT.muted},
        "gridcolor": LIGHT.rule,
        "linecolor": LIGHT.rule,
        "zeroline": False,
        "automargin": True,
        # Invisible ticks hold the labels off the axis.
        "ticks": "outside",
        "ticklen": 5,
        "tickcolor": LIGHT.surface,
        **more,
    }


def empty_figure(**layout: Any) -> "Figure":
    """A figure without marks; `layout` as Plotly has it."""
    from plotly.graph_objects import Figure

    figure = Figure()
    figure.update_layout(
        template="none",
        showlegend=False,
        font={"family": FONT, "size": 12, "color": LIGHT.ink},
        paper_bgcolor=LIGHT.surface,
        plot_bgcolor=LIGHT.surface,
        margin={"l": 8, "r": 12, "t": 12, "b": 8},
        hoverlabel={
            "bgcolor": LIGHT.surface,
            "bordercolor": LIGHT.muted,
            "font": {"family": FONT, "size": 12, "color": LIGHT.ink},
        },
        **layout,
    )
    return figure


def line(color: str, width: float, dash: str = SOLID) -> dict[str, Any]:
    """A line of a mark; the width in pixels."""
    return {"color": color, "width": width, "dash": dash}


def add_level(figure: "Figure", value: float, style: dict[str, Any], *, on: str = "y") -> None:
    """A line across the whole chart, at a value of an axis."""
    figure.add_shape(
        type="line",
        xref="paper",
        x0=0,
        x1=1,
        yref=on,
        y0=value,
        y1=value,
        line=style,
        layer="below",
    )


def steps(colors: Sequence[str]) -> list[tuple[float, str]]:
    """A color scale in even steps, for as many grades as there are colors."""
    return [
        edge
        for place, color in enumerate(colors)
        for edge in ((place / len(colors), color), ((place + 1) / len(colors), color))
    ]
