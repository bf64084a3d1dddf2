"""The clients under test, each with a script and a page."""

from dataclasses import dataclass
from pathlib import Path

from tests.clients.environments import Environment, NodeEnvironment, PythonEnvironment

SCRIPTS = Path(__file__).parent / "scripts"
PAGES = Path(__file__).parents[2] / "docs" / "clients"

ADDRESS = "http://127.0.0.1:8080"  # in the scripts and on the pages; the tests replace it by their server's
TASK = "retrieval.passage"  # the task of every script, expressed as its client does
PAGE_TEXTS = ("a red door", "two fish")  # the input of every page
QUESTION = "which colour is the door?"  # and the query of those that have one
OF_ALL = frozenset({"page", "batch", "alone"})


@dataclass(frozen=True, slots=True)
class Client:
    """One client. Its script prints the result as JSON: OF_ALL, and the parts named in `more`."""

    name: str
    environment: Environment
    more: frozenset[str]
    suffix: str = "py"

    @property
    def script(self) -> Path:
        (found,) = SCRIPTS.rglob(f"{self.name}.{self.suffix}")
        return found

    @property
    def page(self) -> Path:
        return PAGES / f"{self.name}.md"


def _python(name: str, environment: str, more: str) -> Client:
    return Client(name, PythonEnvironment(environment), frozenset(more.split()))


BATCH_CLIENTS = (
    _python("openai-batch-python", "openai", ""),
    Client("openai-batch-node", NodeEnvironment("openai-node"), frozenset(), "mjs"),
)
CLIENTS = (
    _python("openai-python", "openai", "tokens short float ubinary empty models error"),
    _python("openai-async", "openai", "short error"),
    _python("openai-azure", "openai", "tokens short models error"),
    Client("openai-node", NodeEnvironment("openai-node"), frozenset("tokens short float empty error".split()), "mjs"),
    _python("langchain-openai", "langchain-openai", "short empty error"),
    _python("langchain-jina", "langchain-community", "empty error"),
    _python("llama-index-jina", "llama-index-jinaai", "short float bits bits_of_binary empty error"),
    _python("llama-index-openai", "llama-index-openai", "short float error"),
    _python("voyage", "voyageai", "tokens short float ubinary binary error"),
    _python("cohere", "cohere", "tokens short ubinary binary empty error"),
    _python("gemini", "google-genai", "tokens short"),
    _python("ollama", "ollama", "tokens short empty models error"),
    _python("haystack-jina", "haystack", "question tokens short error"),
    _python("haystack-openai", "haystack", "question tokens short"),
    _python("python-requests", "requests", "tokens short ubinary binary empty error"),
)
