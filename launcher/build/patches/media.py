"""POOL_MEDIA adds `--pool-media` to llama-server: embeddings of prompts with an image.

A batch of llama.cpp has either tokens or embeddings, so a prompt with an image takes several decodes, and each clears
the pooled states of the one before: llama-server answers with the mean of the text behind the image alone, or with only
that text's states for `--pooling none`. With the flag it collects the states of every decode, and answers with the mean
of all of the prompt's tokens, or with all of their states in the prompt's order. A text that takes one decode collects
nothing, and its vector stays the same to the last bit.
"""

from launcher.build.patches.patch import Edit, Patch, new_flag

MEDIA_FLAG = "--pool-media"

_SERVER = "tools/server/server-context.cpp"

_ARGUMENT = f"""
    add_opt(common_arg(
        {{"{MEDIA_FLAG}"}},
        "pool the embeddings of a prompt with media over all of its tokens",
        [](common_params & params) {{
            params.pool_media = true;
        }}
    ).set_examples({{LLAMA_EXAMPLE_SERVER}}).set_env("LLAMA_ARG_POOL_MEDIA"));"""

_COLLECTED = """// what the decodes of an embedding's prompt have given so far, if it takes several (--pool-media)
struct collected_embd {
    int32_t n_tokens = 0;
    std::vector<double>             sum;  // pooling mean: of the states of all tokens
    std::vector<std::vector<float>> rows; // pooling none: the state of each token

    // add those tokens of the last decode, given by their indices in it; false if it has no states of them
    bool add(llama_context * ctx, llama_seq_id seq_id, const std::vector<int32_t> & tokens) {
        const int n_embd = llama_model_n_embd_out(llama_get_model(ctx));
        if (llama_pooling_type(ctx) == LLAMA_POOLING_TYPE_NONE) {
            for (int32_t i : tokens) {
                const float * embd = llama_get_embeddings_ith(ctx, i);
                if (embd == nullptr) {
                    return false;
                }
                rows.emplace_back(embd, embd + n_embd);
            }
        } else if (llama_pooling_type(ctx) == LLAMA_POOLING_TYPE_MEAN) {
            const float * embd = llama_get_embeddings_seq(ctx, seq_id);
            if (embd == nullptr) {
                return false;
            }
            sum.resize(n_embd, 0.0);
            for (int i = 0; i < n_embd; ++i) {
                sum[i] += (double) embd[i] * tokens.size();
            }
        } else {
            return true; // the state of one token, which the last decode has
        }
        n_tokens += tokens.size();
        return true;
    }

    std::vector<std::vector<float>> pooled(int embd_normalize) const {
        if (sum.empty()) {
            return rows;
        }
        std::vector<float> mean(sum.size());
        for (size_t i = 0; i < sum.size(); ++i) {
            mean[i] = (float) (sum[i] / n_tokens);
        }
        std::vector<float> res(mean.size());
        common_embd_normalize(mean.data(), res.data(), (int) mean.size(), embd_normalize);
        return { res };
    }
};

"""

_COLLECT = """    // collect the slot's part of this decode, if it is not all of the prompt
    void collect_embedding(server_slot & slot, const common_batch & batch, bool is_last) {
        if (!slot.pool_media || !slot.task || slot.task->type != SERVER_TASK_TYPE_EMBEDDING) {
            return;
        }
        if (is_last && slot.collected.n_tokens == 0) {
            return;
        }
        std::vector<int32_t> tokens;
        for (int32_t i = 0; i < batch.size(); ++i) {
            if (batch.tokens[i].output && batch.tokens[i].seq_id == slot.id) {
                tokens.push_back(i);
            }
        }
        if (!tokens.empty() && !slot.collected.add(slot.ctx_tgt, slot.id, tokens)) {
            throw std::runtime_error("failed to get embeddings");
        }
    }

"""

_OF_MEDIA = """
                    if (data->collected != nullptr) {
                        std::vector<int32_t> tokens(b->n_tokens);
                        for (int32_t i = 0; i < b->n_tokens; ++i) {
                            tokens[i] = i;
                        }
                        if (!data->collected->add(data->ctx, b->seq_id, tokens)) {
                            return 1;
                        }
                    }"""

_ANSWER = """
        if (slot.collected.n_tokens > 0) {
            res->embedding = slot.collected.pooled(slot.task->params.embd_normalize);
            queue_results.send(std::move(res));
            return;
        }
"""

POOL_MEDIA = Patch(
    mark=MEDIA_FLAG,
    edits=(
        *new_flag(_ARGUMENT, "pool_media"),
        Edit(path=_SERVER, text="struct server_slot {\n", before=_COLLECTED),
        Edit(
            path=_SERVER,
            text="    mtmd::batch_ptr mbatch = nullptr;\n",
            behind="    bool pool_media = false;\n    collected_embd collected;\n",
        ),
        Edit(path=_SERVER, text="        mbatch.reset();\n", behind="        collected = {};\n"),
        Edit(
            path=_SERVER,
            text="            slot.mctx                   = mctx;\n",
            behind="            slot.pool_media             = params_base.pool_media;\n",
        ),
        Edit(path=_SERVER, text="mtmd::batch_ptr & mbatch, ", behind="collected_embd & collected, "),
        Edit(path=_SERVER, text="process_mtmd_chunk(slot, slot.mbatch, ", behind="slot.collected, "),
        Edit(
            path=_SERVER,
            text="} cb_data = { slot.spec, slot.ctx_tgt",
            before="    collected_embd * collected;\n                ",
            behind=", slot.pool_media && slot.need_embd() ? &collected : nullptr",
        ),
        Edit(
            path=_SERVER,
            text="const auto * data = static_cast<cb_data_t *>(user_data);\n",
            behind=_OF_MEDIA,
        ),
        Edit(
            path=_SERVER,
            text="    void send_embedding(const server_slot & slot, const common_batch & batch) {\n",
            before=_COLLECT,
        ),
        Edit(
            path=_SERVER,
            text="        std::vector<float> embd_res(n_embd_out, 0.0f);\n",
            behind=_ANSWER,
        ),
        Edit(
            path=_SERVER,
            text="            if (!is_inside_view(slot.i_batch)) {\n",
            before="            collect_embedding(slot, batch.view, is_inside_view(slot.i_batch));\n\n",
        ),
    ),
)
