"""The three supervised classifiers; the number in a name is the hidden width."""

from __future__ import annotations

from torch import Tensor, nn

from marl_pipeline.signals.labels import CLASSES


class MLP(nn.Module):
    """The window flattened, two hidden layers."""

    def __init__(self, window: int, features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(window * features, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, len(CLASSES)),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """[B, W, F] -> [B, 3] logits."""
        logits: Tensor = self.layers(windows)
        return logits


class Recurrent(nn.Module):
    """One recurrent layer read bar by bar; its last state decides."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], features: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.cell = cell(features, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden, len(CLASSES)))

    def forward(self, windows: Tensor) -> Tensor:
        """[B, W, F] -> [B, 3] logits."""
        states, _ = self.cell(windows)
        logits: Tensor = self.head(states[:, -1])
        return logits


def build(name: str, window: int, features: int, dropout: float) -> nn.Module:
    """A fresh classifier; its weights come from torch's global generator (see `seeding.forked`)."""
    match name:
        case "MLP72":
            return MLP(window, features, 72, dropout)
        case "LSTM62":
            return Recurrent(nn.LSTM, features, 62, dropout)
        case "GRU93":
            return Recurrent(nn.GRU, features, 93, dropout)
        case _:
            raise ValueError(f"no classifier is called {name!r}")
