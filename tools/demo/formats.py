# SPDX-License-Identifier: Apache-2.0
"""Tokenizers, chat formats and configurations of the two demo models.

The tokenizer files have the structure of the real families' (normaliser, pre-tokeniser, byte
pieces, special tokens, post-processor, decoder); only the pieces are learnt from this corpus.
"""
import json
import os

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+"
              r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
N_LAYER = 8


def special(i, content, is_special=True):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": is_special}


def build_qwen(texts, n_pieces):
    """Byte-level BPE with NFC and the Qwen2 pre-tokeniser; specials behind the base pieces."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=n_pieces, min_frequency=8, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    raw = json.loads(t.to_str())["model"]
    n = len(raw["vocab"])
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
             "use_regex": False}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [special(n + i, c) for i, c in
                             enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN_SPLIT}, "behavior": "Isolated",
                 "invert": False}, level]},
            "post_processor": level, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": "", "end_of_word_suffix": "",
                      "fuse_unk": False, "byte_fallback": False, "vocab": raw["vocab"],
                      "merges": [" ".join(m) for m in raw["merges"]]}}


GEMMA_HEAD = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]


def build_gemma(texts, n_pieces):
    """BPE with byte fallback: specials, newline runs, 256 byte pieces, merged pieces, characters.

    Pieces are learnt within words (a piece may begin with the space mark and never contains
    another), as SentencePiece does; at run time nothing is split, the merges alone decide.
    """
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Replace(" ", "▁")
    t.pre_tokenizer = pre_tokenizers.Split(Regex(r"▁?\p{L}+|▁?[^\p{L}▁\n]|\n|▁+"), "isolated")
    ascii_chars = [chr(c) for c in range(0x21, 0x7F)]
    t.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=n_pieces - len(GEMMA_HEAD) - 256 - 4, min_frequency=8, show_progress=False,
        initial_alphabet=ascii_chars + ["▁", "é"]))
    raw = json.loads(t.to_str())["model"]
    lines = ["\n" * k for k in (1, 2, 3, 4)]
    chars = sorted(set(c for c in raw["vocab"] if len(c) == 1 and c != "\n") | set(ascii_chars))
    merged = ["".join(m) for m in raw["merges"]]
    assert not any("\n" in m for m in merged)
    pieces = (GEMMA_HEAD + lines + [f"<0x{b:02X}>" for b in range(256)] + merged + chars)
    assert len(set(pieces)) == len(pieces)
    line_merges = ["\n \n", "\n\n \n", "\n\n \n\n", "\n \n\n", "\n\n\n \n", "\n \n\n\n"]
    bos, a, b = ({"SpecialToken": {"id": "<bos>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}})
    bos1 = {"SpecialToken": {"id": "<bos>", "type_id": 1}}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [special(i, c, c != "<mask>") for i, c in enumerate(GEMMA_HEAD)],
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            "pre_tokenizer": {"type": "Split", "pattern": {"String": " "},
                              "behavior": "MergedWithPrevious", "invert": False},
            "post_processor": {"type": "TemplateProcessing", "single": [bos, a],
                               "pair": [bos, a, bos1, b],
                               "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2],
                                                            "tokens": ["<bos>"]}}},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"}, {"type": "Fuse"}]},
            "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                      "vocab": {p: i for i, p in enumerate(pieces)},
                      "merges": line_merges + [" ".join(m) for m in raw["merges"]]}}


def template_text(arch):
    with open(os.path.join(HERE, f"{arch}.jinja"), encoding="utf-8", newline="") as f:
        return f.read()


def tokenizer_config(arch, tok):
    added = {str(a["id"]): {k: a[k] for k in ("content", "lstrip", "normalized", "rstrip",
                                              "single_word", "special")}
             for a in tok["added_tokens"]}
    if arch == "gemma2":
        return {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": added,
                "additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"],
                "bos_token": "<bos>", "chat_template": template_text(arch),
                "clean_up_tokenization_spaces": False, "eos_token": "<eos>",
                "model_max_length": 1024, "pad_token": "<pad>",
                "spaces_between_special_tokens": False, "tokenizer_class": "GemmaTokenizer",
                "unk_token": "<unk>", "use_default_system_prompt": False}
    return {"add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "bos_token": None,
            "chat_template": template_text(arch), "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>", "errors": "replace", "model_max_length": 1024,
            "pad_token": "<|endoftext|>", "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}


def token_id(tok, content):
    return next(a["id"] for a in tok["added_tokens"] if a["content"] == content)


def vocab_size(tok):
    return max(max(tok["model"]["vocab"].values()), max(a["id"] for a in tok["added_tokens"])) + 1


def model_config(arch, tok):
    """config.json in the families' classical key names."""
    if arch == "gemma2":
        return {"architectures": ["Gemma2ForCausalLM"], "attention_bias": False,
                "attention_dropout": 0.0, "attn_logit_softcapping": 50.0, "bos_token_id": 2,
                "cache_implementation": "hybrid",
                "eos_token_id": [1, token_id(tok, "<end_of_turn>")],
                "final_logit_softcapping": 30.0, "head_dim": 32,
                "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh",
                "hidden_size": 160, "initializer_range": 0.04, "intermediate_size": 320,
                "max_position_embeddings": 1024, "model_type": "gemma2",
                "num_attention_heads": 4, "num_hidden_layers": N_LAYER,
                "num_key_value_heads": 2, "pad_token_id": 0, "query_pre_attn_scalar": 40,
                "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "sliding_window": 64,
                "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
                "vocab_size": vocab_size(tok)}
    return {"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
            "bos_token_id": token_id(tok, "<|endoftext|>"),
            "eos_token_id": token_id(tok, "<|im_end|>"), "hidden_act": "silu",
            "hidden_size": 160, "initializer_range": 0.04, "intermediate_size": 320,
            "max_position_embeddings": 1024, "max_window_layers": N_LAYER, "model_type": "qwen2",
            "num_attention_heads": 4, "num_hidden_layers": N_LAYER, "num_key_value_heads": 2,
            "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "sliding_window": 1024,
            "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
            "use_sliding_window": False, "vocab_size": vocab_size(tok)}


def generation_config(arch, tok):
    if arch == "gemma2":
        return {"_from_model_config": True, "bos_token_id": 2, "cache_implementation": "hybrid",
                "eos_token_id": [1, token_id(tok, "<end_of_turn>")], "pad_token_id": 0}
    end = token_id(tok, "<|endoftext|>")
    return {"bos_token_id": end, "pad_token_id": end, "do_sample": True,
            "eos_token_id": [token_id(tok, "<|im_end|>"), end], "repetition_penalty": 1.05,
            "temperature": 0.7, "top_p": 0.8, "top_k": 20}


def render(arch, user, system=None):
    """The chat format of one user message with the generation header (checked against the
    template by train_demo.py)."""
    if arch == "gemma2":
        return f"<bos><start_of_turn>user\n{user}<end_of_turn>\n<start_of_turn>model\n"
    return (f"<|im_start|>system\n{system or QWEN_SYSTEM}<|im_end|>\n"
            f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n")


def end_of_answer(arch):
    return "<end_of_turn>" if arch == "gemma2" else "<|im_end|>"


BUILD = {"gemma2": build_gemma, "qwen2": build_qwen}
