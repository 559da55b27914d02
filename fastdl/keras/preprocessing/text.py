"""Text as numbers."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastdl.errors import ValueError_

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'


def text_to_word_sequence(text: str, filters: str = FILTERS, lower: bool = True, split: str = " ") -> list[str]:
    """The words of a text: the characters of `filters` count as `split`.

    Examples
    --------
    >>> from fastdl import keras
    >>> keras.preprocessing.text.text_to_word_sequence("Hello, big world!")
    ['hello', 'big', 'world']
    """
    text = text.lower() if lower else text
    return [w for w in text.translate({ord(c): split for c in filters}).split(split) if w]


class Tokenizer:
    """Numbers words by how often they occur, from 1; 0 is left for padding.

    Parameters
    ----------
    num_words : int, optional
        Only words with a number below this are used.
    filters, lower, split
        See :func:`text_to_word_sequence`.
    char_level : bool
        Characters instead of words.
    oov_token : str, optional
        Has number 1 and stands for words that are not known.

    Examples
    --------
    >>> from fastdl import keras
    >>> t = keras.preprocessing.text.Tokenizer(oov_token="?")
    >>> t.fit_on_texts(["the cat", "the dog"])
    >>> t.texts_to_sequences(["the bird", "dog"])
    [[2, 1], [4]]
    """

    def __init__(
        self, num_words: int | None = None, filters: str = FILTERS, lower: bool = True, split: str = " ", char_level: bool = False,
        oov_token: str | None = None,
    ) -> None:  # fmt: skip
        self.num_words, self.filters, self.lower, self.split = num_words, filters, lower, split
        self.char_level, self.oov_token = char_level, oov_token
        self.word_counts: Counter[str] = Counter()
        self.word_docs: Counter[str] = Counter()
        self.word_index: dict[str, int] = {}
        self.index_word: dict[int, str] = {}
        self.document_count = 0

    def _words(self, text: Any) -> list[str]:
        if not isinstance(text, str):
            return [w.lower() for w in text] if self.lower else list(text)
        if self.char_level:
            return list(text.lower() if self.lower else text)
        return text_to_word_sequence(text, self.filters, self.lower, self.split)

    def fit_on_texts(self, texts: Iterable[Any]) -> None:
        """Count the words of texts (strings, or lists of words), and number them anew."""
        for text in texts:
            words = self._words(text)
            self.document_count += 1
            self.word_counts.update(words)
            self.word_docs.update(set(words))
        ordered = sorted(self.word_counts, key=lambda w: -self.word_counts[w])  # stable: equal counts stay in order of appearance
        if self.oov_token is not None:
            ordered = [self.oov_token, *ordered]
        self.word_index = {word: k for k, word in enumerate(ordered, 1)}
        self.index_word = {k: word for word, k in self.word_index.items()}

    def texts_to_sequences(self, texts: Iterable[Any]) -> list[list[int]]:
        """Lists of numbers; words that are not known, or not among the `num_words`, are left out or become `oov_token`'s number."""
        oov = None if self.oov_token is None else self.word_index.get(self.oov_token)
        result = []
        for text in texts:
            numbers = []
            for word in self._words(text):
                k = self.word_index.get(word)
                if k is None or (self.num_words and k >= self.num_words):
                    k = oov
                if k is not None:
                    numbers.append(k)
            result.append(numbers)
        return result

    def sequences_to_texts(self, sequences: Iterable[Sequence[int]]) -> list[str]:
        """Words in place of numbers; numbers that are not known are left out."""
        return [self.split.join(self.index_word[int(k)] for k in row if int(k) in self.index_word) for row in sequences]

    def sequences_to_matrix(self, sequences: Sequence[Sequence[int]], mode: str = "binary") -> np.ndarray:
        """An array (N, words): "binary", "count", "freq" (shares) or "tfidf".

        Raises
        ------
        ValueError
            For another mode.
        """
        if mode not in ("binary", "count", "freq", "tfidf"):
            raise ValueError_(f"sequences_to_matrix: mode must be 'binary', 'count', 'freq' or 'tfidf'; got {mode!r}")
        width = self.num_words or len(self.word_index) + 1
        result = np.zeros((len(sequences), width))
        for row, numbers in zip(result, sequences, strict=True):
            for k, n in Counter(k for k in numbers if k < width).items():
                if mode == "tfidf":
                    docs = self.word_docs.get(self.index_word.get(k, ""), 0)
                    row[k] = (1 + math.log(n)) * math.log(1 + self.document_count / (1 + docs))
                else:
                    row[k] = 1 if mode == "binary" else n if mode == "count" else n / len(numbers)
        return result

    def texts_to_matrix(self, texts: Iterable[Any], mode: str = "binary") -> np.ndarray:
        """:meth:`sequences_to_matrix` of texts."""
        return self.sequences_to_matrix(self.texts_to_sequences(texts), mode)

    def to_json(self) -> str:
        """Settings and words as text."""
        settings = {k: getattr(self, k) for k in ("num_words", "filters", "lower", "split", "char_level", "oov_token", "document_count")}
        return json.dumps({**settings, "word_counts": list(self.word_counts.items()), "word_docs": dict(self.word_docs)})


def tokenizer_from_json(text: str) -> Tokenizer:
    """The tokenizer of :meth:`Tokenizer.to_json`."""
    state = json.loads(text)
    counts, docs, documents = dict(state.pop("word_counts")), state.pop("word_docs"), state.pop("document_count")
    tokenizer = Tokenizer(**state)
    tokenizer.word_counts.update(counts)
    tokenizer.word_docs.update(docs)
    tokenizer.fit_on_texts([])
    tokenizer.document_count = documents
    return tokenizer
