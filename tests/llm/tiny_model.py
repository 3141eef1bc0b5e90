#!/usr/bin/env python3
"""Writes a tiny llama model in GGUF, with random weights and nothing but Python's own library.

usage: tiny_model.py OUT [n_embd n_layer n_head n_ff]      (default 64 2 4 128: half a megabyte)

It speaks printable ASCII that means nothing, and never ends by itself: the rows of the output
matrix for control and byte tokens are zero. So an answer has exactly as many tokens as asked for.
"""
import random
import struct
import sys
from array import array

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
CONTROL, NORMAL, UNKNOWN, BYTE = 3, 1, 2, 6


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def entry(key, kind, value):
    packed = {
        U32: lambda: struct.pack("<I", value),
        F32: lambda: struct.pack("<f", value),
        BOOL: lambda: struct.pack("<?", value),
        STRING: lambda: text(value),
    }
    return text(key) + struct.pack("<I", kind) + packed[kind]()


def listing(key, kind, values):
    each = text if kind == STRING else lambda value: struct.pack("<f" if kind == F32 else "<i", value)
    head = text(key) + struct.pack("<IIQ", ARRAY, kind, len(values))
    return head + b"".join(each(value) for value in values)


def vocabulary():
    words = [(b"<unk>", UNKNOWN, 0.0), (b"<s>", CONTROL, 0.0), (b"</s>", CONTROL, 0.0)]
    words += [(f"<0x{byte:02X}>".encode(), BYTE, 0.0) for byte in range(256)]
    letters = [" "] + [chr(code) for code in range(33, 127)]
    return words + [(c.replace(" ", "\u2581").encode(), NORMAL, -float(i)) for i, c in enumerate(letters)]


def noise(count, scale):
    """Random numbers; in large tensors the same block over and over, which nobody notices."""
    block = array("f", (random.gauss(0.0, scale) for _ in range(min(count, 65_521))))
    return (block * (count // len(block) + 1))[:count]


def main(out, embd=64, layers=2, heads=4, ff=128):
    random.seed(0)
    words = vocabulary()
    size = len(words)
    metadata = [
        entry("general.architecture", STRING, "llama"),
        entry("general.name", STRING, "tiny-random"),
        entry("general.file_type", U32, 0),
        entry("llama.context_length", U32, 65536),
        entry("llama.embedding_length", U32, embd),
        entry("llama.block_count", U32, layers),
        entry("llama.feed_forward_length", U32, ff),
        entry("llama.attention.head_count", U32, heads),
        entry("llama.attention.head_count_kv", U32, heads),
        entry("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        entry("llama.rope.dimension_count", U32, embd // heads),
        entry("llama.vocab_size", U32, size),
        entry("tokenizer.ggml.model", STRING, "llama"),
        entry("tokenizer.ggml.pre", STRING, "default"),
        listing("tokenizer.ggml.tokens", STRING, [word for word, _, _ in words]),
        listing("tokenizer.ggml.scores", F32, [score for _, _, score in words]),
        listing("tokenizer.ggml.token_type", 5, [kind for _, kind, _ in words]),
        entry("tokenizer.ggml.bos_token_id", U32, 1),
        entry("tokenizer.ggml.eos_token_id", U32, 2),
        entry("tokenizer.ggml.unknown_token_id", U32, 0),
        entry("tokenizer.ggml.add_bos_token", BOOL, True),
        entry("tokenizer.chat_template", STRING,
              "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"),
    ]
    output = noise(size * embd, 1.0)
    output[: 259 * embd] = array("f", bytes(4 * 259 * embd))
    ones = array("f", [1.0]) * embd
    tensors = [
        ("token_embd.weight", (embd, size), noise(size * embd, 1.0)),
        ("output_norm.weight", (embd,), ones),
        ("output.weight", (embd, size), output),
    ]
    for layer in range(layers):
        block = f"blk.{layer}."
        tensors += [(block + name + ".weight", (embd,), ones) for name in ("attn_norm", "ffn_norm")]
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensors.append((block + name + ".weight", (embd, embd), noise(embd * embd, 0.02)))
        for name, shape in (("ffn_gate", (embd, ff)), ("ffn_up", (embd, ff)), ("ffn_down", (ff, embd))):
            tensors.append((block + name + ".weight", shape, noise(embd * ff, 0.02)))
    write(out, metadata, tensors)


def write(out, metadata, tensors):
    infos, offset = [], 0
    for name, shape, values in tensors:
        shape_words = struct.pack(f"<{len(shape)}Q", *shape)
        infos.append(text(name) + struct.pack("<I", len(shape)) + shape_words + struct.pack("<IQ", 0, offset))
        offset += (4 * len(values) + 31) // 32 * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + b"".join(metadata + infos)
    with open(out, "wb") as file:
        file.write(head.ljust((len(head) + 31) // 32 * 32, b"\0"))
        for _, _, values in tensors:
            raw = values.tobytes()
            file.write(raw.ljust((len(raw) + 31) // 32 * 32, b"\0"))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]))
