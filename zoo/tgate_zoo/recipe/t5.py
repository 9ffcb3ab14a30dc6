"""The tokenizer and the text encoder in T5's shape, sized for the caption grammar."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

from tgate_zoo.untyped import transformers

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
SPACE = "\u2581"
MAX_LENGTH = 16
TEXT_WIDTH = 64
TEXT_CONFIG: dict[str, Any] = {
    "d_model": TEXT_WIDTH,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
    "relative_attention_num_buckets": 16,
    "relative_attention_max_distance": MAX_LENGTH,
}
# A word of the grammar is worth more than any spelling of it in letters.
WORD_SCORE, LETTER_SCORE = -4.0, -12.0


def build_pieces(words: Sequence[str]) -> list[tuple[str, float]]:
    """Pieces and their scores: T5's three special ones, the words, then single letters."""
    special = [(PAD, 0.0), (END, 0.0), (UNKNOWN, 0.0)]
    known = [(SPACE + word, WORD_SCORE) for word in sorted(set(words)) if len(word) > 1]
    letters = [(letter, LETTER_SCORE) for letter in ascii_lowercase]
    # "a" is a word and a letter: the piece with the space before it is the word.
    starts = [(SPACE + w, WORD_SCORE) for w in sorted(set(words)) if len(w) == 1]
    return [*special, (SPACE, LETTER_SCORE), *known, *starts, *letters]


def build_tokenizer(words: Sequence[str]) -> Any:
    """A T5 tokenizer that reads each of the words as one piece and other text as letters."""
    return transformers().T5Tokenizer(
        vocab=build_pieces(words), extra_ids=0, model_max_length=MAX_LENGTH
    )


def build_text_encoder(tokenizer: Any) -> Any:
    """A fresh T5EncoderModel for a tokenizer."""
    config = transformers().T5Config(
        **TEXT_CONFIG,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
        is_encoder_decoder=False,
    )
    return transformers().T5EncoderModel(config)
