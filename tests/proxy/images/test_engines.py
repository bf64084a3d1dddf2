"""An engine that takes images and does not pool them is refused: it answers 200 with vectors of something else."""

from pathlib import Path

import orjson
import pytest

from launcher.build.checks.media_models import write_media_model
from proxy.contract.images import BackendImages
from proxy.contract.settings import BackendSettings, load_proxy_settings
from proxy.contract.settings_file import BadSettings
from proxy.errors import BackendError
from proxy.llama.client import LlamaClient, connect
from proxy.models.verification import verify_backend
from tests.support.engines.engine import EngineMissing, llama_server
from tests.support.servers.media import BACKEND, media_family
from tests.support.servers.stack import family_of


async def test_an_engine_that_pools_what_stands_behind_an_image_is_refused(tmp_path: Path) -> None:
    files, family = write_media_model(tmp_path), family_of(media_family(tmp_path))
    flags = ("--mmproj", str(files.mmproj), "--no-warmup", "--image-min-tokens", "4")
    try:
        async with llama_server(files.model, engine="native", extra_flags=flags) as server:
            settings = BackendSettings(url=server.url, batch_tokens=2048, model_file=files.model)
            async with (
                connect(LlamaClient, BACKEND, settings) as client,
                client.session.get(f"{client.base}/props") as said,
            ):
                marker = orjson.loads(await said.read())["media_marker"]
            with_images = settings.model_copy(update={"images": BackendImages(marker=marker)})
            async with connect(LlamaClient, BACKEND, with_images) as client:
                with pytest.raises(BackendError, match="does not pool images: start it with --pool-media"):
                    await verify_backend(client, family)
    except EngineMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("backend", "family", "said"),
    [
        ({"batch_tokens": 512}, "jina-embeddings-v4", "less than an image can have with its prompt: 779"),
        ({"batch_tokens": 1024}, "qwen3-embedding-0.6b", "has no vectors of images"),
    ],
)
def test_settings_with_which_no_image_can_be_right_are_refused(
    tmp_path: Path, backend: dict[str, object], family: str, said: str
) -> None:
    path = Path(__file__).parents[3] / "configs" / "families" / f"{family}.toml"
    tables = [
        f'[backends.{name}]\nurl = "http://x"\nbatch_tokens = {backend["batch_tokens"]}\nimages = {{ marker = "m" }}\n'
        for name in {row.backend for row in family_of(path).tasks.values()}
    ]
    file = tmp_path / "proxy.toml"
    file.write_text(f'family = "{path}"\n' + "\n".join(tables), encoding="utf-8")
    with pytest.raises(BadSettings, match=said):
        load_proxy_settings(file)
