"""The launcher's errors, each with its exit code.

LauncherError                    1   anything not named below
├── ArgumentError                2   an argument of the command is wrong; typer exits with 2 too
├── ConfigError                  78  a setting is missing, unknown or contradicts another (EX_CONFIG)
├── EngineError                  69  no llama-server that can serve embeddings as we need them (EX_UNAVAILABLE)
│   └── EngineBuildError         70  building llama.cpp from source failed (EX_SOFTWARE)
│       └── Miscompiled          70  it crashes or computes wrong vectors: a compiler or processor fault
├── ServiceError                 1   systemd is not there, or failed to do what it was asked
├── DiskError                    75  one of our folders is on a full or read-only disk (EX_TEMPFAIL)
├── NotEnoughMemory              75  the models do not fit into memory in any way (EX_TEMPFAIL)
├── NotRunning                   69  no trillama is running here (EX_UNAVAILABLE)
├── Declined                     -   the running trillama refused; with the code that its error has
├── CorpusError                  65  the texts cannot be used: missing, damaged, too few, changed (EX_DATAERR)
├── SpaceChanged                 75  the server began to serve another model in the middle of a job (EX_TEMPFAIL)
├── JobStopped                   75  a corpus job was stopped, and can be resumed (EX_TEMPFAIL)
├── ModelError                   66  a model file is missing, wrong or cannot be downloaded (EX_NOINPUT)
│   ├── DamagedFile              66  it is truncated, or its content is wrong
│   ├── HubUnreachable           75  the hub does not answer, or cannot serve us now (EX_TEMPFAIL)
│   ├── PackageUnavailable       75  pip cannot fetch the package that a model is made from (EX_TEMPFAIL)
│   └── NotWritten               75  the file cannot be written: disk full, read-only, no permission (EX_TEMPFAIL)
└── ChildError                   70  a child process failed (EX_SOFTWARE)
    ├── StartError               75  it did not become ready: port taken, memory, a crash (EX_TEMPFAIL)
    ├── ChildExited              70  it was serving and exited by itself
    ├── Unresponsive             70  it runs but does not answer its health check
    └── WrongAnswer              70  its vectors are not the model's
"""


class LauncherError(Exception):
    """Base class. `args[0]` is one sentence for the user that says what to do next.

    `returncode` is the exit status of the llama-server that the error is about, if it exited by itself.
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


class Declined(LauncherError):
    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


class CorpusError(LauncherError):
    exit_code = 65


class SpaceChanged(LauncherError):
    exit_code = 75


class JobStopped(LauncherError):
    exit_code = 75


class ModelError(LauncherError):
    exit_code = 66


class DamagedFile(ModelError):
    pass


class HubUnreachable(ModelError):
    exit_code = 75


class PackageUnavailable(ModelError):
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
    """The first LauncherError in the errors of a task group, or the group itself if it has none."""
    ours = group.subgroup(LauncherError)
    if ours is None:
        return group
    first = ours.exceptions[0]
    return cause_of(first) if isinstance(first, ExceptionGroup) else first
