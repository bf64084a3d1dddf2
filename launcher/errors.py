"""Everything that can stop the launcher, each with the exit code that the shell sees.

LauncherError                    1   anything not named below
├── ArgumentError                2   an argument of the command is wrong, as for those that typer refuses
├── ConfigError                  78  a setting is missing, unknown or contradicts another (EX_CONFIG)
├── EngineError                  69  no llama-server that serves embeddings as we need it (EX_UNAVAILABLE)
│   └── EngineBuildError         70  building llama.cpp from source failed (EX_SOFTWARE)
│       └── Miscompiled          70  what was built dies of SIGILL or computes wrong: the compiler, or the processor
├── ServiceError                 1   systemd is not there, or did not do as asked
├── DiskError                    75  a folder of ours is on a full or read-only disk (EX_TEMPFAIL)
├── NotEnoughMemory              75  no way to serve the models fits the memory there is (EX_TEMPFAIL)
├── NotRunning                   69  no trillama serves here that could be asked (EX_UNAVAILABLE)
├── CorpusError                  65  the texts to compare on are missing, too few or too long (EX_DATAERR)
├── ModelError                   66  a model file is missing, wrong or cannot be had (EX_NOINPUT)
│   ├── DamagedFile              66  it is cut off, or not what it should be
│   ├── HubUnreachable           75  nobody answers where the models come from, or not now (EX_TEMPFAIL)
│   └── NotWritten               75  the disk cannot take it: full, read-only, not ours (EX_TEMPFAIL)
└── ChildError                   70  a child process is not as it should be (EX_SOFTWARE)
    ├── StartError               75  it did not become ready: port taken, memory, a crash (EX_TEMPFAIL)
    ├── ChildExited              70  it was serving and ended by itself
    ├── Unresponsive             70  it lives but does not answer its health check
    └── WrongAnswer              70  its vectors are not the model's
"""


class LauncherError(Exception):
    """Base class. `args[0]` is one sentence for the user that says what to do next.

    `returncode` is that of the llama-server whose end is told, where it ended by itself.
    """

    exit_code = 1

    def __init__(self, sentence: str, *, returncode: int | None = None) -> None:
        super().__init__(sentence)
        self.returncode = returncode


class ArgumentError(LauncherError):
    exit_code = 2


class ConfigError(LauncherError):
    exit_code = 78


class EngineError(LauncherError):
    exit_code = 69


class EngineBuildError(EngineError):
    exit_code = 70


class Miscompiled(EngineBuildError):
    pass


class DiskError(LauncherError):
    exit_code = 75


class NotEnoughMemory(LauncherError):
    exit_code = 75


class NotRunning(LauncherError):
    exit_code = 69


class CorpusError(LauncherError):
    exit_code = 65


class ModelError(LauncherError):
    exit_code = 66


class DamagedFile(ModelError):
    pass


class HubUnreachable(ModelError):
    exit_code = 75


class NotWritten(ModelError):
    exit_code = 75


class ServiceError(LauncherError):
    pass


class ChildError(LauncherError):
    exit_code = 70


class StartError(ChildError):
    exit_code = 75


class ChildExited(ChildError):
    pass


class Unresponsive(ChildError):
    pass


class WrongAnswer(ChildError):
    pass


def cause_of(group: ExceptionGroup[Exception]) -> Exception:
    """The first error of ours in a group of tasks that fell together, or the group itself if there is none."""
    ours = group.subgroup(LauncherError)
    if ours is None:
        return group
    first = ours.exceptions[0]
    return cause_of(first) if isinstance(first, ExceptionGroup) else first
