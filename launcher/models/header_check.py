"""Compares a model file's header with its family before anything starts: llama.cpp would serve a mismatch.

Sources: llama-model.cpp (`load_hparams`), llama-vocab.cpp (`impl::load`, `impl::tokenize`) and llama-context.cpp
(`llama_init_from_model`) of llama.cpp.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from launcher.errors import ConfigError, ModelError
from launcher.models.gguf_file import brief
from launcher.models.sources import check_complete
from launcher.settings.config import Settings
from launcher.settings.family import FamilyFile, Weights
from proxy.contract.gguf import Header, Value

POOLING_TYPES = {1: "mean", 2: "cls", 3: "last", 4: "rank"}  # LLAMA_POOLING_TYPE_…; 0 is none
# Graphs that are never causal; all others are, unless the header says that they are not.
NEVER_CAUSAL = frozenset({"gemma-embedding", "dream", "llada", "llada-moe", "rnd1"})
# What a tokenizer adds unless the header says otherwise, by `tokenizer.ggml.model`, or by `pre` for byte-level BPE.
ADDED = {"llama": {"bos"}, "t5": {"eos"}}
BOS_BY_PRE = frozenset(
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano tekken chameleon".split()  # noqa: SIM905
)
WORD_PIECE = frozenset({"bos", "sep"})  # whatever the header says
ANOTHER = "give a file of this family, or name another `family` in the configuration"


def check_model(path: Path, family: FamilyFile) -> Header:
    """The header of a complete file that agrees with its family. Raises ModelError with what contradicts."""
    header = check_complete(path)
    check_size(path, header, architecture=family.weights.architecture, dimensions=family.dimensions)
    check_rules(path, header, family.weights)
    return header


def contradictions(header: Header, family: FamilyFile) -> tuple[str, ...]:
    """Everything in which the file is not of the family, each as a sentence. Its rules only if it is of its kind."""
    weights = family.weights
    other = tuple(_other_model(header, architecture=weights.architecture, dimensions=family.dimensions))
    return other or tuple(_contradictions(header, weights))


def check_rules(path: Path, header: Header, weights: Weights) -> None:
    """Raises ModelError if vectors made by the family's rules would not be those of the file's model."""
    if fault := next(_contradictions(header, weights), None):
        raise ModelError(f"{path}: {fault}")


def check_size(path: Path, header: Header, *, architecture: str, dimensions: int) -> None:
    """Raises ModelError unless the file is of that architecture and vector size."""
    if fault := next(_other_model(header, architecture=architecture, dimensions=dimensions), None):
        raise ModelError(f"{path}: {fault}")


def check_lora(path: Path, family: FamilyFile) -> None:
    """Raises ModelError unless the file is a complete LoRA for the family's architecture."""
    metadata, architecture = check_complete(path).metadata, family.weights.architecture
    if metadata.get("general.type") != "adapter" or metadata.get("adapter.type") != "lora":
        raise ModelError(f"{path}: it is not a LoRA: make one with llama.cpp's convert_lora_to_gguf.py")
    if (found := metadata.get("general.architecture")) != architecture:
        raise ModelError(
            f"{path}: it is a LoRA for {brief(found)}, this family's architecture is {architecture}; {ANOTHER}"
        )


def vector_length(header: Header) -> int:
    """The numbers of a vector; 0 if the header does not say it."""
    lengths = (_own(header, "embedding_length_out"), _own(header, "embedding_length"))
    return next((length for length in lengths if isinstance(length, int) and length > 0), 0)


def unstated_pooling(header: Header, weights: Weights) -> str | None:
    """A note for users if the header does not say how the model pools; None if it does."""
    if _own(header, "pooling_type"):
        return None
    return f"the model's file does not say how it pools: {weights.pooling} pooling is used, as the family file says"


def longest_text(header: Header, weights: Weights) -> int | None:
    """The most tokens that llama-server takes in a text; None if the header does not say it."""
    length = _own(header, "context_length")
    scaling = weights.rope_scaling
    if scaling and scaling.type == "yarn":
        original = _own(header, "rope.scaling.original_context_length")
        length = original if isinstance(original, int) and original > 0 else length
        length = int(length / scaling.freq_scale) if isinstance(length, int) else None
    if not isinstance(length, int) or length <= 0:
        return None
    # A text that llama-server may compute in parts must be shorter than the context.
    return length - 1 if weights.causal and weights.pooling == "last" else length


