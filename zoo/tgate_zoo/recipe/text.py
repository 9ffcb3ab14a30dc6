"""The tokenizer and the text encoder, in CLIP's shape and sized for the caption grammar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tgate_zoo.untyped import transformers

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
MAX_LENGTH = 16
TEXT_WIDTH = 128
TEXT_CONFIG: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": TEXT_WIDTH,
    "max_position_embeddings": MAX_LENGTH,
}

Merge = tuple[str, str]


def learn_merges(words: Sequence[str]) -> list[Merge]:
    """Byte-pair merges that turn each of the words into one token, most frequent pair first.

    Ties go to the alphabetically first pair, so the same words give the same merges everywhere.
    """
    spelled = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges: list[Merge] = []
    while pairs := Counter(pair for word in spelled for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merged(word, best) for word in spelled]
    return merges


def _merged(pieces: list[str], pair: Merge) -> list[str]:
    out: list[str] = []
    for piece in pieces:
        # A piece just merged is longer than pair[0], so "aaa" with (a, a) gives "aa", "a".
        if out and (out[-1], piece) == pair:
            out[-1] = pair[0] + pair[1]
        else:
            out.append(piece)
    return out


def build_vocabulary(merges: Sequence[Merge]) -> dict[str, int]:
    """Token to number: every byte, every byte ending a word, the merges, start and end."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + WORD_END for letter in alphabet)]
    tokens += [first + second for first, second in merges]
    return {token: number for number, token in enumerate([*tokens, START, END])}


def build_tokenizer(words: Sequence[str]) -> Any:
    """A CLIPTokenizer that reads each of the words as one token and any other text as letters."""
    merges = learn_merges(words)
    return transformers().CLIPTokenizer(
        vocab=build_vocabulary(merges), merges=merges, model_max_length=MAX_LENGTH
    )


def build_text_encoder(tokenizer: Any) -> Any:
    """A fresh CLIPTextModel for a tokenizer."""
    config = transformers().CLIPTextConfig(
        **TEXT_CONFIG,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return transformers().CLIPTextModel(config)


def encode_captions(tokenizer: Any, captions: Sequence[str]) -> Any:
    """Token numbers of shape (count, longest prompt), int64, padded as the pipeline pads them."""
    return tokenizer(
        list(captions),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
