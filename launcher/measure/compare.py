"""`trillama compare`: two model files, one engine after the other on the same texts, and how far they agree."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from launcher.errors import CorpusError, ModelError
from launcher.measure import similarity
from launcher.measure.corpus import Corpus, CorpusText
from launcher.measure.similarity import F32, Comparison, Vectors
from launcher.models import sources
from launcher.models.gguf_file import read_header
from launcher.settings.family import Family
from launcher.supervision.standalone import Standalone, StandaloneEmbedder, standalone

Report = Callable[[str, int, int], None]  # a model's name, and how many of how many texts have their vector


def check_pair(a: Path, b: Path) -> None:
    """Raises ModelError unless both are whole GGUF files whose vectors can be compared: one architecture, one size."""
    architecture, dimensions = _shape(a)
    if (other := _shape(b)) != (architecture, dimensions):
        raise ModelError(
            f"{b} ({other[0]}, {other[1]} dimensions) cannot be compared with {a} ({architecture}, {dimensions} "
            "dimensions): give two files of one model"
        )
    for path in (a, b):
        sources.check(path, architecture=architecture, dimensions=dimensions)


def as_trained(corpus: Corpus, family: Family, backend: str) -> Corpus:
    """The corpus as that backend gets it: with the family's prefixes, in its form of Unicode."""
    query, document = prefixes(family, backend)

    def whole(text: CorpusText, prefix: str) -> CorpusText:
        form = family.unicode_normalization
        return replace(text, text=unicodedata.normalize(form, prefix + text.text) if form else prefix + text.text)

    return replace(
        corpus,
        queries=tuple(whole(text, query) for text in corpus.queries),
        documents=tuple(whole(text, document) for text in corpus.documents),
    )


def prefixes(family: Family, backend: str) -> tuple[str, str]:
    """What a query and what a document of that backend begins with; the same for a symmetric one."""
    of = {name: task.prefix for name, task in family.tasks.items() if task.backend == backend}
    only = next(iter(of.values()), "")
    by_role = {name.rpartition(".")[2]: prefix for name, prefix in of.items()}
    return by_role.get("query", only), by_role.get("passage", only)


def batches(lengths: Sequence[int], *, slots: int, tokens: int) -> list[list[int]]:
    """The texts' numbers in calls of at most `slots` texts and `tokens` tokens; no text may be longer than that."""
    found: list[list[int]] = []
    room = 0
    for number, length in enumerate(lengths):
        if not found or len(found[-1]) == slots or length > room:
            found.append([])
            room = tokens
        found[-1].append(number)
        room -= length
    return found


def batch_tokens(corpus: Corpus, most: int) -> int:
    """The physical batch for a corpus (see `as_trained`): memory grows with it, and short texts need little.

    A token is never less than a byte of text; a few more are the special ones around it. Half a batch of the usual
    size costs no speed.
    """
    longest = max(len(text.text.encode()) for text in (*corpus.queries, *corpus.documents))
    return min(most, max(1024, longest + 16))


async def compare(run: Standalone, files: Mapping[str, Path], corpus: Corpus, report: Report) -> Comparison:
    """Embed a corpus (see `as_trained`) with each of the two files, one after the other, and compare the vectors.

    Raises CorpusError for a text that is too long, ChildError for an engine that does not start or answers wrong.
    """
    texts = list({text.text: text for text in (*corpus.queries, *corpus.documents)}.values())
    row = {text.text: number for number, text in enumerate(texts)}
    queries, documents = ([row[text.text] for text in part] for part in (corpus.queries, corpus.documents))
    sides = []
    for name, path in files.items():
        async with standalone(run, name, path) as embedder:
            found = await _embed(embedder, run, texts, report)
        sides.append(Vectors(queries=found[queries], documents=found[documents]))
    return similarity.compared(*sides, paired=corpus.paired)


async def _embed(embedder: StandaloneEmbedder, run: Standalone, texts: Sequence[CorpusText], report: Report) -> F32:
    """The texts' vectors, (n, dimensions), rows of unit length."""
    report(embedder.name, 0, len(texts))
    ids = [await embedder.token_ids(text.text) for text in texts]
    for text, one in zip(texts, ids, strict=True):
        if len(one) > run.batch_tokens:
            raise CorpusError(
                f"{text.name}: {len(one)} tokens with its prefix, {run.batch_tokens} fit: shorten it, or raise "
                "max_input_tokens in the configuration"
            )
    done: list[F32] = []
    for batch in batches([len(one) for one in ids], slots=run.slots, tokens=run.batch_tokens):
        report(embedder.name, batch[0], len(texts))
        done.append(await embedder.vectors([ids[number] for number in batch]))  # trap T4: one call at a time
    report(embedder.name, len(texts), len(texts))
    return np.concatenate(done)


def _shape(path: Path) -> tuple[str, int]:
    metadata = read_header(path).metadata
    architecture = str(metadata.get("general.architecture"))
    length = metadata.get(f"{architecture}.embedding_length")
    return architecture, length if isinstance(length, int) else 0
