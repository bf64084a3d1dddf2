"""The vision encoder's file: where it comes from, what is refused, and `trillama models` with it."""

from pathlib import Path

import gguf
import pytest

from launcher.errors import ConfigError, ModelError
from launcher.models.mmproj import check_mmproj, doubt, mmproj_bytes, mmproj_file
from launcher.settings.config import load, read_family, shipped_families
from launcher.settings.family import HubFile
from launcher.settings.models import ModelSettings
from tests.support.models.tiny_mmproj import write_mmproj
from tests.support.sources.place import Place

FAMILY = load(None).family
SMALL = FAMILY.model_copy(update={"dimensions": 64})
PLACE = HubFile("jinaai/jina-embeddings-v4-text-retrieval-GGUF", "mmproj-jina-embeddings-v4-retrieval-BF16.gguf")


def test_one_file_serves_all_models_if_images_are_on(tmp_path: Path) -> None:
    assert mmproj_file(FAMILY, ModelSettings()) is None
    assert mmproj_bytes(FAMILY, ModelSettings(mmproj=tmp_path / "own.gguf")) == 0
    wanted = mmproj_file(FAMILY, ModelSettings(images=True))
    assert wanted is not None
    assert wanted.origin == PLACE
    assert mmproj_bytes(FAMILY, ModelSettings(images=True)) == 1_340_000_000  # as the family file says
    own = ModelSettings(images=True, mmproj=write_mmproj(tmp_path / "own.gguf"))
    assert mmproj_bytes(FAMILY, own) == (tmp_path / "own.gguf").stat().st_size


def test_a_family_without_an_encoder_takes_texts_only(tmp_path: Path) -> None:
    family = read_family(shipped_families()["bge-m3"])
    with pytest.raises(ConfigError, match=r"images: bge-m3 takes texts only: leave images out$"):
        mmproj_file(family, ModelSettings(images=True))
    assert mmproj_file(family, ModelSettings(images=True, mmproj=tmp_path / "own.gguf"))


def test_an_encoder_of_the_family_is_taken(tmp_path: Path) -> None:
    header = check_mmproj(write_mmproj(tmp_path / "bf16.gguf"), SMALL)
    assert doubt(header) is None
    half = check_mmproj(write_mmproj(tmp_path / "f16.gguf", file_type=gguf.LlamaFileType.MOSTLY_F16), SMALL)
    assert "not finite" in str(doubt(half))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"architecture": "qwen2vl"}, "it is not a vision encoder"),
        ({"projector": "qwen3vl_merger"}, r"its projector is qwen3vl_merger, and images need qwen2.5vl_merger"),
        ({"length": 2048}, r"it makes 2048 numbers of a token, and jina-embeddings-v4 has 64: it is another model's"),
        ({"windows": False}, r"its header has no clip.vision.n_wa_pattern"),
    ],
)
def test_another_file_is_refused_before_anything_starts(tmp_path: Path, given: dict[str, object], reason: str) -> None:
    path = write_mmproj(tmp_path / "m.gguf", **given)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=rf"m\.gguf: {reason}"):
        check_mmproj(path, SMALL)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write_mmproj(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cut off"):
        check_mmproj(path, SMALL)


def test_the_encoder_is_pulled_listed_verified_and_removed_with_the_last_model(place: Place, tmp_path: Path) -> None:
    content = write_mmproj(tmp_path / "m.gguf").read_bytes()
    place.hub.add(PLACE.repo, PLACE.file, content)
    needed = place.models("list", "--images")
    assert (needed.code, "mmproj for images: 1.25 GiB, with `trillama models pull --images`" in needed.out) == (0, True)
    assert "mmproj" not in place.models("list", "--local").out
    place.configure(images=True)

    pulled = place.models("pull", "--backend", "code")
    assert pulled.code == 0, pulled.err
    (line,) = [line for line in pulled.out.splitlines() if line.startswith("mmproj: ")]
    path = Path(line.removeprefix("mmproj: "))
    assert path.read_bytes() == content
    assert ("mmproj", "", "in use") in place.local()

    damaged = content[:-1] + bytes([content[-1] ^ 1])
    path.resolve().write_bytes(damaged)
    found = place.models("verify")
    assert (found.code, "DAMAGED  mmproj" in found.out, "pull --images" in found.out) == (66, True, True)
    assert place.models("pull", "--images", "--backend", "code").code == 0
    assert place.models("verify").code == 0

    place.configure()
    assert ("mmproj", "", "not in use") in place.local()
    assert place.models("remove", "--yes").code == 0
    assert not path.exists()
