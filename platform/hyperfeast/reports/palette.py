"""The colors of the report, by role, in light and in dark.

The figures are made in the light colors; the page's script exchanges each for its dark twin, so
every role has a color of its own. Text reaches a contrast of 4.5 to its ground and marks reach 3
(WCAG 2.2); lines that share a chart stay apart under the common color-vision deficiencies.
"""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Palette:
    """One color a role, as #rrggbb.

    Attributes:
        page: the ground of the page.
        surface: the ground of panels and charts.
        ink: text.
        muted: secondary text, and lines for reference.
        rule: hairlines and grids.
        signal: what the platform computed.
        benchmark: what it is held against.
        flag: what asks for attention.
        band: the area of the ordinary.
    """

    page: str
    surface: str
    ink: str
    muted: str
    rule: str
    signal: str
    benchmark: str
    flag: str
    band: str

    def css(self) -> str:
        """The roles as CSS custom properties."""
        return " ".join(f"--{role}: {color};" for role, color in asdict(self).items())


LIGHT = Palette(
    page="#f6f6f3",
    surface="#ffffff",
    ink="#1a1d21",
    muted="#59616b",
    rule="#e1e3e0",
    signal="#0b62a8",
    benchmark="#b4560a",
    flag="#b0184f",
    band="#dce9f4",
)

DARK = Palette(
    page="#101316",
    surface="#181c20",
    ink="#e7e9eb",
    muted="#a0a8b1",
    rule="#2e343a",
    signal="#5cb3f2",
    benchmark="#f0a04b",
    flag="#ff7aa8",
    band="#20364a",
)


def dark_twins() -> dict[str, str]:
    """The dark color of each light one."""
    light, dark = asdict(LIGHT), asdict(DARK)
    return {light[role]: dark[role] for role in light}
