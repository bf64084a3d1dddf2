"""The family's table: model and task as the caller wrote them to backend and prefix."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from proxy.contract.family import INSTRUCTION, Family
from proxy.errors import ModelNotFound
from proxy.faults import Invalid, invalid
from proxy.quoting import did_you_mean, quoted

# NIM's way of choosing the role where a client can set only the model.
ROLE_SUFFIXES = {"-query": "query", "-passage": "passage"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table. `instruction` is the task's own, if its prefix has one; a request may give another."""

    task: str
    backend: str
    prefix: str
    instruction: str | None = None

    def prefix_with(self, instruction: str | None) -> str:
        """The prefix as a text gets it. Raises Invalid for an instruction that the prefix has no place for."""
        if self.instruction is None and instruction is not None:
            message = (
                f"task {quoted(self.task)} takes no instruction: leave it out, or choose a task whose prefix has one"
            )
            raise invalid("instruction", message, kind="unsupported", given=instruction)
        return self.prefix.replace(INSTRUCTION, instruction if instruction is not None else self.instruction or "")


class TaskTable:
    """Every name a caller may use for a model or a task, resolved once at start.

    The names were checked when the settings were read: see `proxy.contract.family`.
    """

    def __init__(
        self, family: Family, *, default_task: str | None = None, model_aliases: Mapping[str, str] | None = None
    ) -> None:
        self.model = family.name
        self.unicode_normalization = family.unicode_normalization
        self._routes = _routes(family)
        self._default = self._routes[default_task or family.default_task]
        aliases = (*family.model_aliases, *(model_aliases or {}))
        self._models = dict(_model_names((family.name, *aliases), self._routes))

    @property
    def tasks(self) -> dict[str, Route]:
        """The canonical tasks by name."""
        return {name: route for name, route in self._routes.items() if name == route.task}

    @property
    def task_names(self) -> list[str]:
        """Every name of a task, with aliases."""
        return list(self._routes)

    def has_model(self, name: str) -> bool:
        return name in self._models

    def route(
        self, model: str | None, task: str | None, role: str | None = None, *, default: str | None = None
    ) -> Route:
        """The row for a request. An explicit task beats the model's suffix, which beats the default.

        `role` (query or passage) refines a bare task; it changes nothing if the task already names its role.
        `default` is the dialect's own default task, for families that have it.
        Raises ModelNotFound for a model that is not served and Invalid for an unknown task, both naming the valid ones.
        """
        suffix = self._suffix(model)
        if task or suffix or role:
            return self._task(task or suffix, role)
        return self._routes.get(default or "", self._default)

    def _suffix(self, model: str | None) -> str | None:
        if model is None:
            return None
        if model not in self._models:
            served = ", ".join([self.model, *(f"{self.model}:{task}" for task in self.tasks)])
            raise ModelNotFound(model, served)
        return self._models[model]

    def _task(self, task: str | None, role: str | None) -> Route:
        for name in (f"{task}.{role}" if task and role else role, task):
            if name in self._routes:
                return self._routes[name]
        raise self._unknown(task or role)

    def _unknown(self, task: str | None) -> Invalid:
        meant = did_you_mean(task, self._routes)
        message = f"unknown task {quoted(task)}{meant or ';'} allowed are: {', '.join(self.tasks)}"
        return invalid("task", message, kind="enum", given=task)


def _routes(family: Family) -> dict[str, Route]:
    """The route of each task name, with aliases."""
    routes = {
        name: Route(task=name, backend=row.backend, prefix=row.prefix, instruction=row.instruction)
        for name, row in family.tasks.items()
    }
    return {**{alias: routes[task] for alias, task in family.task_aliases.items()}, **routes}


def _model_names(names: Iterable[str], routes: Mapping[str, Route]) -> Iterator[tuple[str, str | None]]:
    """Each name of the model, with the task that its suffix stands for."""
    for name in names:
        yield name, None
        yield from ((f"{name}:{task}", task) for task in routes)
        yield from ((name + suffix, role) for suffix, role in ROLE_SUFFIXES.items() if role in routes)
