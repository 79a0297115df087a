"""Typical cross-validation in PyTorch: one fold after the other, data in memory, batches by index."""

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers.train_network import make_train_step, on_features


class Replica:
    """One fold and seed: a network and the clips of its splits; `epoch` trains and validates once.

    The network is compiled on a GPU, and computes in bfloat16 if `dtype` says so.
    """

    def __init__(
        self, arrays, train, validation, *, classes, widths, batch_size, learning_rate, steps, device, dtype
    ):
        audio, faces, label = (torch.from_numpy(np.array(a)).to(device) for a in arrays)
        self.audio, self.faces, self.label = audio, faces, label.long()
        self.train, self.validation = (torch.from_numpy(x).to(device) for x in (train, validation))
        self.model = on_features(audio.shape[-1], faces.shape[-1], classes, **widths).to(device)
        self.model = torch.compile(self.model) if device == "cuda" else self.model
        self.batch_size, self.classes = batch_size, classes
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
        self.step = make_train_step(self.model, learning_rate, steps)

    def epoch(self):
        """Trains on each clip once in a new random order and returns the UA on the validation clips."""
        with self.autocast:
            return self._epoch()

    def _epoch(self):
        self.model.train()
        order = self.train[torch.randperm(len(self.train), device=self.train.device)]
        for rows in order[: len(order) // self.batch_size * self.batch_size].split(self.batch_size):
            self.step(self.audio[rows], self.faces[rows], self.label[rows])
        self.model.eval()
        with torch.inference_mode():
            rows = self.validation
            predicted = self.model(self.audio[rows], self.faces[rows]).argmax(-1)
            true = F.one_hot(self.label[rows], self.classes).double()
            correct = (true * F.one_hot(predicted, self.classes)).sum(0)
            return float((correct / true.sum(0).clamp(min=1)).mean())
