"""The main job on real data: every part of the platform once, from raw files to a logged answer."""

from hyperfeast.demo.run import STAGES, DemoResult, Stage, run

__all__ = ["STAGES", "DemoResult", "Stage", "run"]
