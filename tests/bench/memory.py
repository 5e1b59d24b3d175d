"""How much memory a process has held."""

import resource
from pathlib import Path


def peak_mb() -> float:
    """The most memory that this process ever held, in megabytes (10^6 bytes).

    What getrusage says begins with the parent's memory on Linux; the kernel's own mark does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
