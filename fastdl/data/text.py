"""Words as numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def split_words(text: str) -> list[str]:
    """Lower-case words of a text, without HTML tags and punctuation.

    Examples
    --------
    >>> from fastdl.data import split_words
    >>> split_words("To be, or not<br />to be: that's the question.")
    ['to', 'be', 'or', 'not', 'to', 'be', "that's", 'the', 'question']
    """
    return _WORD.findall(re.sub(r"<[^<>]*>", " ", text.lower()))


class Vocabulary:
    """The most frequent words of some texts, numbered: 0 fills up, 1 stands for all others, then by frequency.

    Parameters
    ----------
    texts : iterable of str
    max_size : int, optional
        At most so many numbers, 0 and 1 among them.
    min_count : int
        Words that occur less often are left out.

    Attributes
    ----------
    words : list of str
        By number; the first two are "<pad>" and "<unknown>".
    counts : list of int
        How often each occurs.

    Raises
    ------
    ValueError
        When max_size is below 2.

    Examples
    --------
    >>> from fastdl.data import Vocabulary
    >>> vocabulary = Vocabulary(["to be or not to be"])
    >>> vocabulary.words
    ['<pad>', '<unknown>', 'to', 'be', 'or', 'not']
    >>> vocabulary.encode(["to sleep", "not to be"], length=4).tolist()
    [[2, 1, 0, 0], [5, 2, 3, 0]]
    """

    def __init__(self, texts: Iterable[str], max_size: int | None = None, min_count: int = 1) -> None:
        if max_size is not None and max_size < 2:
            raise ValueError(f"Vocabulary: max_size must be >= 2; got {max_size}")
        found = Counter(word for text in texts for word in split_words(text))
        kept = [(w, n) for w, n in found.most_common() if n >= min_count][: None if max_size is None else max_size - 2]
        self.words = ["<pad>", "<unknown>", *(w for w, _ in kept)]
        self.counts = [0, found.total() - sum(n for _, n in kept), *(n for _, n in kept)]
        self._number = {word: k for k, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, word: str) -> int:
        """The word's number, 1 for an unknown one."""
        return self._number.get(word, 1)

    def numbers(self, text: str) -> np.ndarray:
        """The words of one text, int64 (L,)."""
        return np.array([self[word] for word in split_words(text)], np.int64)

    def encode(self, texts: Sequence[str], length: int) -> np.ndarray:
        """The first `length` words of each text, int64 (N, length), filled up with 0."""
        table = np.zeros((len(texts), length), np.int64)
        for row, text in zip(table, texts, strict=True):
            numbers = self.numbers(text)[:length]
            row[: len(numbers)] = numbers
        return table
