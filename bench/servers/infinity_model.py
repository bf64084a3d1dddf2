"""Writes a Qwen2 with random weights in transformers' format, of the given shape; run by Infinity's own Python.

`python infinity_model.py FOLDER JSON`: the JSON has layers, n_embd, heads, kv_heads, n_ff, vocabulary, longest and
words. Each word is one token, as for the other contenders.
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2Model


def main() -> None:
    """Write model and tokenizer into the folder."""
    folder, shape = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["n_embd"],
        intermediate_size=shape["n_ff"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        max_position_embeddings=32768,
    )
    Qwen2Model(config).save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *shape["words"]])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # no secret
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=shape["longest"], **names)
    fast.save_pretrained(folder)


if __name__ == "__main__":
    main()
