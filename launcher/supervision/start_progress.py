"""Whether a start is stuck. Pure."""

from dataclasses import dataclass

MIN_CPU_SHARE = 0.1  # of a core: a process that uses less compiles nothing
MAX_EXTENSIONS = 5


@dataclass(slots=True, kw_only=True)
class StartProgress:
    """The progress of a start: the part of the model that is in memory, and the CPU time used since that last grew.

    A GPU's kernels are compiled at the first start: minutes of CPU time while nothing is loaded. A process that waits
    for a hung GPU uses CPU time, too, so loading may pause for at most MAX_EXTENSIONS times `stall_s`.
    """

    stall_s: float
    since_s: float
    loaded: float = 0.0
    used_s: float = 0.0
    stalls: int = 0

    def advance(self, now_s: float, loaded: float, used_s: float) -> bool:
        """Record what is loaded and the CPU time used so far; returns whether more is loaded than before."""
        if loaded <= self.loaded:
            return False
        self.since_s, self.loaded, self.used_s, self.stalls = now_s, loaded, used_s, 0
        return True

    def stuck(self, now_s: float, used_s: float) -> bool:
        """Whether nothing was loaded for `stall_s`, and hardly any CPU time was used meanwhile."""
        elapsed_s = now_s - self.since_s
        if elapsed_s <= self.stall_s:
            return False
        computed_s = used_s - self.used_s
        self.since_s, self.used_s, self.stalls = now_s, used_s, self.stalls + 1
        return computed_s < MIN_CPU_SHARE * elapsed_s or self.stalls >= MAX_EXTENSIONS
