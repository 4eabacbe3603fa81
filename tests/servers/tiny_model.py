"""A language model of 300 KB with random weights and a byte-level vocabulary, written in 20 ms."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

_WIDTH = 64
_HEADS = 4
_INNER = 128
_CONTEXT = 32_768
_SPREAD = 0.08
_MERGES = ("Ġ t", "h e", "Ġt he", "e r", "i n")
_SPECIAL = ("<|bos|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PRINTABLE = (32, 127)


def write(path: Path, seed: int = 0) -> None:
    """Write the model as GGUF. It answers nonsense, but in real tokens, streams and usage figures."""
    tokens = [*_byte_tokens(), *(merge.replace(" ", "") for merge in _MERGES), *_SPECIAL]
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, tokens)
    _fill(writer, len(tokens), np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _byte_tokens() -> list[str]:
    """GPT-2's way of giving each byte a character of its own."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = {byte: chr(256 + i) for i, byte in enumerate(byte for byte in range(256) if byte not in plain)}
    return [moved.get(byte, chr(byte)) for byte in range(256)]


def _describe(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    writer.add_name("tiny-random")
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    kinds = [gguf.TokenType.NORMAL] * (len(tokens) - len(_SPECIAL)) + [gguf.TokenType.CONTROL] * len(_SPECIAL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(_MERGES)
    writer.add_vocab_size(len(tokens))
    writer.add_bos_token_id(len(tokens) - 3)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(True)
    writer.add_chat_template(_TEMPLATE)


def _fill(writer: gguf.GGUFWriter, vocabulary: int, chance: np.random.Generator) -> None:
    def weights(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return chance.normal(0, _SPREAD, shape).astype(np.float32)

    def ones() -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.ones(_WIDTH, np.float32)

    out = weights(vocabulary, _WIDTH)
    # Only printable ASCII is ever said, so that answers are valid UTF-8.
    out[: _PRINTABLE[0]] = 0
    out[_PRINTABLE[1] : 256] = 0
    writer.add_tensor("token_embd.weight", weights(vocabulary, _WIDTH))
    writer.add_tensor("output_norm.weight", ones())
    writer.add_tensor("output.weight", out)
    writer.add_tensor("blk.0.attn_norm.weight", ones())
    writer.add_tensor("blk.0.ffn_norm.weight", ones())
    for part in ("q", "k", "v", "output"):
        writer.add_tensor(f"blk.0.attn_{part}.weight", weights(_WIDTH, _WIDTH))
    writer.add_tensor("blk.0.ffn_gate.weight", weights(_INNER, _WIDTH))
    writer.add_tensor("blk.0.ffn_up.weight", weights(_INNER, _WIDTH))
    writer.add_tensor("blk.0.ffn_down.weight", weights(_WIDTH, _INNER))
