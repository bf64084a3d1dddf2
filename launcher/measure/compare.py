"""`trillama compare`: embeds the same texts with two model files, one after the other, and compares the vectors."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from launcher.arrays import F32
from launcher.errors import CorpusError, ModelError
from launcher.measure import similarity
from launcher.measure.sample_texts import SampleText, SampleTexts
from launcher.measure.similarity import Comparison, Vectors
from launcher.models import header_check, sources
from launcher.models.gguf_file import brief, model_header
from launcher.settings.family import FamilyFile, Weights
from launcher.supervision.standalone import Standalone, StandaloneEmbedder, standalone

ReportTexts = Callable[[str, int, int], None]  # a model's name, and how many of all texts have their vector


def check_pair(a: Path, b: Path, weights: Weights) -> None:
    """Raises ModelError unless both are complete GGUF files of one architecture and one vector size.

    They must agree with the family's rules, by which their vectors are made.
    """
    architecture, dimensions = _shape(a)
    if (other := _shape(b)) != (architecture, dimensions):
        raise ModelError(
            f"{b} ({other[0]}, {other[1]} dimensions) cannot be compared with {a} ({architecture}, {dimensions} "
            "dimensions): give two files of one model"
        )
    for path in (a, b):
        header = sources.check_complete(path)
        header_check.check_size(path, header, architecture=weights.architecture, dimensions=dimensions)
        header_check.check_rules(path, header, weights)


def as_trained(samples: SampleTexts, family: FamilyFile, backend: str) -> SampleTexts:
    """The texts as that backend gets them: with the family's prefixes, in its Unicode form."""
    query, document = prefixes(family, backend)

    def whole(text: SampleText, prefix: str) -> SampleText:
        form = family.unicode_normalization
        return replace(text, text=unicodedata.normalize(form, prefix + text.text) if form else prefix + text.text)

    return replace(
        samples,
        queries=tuple(whole(text, query) for text in samples.queries),
        documents=tuple(whole(text, document) for text in samples.documents),
    )


def prefixes(family: FamilyFile, backend: str) -> tuple[str, str]:
    """That backend's prefixes of a query and of a document; the same for a symmetric one."""
    by_task = {name: task.whole_prefix for name, task in family.tasks.items() if task.backend == backend}
    only = next(iter(by_task.values()), "")
    by_role = {name.rpartition(".")[2]: prefix for name, prefix in reversed(by_task.items())}  # the first of a role
    return by_role.get("query", only), by_role.get("passage", only)


def batches(lengths: Sequence[int], *, slots: int, tokens: int) -> list[list[int]]:
    """The texts' numbers in batches of at most `slots` texts and `tokens` tokens; no text may be longer than that."""
    found: list[list[int]] = []
    room = 0
    for number, length in enumerate(lengths):
        if not found or len(found[-1]) == slots or length > room:
            found.append([])
            room = tokens
        found[-1].append(number)
        room -= length
    return found


def batch_tokens(samples: SampleTexts, most: int) -> int:
    """The physical batch for those texts (see `as_trained`): memory grows with it, and short texts need little.

    A token is at least a byte of text, and a few special tokens are added around it. Half a batch of the usual
    size costs no speed.
    """
    longest = max(len(text.text.encode()) for text in (*samples.queries, *samples.documents))
    return min(most, max(1024, longest + 16))


async def compare_models(
    run: Standalone, files: Mapping[str, Path], samples: SampleTexts, report: ReportTexts
) -> Comparison:
    """Embed the texts (see `as_trained`) with each of the two files, one after the other, and compare the vectors.

    Raises CorpusError for a text that is too long, ChildError for an engine that does not start or gives wrong vectors.
    """
    texts = list({text.text: text for text in (*samples.queries, *samples.documents)}.values())
    row = {text.text: number for number, text in enumerate(texts)}
    queries, documents = ([row[text.text] for text in part] for part in (samples.queries, samples.documents))
    sides = []
    for name, path in files.items():
        async with standalone(run, name, path) as embedder:
            found = await _embed(embedder, run, texts, report)
        sides.append(Vectors(queries=found[queries], documents=found[documents]))
    return similarity.compared(*sides, paired=samples.paired)


async def _embed(
    embedder: StandaloneEmbedder, run: Standalone, texts: Sequence[SampleText], report: ReportTexts
) -> F32:
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
        done.append(await embedder.vectors([ids[number] for number in batch]))  # trap T4: one batch at a time
    report(embedder.name, len(texts), len(texts))
    return np.concatenate(done)


def _shape(path: Path) -> tuple[str, int]:
    header = model_header(path)
    return brief(header.metadata.get("general.architecture")), header_check.vector_length(header)
