"""The edit of llama.cpp's source that makes llama-server know `--no-logits-for-embeddings`, where upstream does not.

llama.cpp computes the output head, n_embd x vocabulary, for every token of a batch of embeddings, and copies the logits
to the host, where nobody reads them (trap T5). With the flag, a batch that asks for embeddings has neither; every other
batch, and every batch of a server without the flag, is computed as before. Name and meaning are those of upstream's
pull request 25964, so that an engine which has it by itself is used just the same.

Left out are the heads of QWEN2VL and QWEN2, which our models are; other architectures still compute theirs, and only
the copy on the host is saved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FLAG = "--no-logits-for-embeddings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """In the file `path`, `text` is there exactly once, and `added` comes behind it."""

    path: str
    text: str
    added: str


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

EDITS = (
    Edit(
        path="common/arg.cpp",
        text='.set_examples({LLAMA_EXAMPLE_SERVER, LLAMA_EXAMPLE_DEBUG}).set_env("LLAMA_ARG_EMBEDDINGS"));',
        added=_ARGUMENT,
    ),
    Edit(
        path="common/common.h",
        text="bool embedding         = false; // get only sentence embedding",
        added="\n    bool no_logits_for_embeddings = false;",
    ),
    Edit(
        path="common/common.cpp",
        text="cparams.embeddings        = params.embedding;",
        added="\n    cparams.no_logits_for_embeddings = params.no_logits_for_embeddings;",
    ),
    Edit(
        path="include/llama.h",
        text="bool embeddings;  // if true, extract embeddings (together with logits)",
        added="\n        bool no_logits_for_embeddings;",
    ),
    Edit(path="src/llama-cparams.h", text="    bool embeddings;\n", added="    bool no_logits_for_embeddings;\n"),
    Edit(
        path="src/llama-context.cpp",
        text="cparams.embeddings              = params.embeddings;",
        added="\n    cparams.no_logits_for_embeddings = params.no_logits_for_embeddings;",
    ),
    Edit(
        path="src/llama-context.cpp",
        text="/*.embeddings                  =*/ false,",
        added="\n        /*.no_logits_for_embeddings    =*/ false,",
    ),
    Edit(
        path="src/llama-context.cpp",
        text="bool has_logits     = true",
        added=" && !(cparams.embeddings && cparams.no_logits_for_embeddings)",
    ),
    Edit(path="src/models/qwen2vl.cpp", text="    res->t_embd = cur;\n", added=_SKIP),
    Edit(path="src/models/qwen2.cpp", text="    res->t_embd = cur;\n", added=_SKIP),
)


def make_lean(source: Path, edits: Sequence[Edit] = EDITS) -> str | None:
    """Edit the llama.cpp in the folder `source`: make all of `edits`, or none.

    Returns None if they are made, else why the source stays as it is.
    """
    changed: dict[Path, str] = {}
    for edit in edits:
        path = source / edit.path
        if not path.is_file():
            return f"it has no {edit.path}"
        text = changed.get(path) or path.read_text(encoding="utf-8")
        if FLAG in text and path not in changed:
            return f"{edit.path} knows {FLAG} already"
        if (count := text.count(edit.text)) != 1:
            return f"{edit.path} has {edit.text.strip()!r} {count} times instead of once"
        changed[path] = text.replace(edit.text, edit.text + edit.added)
    for path, text in changed.items():
        path.write_text(text, encoding="utf-8")
    return None
