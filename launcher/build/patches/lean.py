"""LEAN adds `--no-logits-for-embeddings` to llama-server, where upstream lacks it.

llama.cpp computes the output head, n_embd x vocabulary, for every token of a batch of embeddings, and copies the logits
to the host, where nobody reads them (trap T5). With the flag, a batch that asks for embeddings does neither; every
other batch, and every batch of a server without the flag, is computed as before. Name and meaning are those of
upstream's pull request 25964, so an engine that already has the flag is used in the same way. The heads skipped are
those of LEAN_ARCHITECTURES; others still compute theirs, and save only the copy to the host. Encoders have none.
"""

from launcher.build.patches.patch import Edit, Patch, new_flag
from launcher.engine.argv import LEAN_ARCHITECTURES

FLAG = "--no-logits-for-embeddings"

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
        *new_flag(_ARGUMENT, "no_logits_for_embeddings"),
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
