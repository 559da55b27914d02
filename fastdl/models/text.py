"""Models of words and letters: skip-gram, a convolutional classifier, a recurrent language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import fastdl as fd
from fastdl import nn
from fastdl.nn import functional as F


class SkipGram(nn.Module):
    """Skip-gram with negative sampling (Mikolov et al., 2013): vectors that tell a word's neighbours from random words.

    Parameters
    ----------
    vocabulary, width : int
        Number of words and length of their vectors.

    Attributes
    ----------
    centre : Embedding
        The word vectors.
    context : Embedding
        The vectors of words as neighbours; zeros at first.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.SkipGram(100, 8)
    >>> word, neighbour, others = fd.array([3, 4]), fd.array([7, 1]), fd.array([[5, 9, 2], [6, 8, 0]])
    >>> round(net(word, neighbour, others).item(), 4)  # four answers of even odds per word
    2.7726
    """

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.centre, self.context = nn.Embedding(vocabulary, width), nn.Embedding(vocabulary, width)
        nn.init.uniform_(self.centre.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.context.weight)

    def forward(self, word: fd.Tensor, neighbour: fd.Tensor, others: fd.Tensor) -> fd.Tensor:
        """The mean loss of words (N,), true neighbours (N,) and random words (N, K)."""
        if others.ndim != 2 or word.shape != neighbour.shape or word.shape != others.shape[:1]:
            raise fd.ShapeError(
                f"skip_gram: got {tuple(word.shape)}, {tuple(neighbour.shape)}, {tuple(others.shape)}; need (N,), (N,) and (N, K)"
            )
        v = self.centre(word)
        true = (v * self.context(neighbour)).sum(axis=1)
        false = (fd.expand_dims(v, 1) * self.context(others)).sum(axis=2)
        return -(fd.log_sigmoid(true) + fd.log_sigmoid(-false).sum(axis=1)).mean()

    def nearest(self, index: int, count: int = 5) -> list[int]:
        """The `count` words whose vectors point most nearly in the direction of word `index`, nearest first."""
        table = self.centre.weight.detach().cpu().numpy()
        table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
        order = np.argsort(-(table @ table[index]), kind="stable")
        return [int(k) for k in order if k != index][:count]


class TextCNN(nn.Module):
    """Convolutions of several widths over word vectors, the maximum of each over time, one dense layer (Kim, 2014).

    Parameters
    ----------
    vocabulary, num_classes : int
    width : int
        Of the word vectors.
    kernels : sequence of int
        Words that a filter sees.
    channels : int
        Filters of each width.
    dropout : float
    padding_idx : int, optional
        A word that fills up short texts; its vector stays zero.

    Raises
    ------
    ShapeError
        When a text is shorter than the widest filter.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.TextCNN(100, 2, width=8, channels=4)
    >>> net(fd.zeros((3, 12), dtype="int64")).shape
    (3, 2)
    """

    def __init__(
        self,
        vocabulary: int,
        num_classes: int,
        width: int = 128,
        kernels: Sequence[int] = (3, 4, 5),
        channels: int = 100,
        dropout: float = 0.5,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__()
        self.kernels = tuple(kernels)
        self.embedding = nn.Embedding(vocabulary, width, padding_idx)
        self.convs = nn.ModuleList([nn.Conv1d(width, channels, k) for k in kernels])
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels * len(self.kernels), num_classes)

    def forward(self, words: fd.Tensor) -> fd.Tensor:
        """Scores (N, num_classes) of word numbers (N, L)."""
        if words.ndim != 2 or words.shape[1] < max(self.kernels):
            raise fd.ShapeError(f"text_cnn: got shape {tuple(words.shape)}; need (N, L) with L >= {max(self.kernels)}")
        x = fd.swapaxes(self.embedding(words), 1, 2)
        return self.fc(self.dropout(fd.concat([fd.relu(conv(x)).max(axis=2) for conv in self.convs], axis=1)))


class RecurrentLM(nn.Module):
    """The next letter (or word) from those before it, by an LSTM or GRU (Graves, 2013).

    Parameters
    ----------
    vocabulary, width, hidden, num_layers : int
        Of the embedding and the recurrent layers.
    cell : {"lstm", "gru"}
    dropout : float
        Between layers and before the last one.

    Raises
    ------
    ValueError
        When the cell has another name.

    Examples
    --------
    >>> import fastdl as fd
    >>> net = fd.models.RecurrentLM(30, 8, 16)
    >>> scores, state = net(fd.zeros((2, 5), dtype="int64"))
    >>> scores.shape, net.generate([1, 2], 3, rng=0).shape
    ((2, 5, 30), (5,))
    """

    def __init__(
        self, vocabulary: int, width: int = 64, hidden: int = 128, num_layers: int = 1, cell: str = "lstm", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if cell not in ("lstm", "gru"):
            raise ValueError(f"RecurrentLM: cell must be 'lstm' or 'gru'; got {cell!r}")
        self.embedding = nn.Embedding(vocabulary, width)
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.rnn = kind(width, hidden, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, vocabulary)

    def forward(self, tokens: fd.Tensor, state: Any = None) -> tuple[fd.Tensor, Any]:
        """Scores (N, L, vocabulary) of what follows each of tokens (N, L); the state after the last."""
        y, state = self.rnn(self.embedding(tokens), state)
        return self.head(self.dropout(y)), state

    def generate(self, prompt: Sequence[int], count: int, temperature: float = 1.0, rng: Any = None) -> np.ndarray:
        """The prompt and `count` further tokens, drawn one by one."""
        draw = sampler(temperature, rng)
        tokens, device = [int(t) for t in prompt], self.head.weight.device
        was, _ = self.training, self.eval()
        with fd.no_grad():
            scores, state = self(fd.array([tokens], device=device))
            for _ in range(count):
                tokens.append(draw(scores[0, -1]))
                scores, state = self(fd.array([tokens[-1:]], device=device), state)
        self.train(was)
        return np.array(tokens)


def sampler(temperature: float = 1.0, rng: Any = None) -> Any:
    """A function that draws an index from scores (vocabulary,); temperature 0 takes the highest.

    Examples
    --------
    >>> import fastdl as fd
    >>> fd.models.sampler(0.0)(fd.array([0.1, 2.0, 0.3]))
    1
    """
    from fastdl.data._seed import numpy_rng

    if temperature < 0:
        raise ValueError(f"sampler: need temperature >= 0; got {temperature}")
    generator = numpy_rng(rng)

    def draw(scores: fd.Tensor) -> int:
        if temperature == 0:
            return int(scores.argmax().item())
        chances = F.softmax(scores.detach() / temperature).cpu().numpy().astype(np.float64)
        return int(generator.choice(len(chances), p=chances / chances.sum()))

    return draw
