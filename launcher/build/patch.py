"""Patches of llama.cpp's source, applied before it is compiled, each completely or not at all.

LEAN adds `--no-logits-for-embeddings` to llama-server, where upstream lacks it. llama.cpp computes the output head,
n_embd x vocabulary, for every token of a batch of embeddings, and copies the logits to the host, where nobody reads
them (trap T5). With the flag, a batch that asks for embeddings does neither; every other batch, and every batch of a
server without the flag, is computed as before. Name and meaning are those of upstream's pull request 25964, so an
engine that already has the flag is used in the same way. The heads skipped are those of LEAN_ARCHITECTURES; others
still compute theirs, and save only the copy to the host. Encoders have none.

TILES works around a bug in gcc before 12.4 and 13.3, whose `_tile_loadconfig` tells the compiler that it reads 8 of the
configuration's 64 bytes: the stores of the tile sizes are dropped, and on a processor with AMX llama-server dies of
SIGILL at its first matrix, or computes with whatever sizes are in memory (upstream's pull request 26954).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from launcher.engine.argv import LEAN_ARCHITECTURES

FLAG = "--no-logits-for-embeddings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Inserts `before` in front of and `behind` after `text`, which must occur exactly once in the file `path`."""

    path: str
    text: str
    before: str = ""
    behind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """Edits that belong together. A file that contains `mark` already has the edit, by us or upstream."""

    mark: str
    edits: tuple[Edit, ...]


_SKIP = """
    if (cparams.embeddings && cparams.no_logits_for_embeddings) {
        ggml_build_forward_expand(gf, cur);
        return;
    }
"""

_ARGUMENT = f"""
    add_opt(common_arg(
        {{"{FLAG}"}},
        "do not compute the logits of a batch of embeddings, which nobody reads",
        [](common_params & params) {{
            params.no_logits_for_embeddings = true;
        }}
    ).set_examples({{LLAMA_EXAMPLE_SERVER}}).set_env("LLAMA_ARG_NO_LOGITS_FOR_EMBEDDINGS"));"""

LEAN = Patch(
    mark=FLAG,
    edits=(
        Edit(
            path="common/arg.cpp",
            text='.set_examples({LLAMA_EXAMPLE_SERVER, LLAMA_EXAMPLE_DEBUG}).set_env("LLAMA_ARG_EMBEDDINGS"));',
            behind=_ARGUMENT,
        ),
        Edit(
            path="common/common.h",
            text="bool embedding         = false; // get only sentence embedding",
            behind="\n    bool no_logits_for_embeddings = false;",
        ),
        Edit(
            path="common/common.cpp",
            text="cparams.embeddings        = params.embedding;",
            behind="\n    cparams.no_logits_for_embeddings = params.no_logits_for_embeddings;",
        ),
        Edit(
            path="include/llama.h",
            text="bool embeddings;  // if true, extract embeddings (together with logits)",
            behind="\n        bool no_logits_for_embeddings;",
        ),
        Edit(path="src/llama-cparams.h", text="    bool embeddings;\n", behind="    bool no_logits_for_embeddings;\n"),
        Edit(
            path="src/llama-context.cpp",
            text="cparams.embeddings              = params.embeddings;",
            behind="\n    cparams.no_logits_for_embeddings = params.no_logits_for_embeddings;",
        ),
        Edit(
            path="src/llama-context.cpp",
            text="/*.embeddings                  =*/ false,",
            behind="\n        /*.no_logits_for_embeddings    =*/ false,",
        ),
        Edit(
            path="src/llama-context.cpp",
            text="bool has_logits     = true",
            behind=" && !(cparams.embeddings && cparams.no_logits_for_embeddings)",
        ),
        *(
            Edit(path=f"src/models/{name}.cpp", text="    res->t_embd = cur;\n", behind=_SKIP)
            for name in LEAN_ARCHITECTURES
        ),
    ),
)

TILES = Patch(
    mark='"m"(tc)',
    edits=(
        Edit(
            path="ggml/src/ggml-cpu/amx/mmq.cpp",
            text="    _tile_loadconfig(&tc);\n",
            before='    __asm__ volatile("" : : "m"(tc)); // else gcc 12.2 drops the stores to tc\n',
        ),
    ),
)


def apply(patch: Patch, source: Path) -> str | None:
    """Apply all of the patch's edits to the llama.cpp in the folder `source`, or none.

    Returns None if applied, else the reason why not.
    """
    changed: dict[Path, str] = {}
    for edit in patch.edits:
        path = source / edit.path
        if not path.is_file():
            return f"it has no {edit.path}"
        text = changed.get(path) or path.read_text(encoding="utf-8")
        if patch.mark in text and path not in changed:
            return f"{edit.path} has {patch.mark} already"
        if (count := text.count(edit.text)) != 1:
            return f"{edit.path} has {edit.text.strip()!r} {count} times instead of once"
        changed[path] = text.replace(edit.text, edit.before + edit.text + edit.behind)
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return None


def digest(patches: Sequence[Patch]) -> str:
    """A short digest that changes with the patches."""
    return sha256(repr(patches).encode()).hexdigest()[:12]
