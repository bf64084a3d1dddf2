"""A real byte-level BPE of Qwen2's kind, trained on a few lines of many scripts."""

import json
from functools import cache

import gguf
import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_DEFINED = ("<tool_call>", "</tool_call>")
UNREACHED = ("</s>",)  # as in Qwen's: an ordinary token that no merge leads to, which llama.cpp takes for a special one
VOCABULARY = 640

# Repeated words and letters make merges: inside words, across the leading space, in digits-free CJK and in emoji bytes.
_CORPUS = """\
the quick brown fox jumps over the lazy dog and the other dogs that sleep in the sun; it's theirs, they'll say we've won
The passage says that retrieval of a passage needs a query. Query: what is the passage? Passage: this is the answer.
über den Fluß führt eine schöne Brücke, die Straße ist naß und die Züge fahren pünktlich über die Brücke
def embed(self, text: str) -> list[float]:\n    return self.model.encode(text)\n\n\n    # the end\n\treturn None\r\n
我们的模型可以把文本变成向量 我们的文本 我们的模型 日本語のテキスト 日本の言葉 한국어 문장입니다 한국어 모델
Привет, мир! Привет всем, кто читает этот текст. Это просто текст.
مرحبا بالعالم هذا نص قصير هذا نص हिन्दी में लिखा पाठ हिन्दी
👩‍👩‍👧‍👦 👍🏽 🎉🎉 ❤️ 👩‍💻 👩‍🔬 🇩🇪 naïve café e\u0301 o\u0308 ... --- === (()) {{}} [[]] "quoted" 'quoted' !!! ???
"""


def add_tokenizer(
    writer: gguf.GGUFWriter,
    *,
    model: str = "gpt2",
    pre: str = "qwen2",
    add_bos: bool | None = False,
    add_eos: bool | None = None,
    vocabulary: int = VOCABULARY,
) -> None:
    """Add the vocabulary in Qwen's own order: bytes, merges, UNREACHED, USER_DEFINED, CONTROL, UNUSED padding."""
    learned, merges = _trained()
    texts = [*learned, *UNREACHED, *USER_DEFINED, *CONTROL]
    padding = vocabulary - len(texts)
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*texts, *(f"[PAD{len(texts) + i}]" for i in range(padding))])
    kinds = gguf.TokenType
    counts = (len(learned) + len(UNREACHED), len(USER_DEFINED), len(CONTROL), padding)
    types = np.repeat([kinds.NORMAL, kinds.USER_DEFINED, kinds.CONTROL, kinds.UNUSED], counts)
    writer.add_token_types(types.tolist())
    writer.add_token_merges(list(merges))
    writer.add_bos_token_id(texts.index("<|endoftext|>"))
    writer.add_eos_token_id(texts.index("<|im_end|>"))
    writer.add_pad_token_id(texts.index("<|endoftext|>"))
    if add_bos is not None:
        writer.add_add_bos_token(add_bos)
    if add_eos is not None:
        writer.add_add_eos_token(add_eos)


@cache
def _trained() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The learned pieces in order of their id, and the merges as "left right"."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(USER_DEFINED) - len(CONTROL) - 8,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
    vocabulary = tokenizer.get_vocab()
    merges: list[list[str]] = json.loads(tokenizer.to_str())["model"]["merges"]
    return tuple(sorted(vocabulary, key=vocabulary.__getitem__)), tuple(map(" ".join, merges))
