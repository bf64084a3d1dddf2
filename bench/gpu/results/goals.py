"""The goals, by phase, and what a run reached of them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.gpu.results.found import Result

NOT_MEASURED = "not measured yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuGoal:
    """A figure of a phase must be at least and at most so much. `figure` None: there is no such bound."""

    phase: str
    figure: str
    least: float | None = None
    most: float | None = None

    @property
    def wanted(self) -> str:
        """The bounds in words."""
        parts = [f"≥ {self.least:g}"] if self.least is not None else []
        return " and ".join([*parts, *([f"≤ {self.most:g}"] if self.most is not None else [])])

    def met(self, value: float) -> bool:
        """Whether the value is within the bounds."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


@dataclass(frozen=True, slots=True)
class GoalVerdict:
    """A goal and what was seen of it; None: not measured."""

    goal: GpuGoal
    seen: float | None

    @property
    def words(self) -> str:
        """`yes`, `NO`, or that it was not measured."""
        return NOT_MEASURED if self.seen is None else "yes" if self.goal.met(self.seen) else "NO"


def _truth() -> Iterator[GpuGoal]:
    # Quantised weights: the engine rounds activations to 8 bits, too, and in another way in another batch. PyTorch does
    # not, and random weights amplify it (0.9994 on a CPU). So 0.9999 is for F16; a wrong token costs 0.03.
    for quantization, least in (("F16", 0.9999), ("Q8_0", 0.999), ("Q4_K_M", 0.999)):
        yield GpuGoal(phase="truth", figure=f"{quantization}, alone: least cosine", least=least)
        yield GpuGoal(phase="truth", figure=f"{quantization}, 48 clients: least cosine", least=least)
        yield GpuGoal(phase="truth", figure=f"{quantization}, 48 clients: wrong", most=0)
        yield GpuGoal(phase="truth", figure=f"{quantization}, 48 clients: failed requests", most=0)
        yield GpuGoal(phase="truth", figure=f"{quantization}: least cosine to the same text alone", least=least)
    for quantization in ("F16", "Q8_0"):
        for way in ("by prefixes", "with token_level"):
            yield GpuGoal(phase="truth", figure=f"{quantization}, late chunking {way}: least cosine", least=0.999)
        yield GpuGoal(phase="truth", figure=f"{quantization}, multi-vectors: least cosine", least=0.999)
    yield GpuGoal(phase="truth", figure="restarts: least cosine to before", least=0.9999)


def _speed() -> Iterator[GpuGoal]:
    for quantization in ("Q8_0", "F16"):
        yield GpuGoal(phase="speed", figure=f"{quantization}: tokens/s of llama-bench's", least=0.97)
        yield GpuGoal(phase="speed", figure=f"{quantization}: tokens/s of those directly", least=0.97)
        for kind in ("short", "medium", "long", "mixed"):
            yield GpuGoal(phase="speed", figure=f"{quantization}, {kind}: times PyTorch's tokens/s", least=2)
    yield GpuGoal(phase="speed", figure="two batches in flight: wrong", most=0)


def _faults() -> Iterator[GpuGoal]:
    for name in ("SIGKILL", "SIGSTOP"):
        yield GpuGoal(phase="faults", figure=f"{name}: seconds until it serves again", most=60)
        yield GpuGoal(phase="faults", figure=f"{name}: failed requests", most=0)
        yield GpuGoal(phase="faults", figure=f"{name}: wrong", most=0)
        yield GpuGoal(phase="faults", figure=f"{name}: memory after the restart, of before", least=0.95, most=1.05)
    yield GpuGoal(phase="faults", figure="no visible GPU: became ready", most=0)
    yield GpuGoal(phase="faults", figure="too large a model: exit code", least=1)


GOALS: Sequence[GpuGoal] = (
    GpuGoal(phase="build", figure="built: seconds", most=540),
    *(
        GpuGoal(phase="build", figure=f"{quantization}: vectors that differ without the logits", most=0)
        for quantization in ("F16", "Q8_0", "Q4_K_M")
    ),
    GpuGoal(phase="build", figure="packed: the same when unpacked, and runs", least=1),
    *_truth(),
    GpuGoal(phase="memory", figure="memory of the plan, least", least=0.95),
    GpuGoal(phase="memory", figure="memory of the plan, most", most=1.05),
    GpuGoal(phase="memory", figure="three at once, F16: of the plan", least=0.95, most=1.05),
    GpuGoal(phase="memory", figure="three at once, F16: all served their longest text", least=1),
    *_speed(),
    *_faults(),
)


def verdicts(result: Result) -> list[GoalVerdict]:
    """All goals of its phase."""
    return [GoalVerdict(goal, result.figures.get(goal.figure)) for goal in GOALS if goal.phase == result.phase]


def judged(result: Result) -> str:
    """The verdicts as lines."""
    lines = [f"{result.phase} on {result.card}{' (a rehearsal)' if result.rehearsal else ''}:"]
    for one in verdicts(result):
        seen = "-" if one.seen is None else f"{one.seen:.6g}"
        lines.append(f"  {one.words:>16}  {one.goal.figure}: {seen} ({one.goal.wanted})")
    return "\n".join(lines)
