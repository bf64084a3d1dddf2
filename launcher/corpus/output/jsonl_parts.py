"""Vectors as JSON lines: a file per part, a row per line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

from launcher.corpus.output.npy_file import row_facts
from launcher.corpus.output.stored import FinishedPart, OutputFormat, StoredPart, VectorType, part_ledger
from launcher.errors import CorpusError
from proxy.bulk.ledger import PartLedger, RowRange


@dataclass(slots=True, kw_only=True)
class JsonlParts:
    folder: Path
    vector_type: VectorType
    width: int
    ledger: PartLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = part_ledger(self.folder, OutputFormat.JSONL)

    def write(self, part: FinishedPart) -> None:
        def lines(file: BinaryIO) -> None:
            for row in range(part.rows.rows):
                vector = None if row in part.errors else part.vectors[row]
                facts = {**row_facts(part, row), "vector": vector}
                file.write(orjson.dumps(facts, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")

        self.ledger.commit(part.rows, lines)

    def read(self, rows: RowRange) -> StoredPart:
        path = self.ledger.path(rows)
        vectors = np.zeros((rows.rows, self.width), dtype=self.vector_type.numpy)
        ids = []
        try:
            with path.open("rb") as file:
                for row, line in enumerate(file):
                    facts = orjson.loads(line)
                    ids.append(facts["id"])
                    if facts["vector"] is not None:
                        vectors[row] = facts["vector"]
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise CorpusError(f"{path} is damaged: {error}") from error
        return StoredPart(ids, vectors)

    def finish(self) -> None:
        """Each part is complete."""
