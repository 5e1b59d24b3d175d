"""What stands for a mark in a chart's key: the insides of a small SVG, 28 by 12."""

SIGNAL_LINE = '<line class="signal-line" y1="6" x2="28" y2="6"/>'
SIGNAL_DOTS = f'{SIGNAL_LINE}<circle class="signal-mark" cx="14" cy="6" r="3"/>'
BENCHMARK_LINE = '<line class="benchmark-line" y1="6" x2="28" y2="6"/>'
MEAN_LINE = '<line class="mean-line" y1="6" x2="28" y2="6"/>'
LIMIT_LINE = '<line class="limit-line" y1="6" x2="28" y2="6"/>'
BAND = '<rect class="band-mark" width="28" height="12"/>'
FLAG = '<path class="flag-mark" d="M14 0l6 6-6 6-6-6z"/>'
