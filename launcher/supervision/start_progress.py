"""Whether a start is stuck. Pure."""

from dataclasses import dataclass

COMPUTES = 0.1  # of a core: a process that uses less compiles nothing
LONGEST = 5


@dataclass(slots=True, kw_only=True)
class StartProgress:
    """The progress of a start: the part of the model that is in memory, then what is computed.

    A GPU's kernels are compiled at its first start, which takes minutes and loads nothing. A process that waits for a
    GPU that hangs computes, too, so computing counts for LONGEST times `stall_s` at most. Times are in seconds.
    """

    stall_s: float
    since_s: float
    loaded: float = 0.0
    used_s: float = 0.0
    stalls: int = 0

    def advance(self, now_s: float, loaded: float, used_s: float) -> bool:
        """Whether more is loaded than before; `used_s` is the processor's time that it used until now."""
        if loaded <= self.loaded:
            return False
        self.since_s, self.loaded, self.used_s, self.stalls = now_s, loaded, used_s, 0
        return True

    def stuck(self, now_s: float, used_s: float) -> bool:
        """Whether nothing was loaded for `stall_s`, and nothing to speak of was computed meanwhile."""
        elapsed_s = now_s - self.since_s
        if elapsed_s <= self.stall_s:
            return False
        computed_s = used_s - self.used_s
        self.since_s, self.used_s, self.stalls = now_s, used_s, self.stalls + 1
        return computed_s < COMPUTES * elapsed_s or self.stalls >= LONGEST