def bounded(settings: Settings, longest: Iterable[int | None], asked: int | None) -> Settings:
    """The settings with a longest text that every file takes; `longest` has that of each file, if it is known.

    Raises ConfigError if that is less than what the host's file has `asked` for.
    """
    most = min(filter(None, longest), default=settings.max_input_tokens)
    if settings.max_input_tokens <= most:
        return settings
    if asked:
        raise ConfigError(
            f"max_input_tokens = {asked}: the model's file takes texts of {most} tokens; set at most {most}"
        )
    return settings.with_host(max_input_tokens=most)


def _other_model(header: Header, *, architecture: str, dimensions: int) -> Iterator[str]:
    if (found := header.metadata.get("general.architecture")) != architecture:
        yield f"its architecture is {brief(found)}, this family's is {architecture}; {ANOTHER}"
    if (length := vector_length(header)) != dimensions:
        yield (
            f"its vectors have {length} dimensions, this family's have {dimensions}: give a file of this family, or "
            f"write dimensions = {length} in the family file"
        )


def _contradictions(header: Header, weights: Weights) -> Iterator[str]:
    said = _own(header, "pooling_type")
    pooling = POOLING_TYPES.get(said) if isinstance(said, int) else None
    if pooling == "rank":
        yield "it is a reranker, which has no vectors: give the file of an embedding model"
    elif pooling not in {None, weights.pooling}:
        yield (
            f"it pools by {pooling} (pooling_type in its header), this family by {weights.pooling}: give a file of "
            f'this family, or write pooling = "{pooling}" under [weights] of the family file'
        )
    if (causal := _is_causal(header)) != weights.causal:
        sees = "only those before it" if causal else "the whole text"
        fix = f"write causal = {str(causal).lower()} under [weights] of the family file"
        if _own(header, "attention.causal") is None:
            fix += "; or get a newer conversion if it is an encoder, whose header must have attention.causal = false"
        yield f"its tokens see {sees}: {fix}"
    if fault := _lacking_token(header, weights.adds):
        yield fault
    keys = [key if "." in key else f"{weights.architecture}.{key}" for key in weights.requires]
    if missing := [key for key in keys if key not in header.metadata]:
        yield f"its header has no {missing[0]}, and without that the vectors are wrong: get a newer conversion"


def _lacking_token(header: Header, adds: Sequence[str]) -> str | None:
    """What is wrong if the file's tokenizer does not add these special tokens to a text."""
    lacking = [token for token in adds if token not in _added(header)]
    if "sep" in lacking:
        return (
            'only a WordPiece file adds SEP to a text, and its tokenizer is of another kind: write "eos" in its place '
            "in `adds` under [weights] of the family file if its texts end with such a token, else leave it out"
        )
    if "eos" in lacking and _is_word_piece(header):
        return (
            'its tokenizer is WordPiece, which ends a text with SEP and never with EOS: write "sep" in place of "eos" '
            "in `adds` under [weights] of the family file"
        )
    if lacking:
        return (
            f"its tokenizer adds no {lacking[0].upper()} to a text, and without that the vectors are wrong: get a "
            f"newer conversion of the model, whose header has {_said(lacking[0])}"
        )
    return None


def _is_causal(header: Header) -> bool:
    """Whether llama.cpp computes it so that a token sees only those before it."""
    if str(header.metadata.get("general.architecture")) in NEVER_CAUSAL:
        return False
    return _own(header, "attention.causal") is not False


def _added(header: Header) -> frozenset[str]:
    """The special tokens that llama.cpp adds to each text."""
    metadata = header.metadata
    kind = str(metadata.get("tokenizer.ggml.model"))
    if _is_word_piece(header):
        return WORD_PIECE
    usual = {"bos"} if str(metadata.get("tokenizer.ggml.pre")) in BOS_BY_PRE else ADDED.get(kind, set())
    return frozenset(
        name for name in ("bos", "eos") if metadata.get(f"tokenizer.ggml.add_{name}_token", name in usual) is True
    )


def _is_word_piece(header: Header) -> bool:
    return header.metadata.get("tokenizer.ggml.model") == "bert"


def _said(token: str) -> str:
    return f"tokenizer.ggml.add_{token}_token = true"


def _own(header: Header, key: str) -> Value | None:
    """The value of one of the architecture's own keys."""
    return header.metadata.get(f"{header.metadata.get('general.architecture')}.{key}")
