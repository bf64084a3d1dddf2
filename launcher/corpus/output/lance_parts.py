"""Vectors as a Lance dataset: a fragment per part, all of which become one version when the job is done."""

import os
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from launcher.corpus.output.part_table import ID_COLUMN, VECTOR_COLUMN, PartTable
from launcher.corpus.output.stored import FinishedPart, OutputFormat, StoredPart, part_ledger
from launcher.corpus.rows.with_pyarrow import pyarrow
from launcher.errors import ArgumentError, CorpusError
from proxy.bulk.durable import sync_folder
from proxy.bulk.ledger import PartLedger, RowRange, files_of

if TYPE_CHECKING:
    import pyarrow as pa

_DATASET = "vectors.lance"


def check_lance() -> None:
    """Raises ArgumentError with the command that installs what is missing."""
    pyarrow("the output is Lance")
    os.environ.setdefault("LANCE_LOG", "error")  # it warns of each fragment before the first version
    try:
        import lance  # noqa: F401, PLC0415 # an extra
    except ImportError as error:
        raise ArgumentError("--format lance needs pylance: pip install 'trillama[lance]'") from error


@dataclass(slots=True, kw_only=True)
class LanceParts:
    """The ledger's files say which data file of the dataset has a part: these have names of their own."""

    folder: Path
    table: PartTable
    ledger: PartLedger = field(init=False)

    def __post_init__(self) -> None:
        check_lance()
        self.ledger = part_ledger(self.folder, OutputFormat.LANCE)

    def write(self, part: FinishedPart) -> None:
        from lance.fragment import write_fragments  # noqa: PLC0415 # an extra

        (fragment,) = write_fragments(self.table.of(part), str(self._dataset), max_rows_per_file=part.rows.rows)
        facts = fragment.to_json()
        data = self._data_file(facts)
        with data.open("rb") as file:
            os.fsync(file.fileno())
        sync_folder(data.parent)
        self.ledger.commit(part.rows, lambda file: file.write(orjson.dumps(facts)))

    def read(self, rows: RowRange) -> StoredPart:
        from lance.file import LanceFileReader  # noqa: PLC0415 # an extra

        try:
            facts = orjson.loads(self.ledger.path(rows).read_bytes())
            content = (
                LanceFileReader(str(self._data_file(facts)), columns=[ID_COLUMN, VECTOR_COLUMN]).read_all().to_table()
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{self.ledger.path(rows)} or its data is damaged: {error}") from error
        return self.table.read(content)

    def finish(self) -> None:
        """Make one version of all fragments, and remove what belongs to none: killed runs left it."""
        from lance import LanceDataset, LanceOperation  # noqa: PLC0415 # an extra
        from lance.fragment import FragmentMetadata  # noqa: PLC0415 # an extra

        every = [path.read_text(encoding="utf-8") for _, path in files_of(self.ledger.folder, self.ledger.suffix)]
        fragments = [FragmentMetadata.from_json(one) for one in every]
        if not fragments:  # of a corpus without rows
            return
        commit = partial(LanceDataset.commit, str(self._dataset))
        commit(LanceOperation.Overwrite(self._schema(orjson.loads(every[0])), fragments)).cleanup_old_versions(
            older_than=timedelta(0), delete_unverified=True
        )

    @property
    def _dataset(self) -> Path:
        return self.folder / _DATASET

    def _data_file(self, facts: "dict[str, list[dict[str, str]]]") -> Path:
        (one,) = facts["files"]
        return self._dataset / "data" / one["path"]

    def _schema(self, facts: "dict[str, list[dict[str, str]]]") -> "pa.Schema":
        from lance.file import LanceFileReader  # noqa: PLC0415 # an extra

        schema: pa.Schema = LanceFileReader(str(self._data_file(facts))).metadata().schema
        return schema
