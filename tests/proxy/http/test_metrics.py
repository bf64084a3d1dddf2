"""Every metric is documented, and nothing else is."""

import re
from pathlib import Path

from proxy.metrics import REGISTRY

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_names_every_metric_and_its_labels() -> None:
    rows = re.findall(r"^\| `(trillama_\w+)` \| ([\w, ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    described = {name: set(labels.split(", ")) for name, labels in rows}
    names = {metric.name for metric in REGISTRY.collect()}
    assert set(described) == names
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            assert set(sample.labels) - {"le"} == described[metric.name]
