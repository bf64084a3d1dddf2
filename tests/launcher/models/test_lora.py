"""A family's LoRA is fetched with the model that it belongs to, and checked."""

import json
import tomllib
from pathlib import Path

import tomli_w

from tests.support.models.tiny_models import write_lora
from tests.support.sources.place import Place


def test_a_lora_is_pulled_with_its_model(place: Place, tmp_path: Path) -> None:
    folder = place.config.parent
    family = tomllib.loads((folder / "small.toml").read_text(encoding="utf-8"))
    family["weights"]["models"]["code"]["lora"] = {"repo": "jinaai/loras", "file": "code-{quantization}.gguf"}
    (folder / "lora.toml").write_text(tomli_w.dumps(family), encoding="utf-8")
    (folder / "lora-host.toml").write_text('family = "lora.toml"\n[models]\nquantization = "Q8_0"\n', encoding="utf-8")
    arguments = ("models", "pull", "Q8_0", "--config", str(folder / "lora-host.toml"))

    lora = write_lora(tmp_path / "lora.gguf", architecture="qwen2vl")
    place.hub.add("jinaai/loras", "code-Q8_0.gguf", lora.read_bytes())
    done = place.run(*arguments, "--backend", "code")
    assert done.code == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line.startswith("code LoRA: ")]
    assert Path(line.removeprefix("code LoRA: ")).read_bytes() == lora.read_bytes()
    verified = place.run("models", "verify", *arguments[3:])
    assert verified.code == 0, verified.out
    assert any(line.split()[:3] == ["ok", "code", "LoRA"] for line in verified.out.splitlines())
    assert "LoRA" not in place.run(*arguments, "--backend", "retrieval").out

    listed = json.loads(place.run("models", "list", "--local", "--json", *arguments[3:]).out)["local"]
    assert [(row["quantization"], row["use"]) for row in listed if row["lora"]] == [("Q8_0", "in use")]
    assert any(line.startswith("code LoRA ") for line in place.run("models", "list", *arguments[3:]).out.splitlines())
    removed = place.run("models", "remove", *arguments[2:], "--yes")
    assert (removed.code, removed.out.count("code-Q8_0.gguf")) == (0, 2)  # the model and its LoRA
    listed = json.loads(place.run("models", "list", "--local", "--json", *arguments[3:]).out)["local"]
    assert {(row["use"], row["path"]) for row in listed} == {("missing", None)}

    place.hub.add("jinaai/loras", "code-Q4_K_M.gguf", write_lora(tmp_path / "bert.gguf").read_bytes())
    refused = place.run("models", "pull", "Q4_K_M", *arguments[3:], "--backend", "code")
    assert (refused.code, "it is a LoRA for bert" in refused.err.replace("\n", " ")) == (66, True)
