"""Ranks the pictures of a folder for a query: `python docs/gallery.py FOLDER "a llama in the snow"`.

The vectors are kept in FOLDER/gallery.json: a picture is computed once. Needs Python alone, and a server with images.
"""

import argparse
import base64
import json
import urllib.error
import urllib.request
from pathlib import Path

ENDINGS = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def embedded(url: str, item: str | dict[str, str], task: str, name: str) -> list[float]:
    """The vector of one text or image, called `name` if it is refused."""
    body = json.dumps({"input": [item], "task": task}).encode()
    request = urllib.request.Request(f"{url}/v1/embeddings", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as answer:
            vector: list[float] = json.load(answer)["data"][0]["embedding"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{name}: {json.load(error).get('detail', error)}") from error
    except urllib.error.URLError as error:
        raise SystemExit(f"{url} does not answer ({error.reason}): is `trillama serve --images` running?") from error
    return vector


def gallery(folder: Path, url: str) -> dict[str, list[float]]:
    """The vector of each picture in the folder, by its file's name."""
    kept = folder / "gallery.json"
    vectors: dict[str, list[float]] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    pictures = {file.name: file for file in sorted(folder.iterdir()) if file.suffix.lower() in ENDINGS}
    for name in pictures.keys() - vectors.keys():
        image = base64.b64encode(pictures[name].read_bytes()).decode()
        vectors[name] = embedded(url, {"image": image}, "retrieval.passage", name)
        kept.write_text(json.dumps(vectors), encoding="utf-8")
    return {name: vectors[name] for name in pictures}


def main() -> None:
    """Print the pictures, best first, each with its cosine to the query."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("query")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    given = parser.parse_args()
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is not a folder")
    query = embedded(given.url, given.query, "retrieval.query", "the query")
    found = gallery(given.folder, given.url).items()
    cosines = {name: sum(a * b for a, b in zip(query, vector, strict=True)) for name, vector in found}
    for name in sorted(cosines, key=cosines.__getitem__, reverse=True):
        print(f"{cosines[name]:.4f} {name}")


if __name__ == "__main__":
    main()
