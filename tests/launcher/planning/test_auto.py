"""`quantization = "auto"` of a family without published figures: by the files' sizes, and it is said."""

import tomllib
from pathlib import Path

import tomli_w

from launcher.planning.quality import by_size
from tests.support.servers.stack import FAMILY_FILE
from tests.support.sources.place import Place


def test_files_of_eight_bits_are_as_good_as_larger_ones_and_the_others_are_not() -> None:
    sizes = {"Q4_K_M": 300, "q8_0": 530, "F32": 2000, "f16": 1000, "Q2_K": 200}
    assert by_size(sizes) == (("f16", "q8_0"), ("Q4_K_M",), ("Q2_K",))
    assert by_size({"F32": 2000}) == (("F32",),)
    assert by_size({}) == ()


def test_the_sizes_come_from_the_hub(place: Place) -> None:
    config = bare(place.config.parent)
    done = place.run("plan", "--config", str(config), "--vram", "none", "--ram", "60G")
    assert done.code == 0, done.err
    assert "- Q8_0 is the largest file that fits: there are no published figures of these models" in done.out


def bare(folder: Path) -> Path:
    """The host's file of a family with a shape, but without figures."""
    family = tomllib.loads(FAMILY_FILE.read_text(encoding="utf-8"))
    del family["weights"]["published"]
    (folder / "bare.toml").write_text(
        tomli_w.dumps({**family, "name": "bare"} | {"model_aliases": {}}), encoding="utf-8"
    )
    config = folder / "bare-host.toml"
    config.write_text('family = "bare.toml"\n[models]\nquantization = "auto"\n', encoding="utf-8")
    return config
