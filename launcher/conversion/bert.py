"""Writes a BERT encoder of sentence-transformers as the GGUF file that llama.cpp expects.

The counterpart of llama.cpp's convert_hf_to_gguf.py for this one architecture, without torch: names by `gguf`'s own
table, mean pooling, matrices in the wanted type, everything else (norms, biases, positions, token types) in F32.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import gguf
from gguf import GGMLQuantizationType, LlamaFileType, TokenType
from pydantic import BaseModel, Field, ValidationError

from launcher.arrays import F32
from launcher.conversion import safetensors
from launcher.conversion.gguf_writer import finish_file
from launcher.conversion.safetensors import InMemoryFile
from launcher.errors import ModelError

CONVERSION_VERSION = 1  # part of what decides whether a file is made again: raise it with any change to the content
_WEIGHTS, _CONFIG, _TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
_UNUSED = ("pooler.", "embeddings.position_ids")  # sentence-transformers uses the mean of the states, not BERT's pooler
_SMALL = ("position_embd.weight", "token_types.weight")  # F32 in llama.cpp's converter too
_KINDS = {
    "F32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
}

_Positive = Annotated[int, Field(gt=0)]
T = TypeVar("T", bound=BaseModel)


class _Config(BaseModel):
    """The fields of `config.json` that matter; with other values it would be another architecture."""

    model_type: Literal["bert"]
    hidden_act: Literal["gelu"]
    position_embedding_type: Literal["absolute"] = "absolute"
    hidden_size: _Positive
    intermediate_size: _Positive
    num_hidden_layers: _Positive
    num_attention_heads: _Positive
    max_position_embeddings: _Positive
    type_vocab_size: _Positive
    layer_norm_eps: float


class _WordPiece(BaseModel):
    type: Literal["WordPiece"]
    continuing_subword_prefix: Literal["##"]
    vocab: dict[str, int]


class _Normalizer(BaseModel):
    type: Literal["BertNormalizer"]
    lowercase: Literal[True]  # what llama.cpp does unless told otherwise


class _Tokenizer(BaseModel):
    """The fields of `tokenizer.json` that the GGUF file takes over."""

    model: _WordPiece
    normalizer: _Normalizer


def write_bert(files: Mapping[str, bytes], path: Path, *, name: str, quantization: str, licence: str) -> None:
    """Write the GGUF file. `files` are the content of model.safetensors, config.json and tokenizer.json.

    Takes a second for 90 MB. Raises ModelError for a quantisation or a model that it cannot write, OSError.
    """
    if quantization not in _KINDS:
        raise ModelError(f"{name} can be made as {' or '.join(_KINDS)}, not as {quantization}")
    config, tokenizer = _parsed(_Config, files, _CONFIG), _parsed(_Tokenizer, files, _TOKENIZER)
    kind, file_type = _KINDS[quantization]
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name(name)
    writer.add_license(licence)
    writer.add_file_type(file_type)
    _describe(writer, config)
    _add_tokenizer(writer, tokenizer.model.vocab)
    for target, values in _tensors(InMemoryFile(_WEIGHTS, files[_WEIGHTS]), config.num_hidden_layers):
        stored = kind if values.ndim == 2 and target not in _SMALL else GGMLQuantizationType.F32
        writer.add_tensor(target, gguf.quants.quantize(values, stored), raw_dtype=stored)
    finish_file(writer)


def _parsed(model: type[T], files: Mapping[str, bytes], name: str) -> T:
    try:
        return model.model_validate_json(files[name])
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise ModelError(
            f"{name} is not that of a BERT encoder that can be converted: {place}: {fault['msg']}"
        ) from error


def _describe(writer: gguf.GGUFWriter, config: _Config) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_token_type_count(config.type_vocab_size)
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Mapping[str, int]) -> None:
    """The vocabulary as llama.cpp spells it: `▁` before the beginning of a word, nothing before its continuation."""
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {"bos": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
    if [vocabulary[word] for word in words] != list(range(len(words))) or not set(special.values()) <= set(words):
        raise ModelError(f"{_TOKENIZER}: its vocabulary has gaps, or lacks one of {', '.join(special.values())}")
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([word if word in special.values() else _spelled(word) for word in words])
    writer.add_token_types([TokenType.CONTROL if word in special.values() else TokenType.NORMAL for word in words])
    for role, word in special.items():
        getattr(writer, f"add_{role}_token_id")(vocabulary[word])
    writer.add_add_bos_token(value=True)
    writer.add_add_sep_token(value=True)


def _spelled(word: str) -> str:
    return word[2:] if word.startswith("##") else f"\u2581{word}"


def _tensors(file: InMemoryFile, layers: int) -> Iterator[tuple[str, F32]]:
    """Name in the GGUF file, and values. Raises ModelError for a tensor that llama.cpp does not know."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for tensor in safetensors.tensors(file).values():
        if tensor.name.startswith(_UNUSED):
            continue
        target = names.get_name(tensor.name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(
                f"{file}: llama.cpp has no place for the tensor {tensor.name}: it is not a plain BERT encoder"
            )
        yield target, safetensors.array(file, tensor)[0]
