"""Typical training of AM-FBP in PyTorch: batched modules and fused AdamW; the peer for training speed.

The equations are those of tests/peers/am_fbp.py and network.py, with which emofuse's results are compared,
but batched. Clips have no padding and padding is not masked, which saves the peer some work.
"""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.peers.fcn import original
from benchmarks.peers.resnet import ResNet

PARTS, WIDTH, FACTORS, SCALE, GATE, DROPOUT = 3, 128, 4, 8.0, 128, 0.3


class Additive(nn.Module):
    """Attention `alpha = softmax(.3 e)`, `e_i = u^T tanh(W a_i + b)`, with each of several masks [n l]."""

    def __init__(self, width, hidden):
        super().__init__()
        self.hidden, self.score = nn.Linear(width, hidden), nn.Linear(hidden, 1, bias=False)

    def forward(self, values, masks):
        """Pools a sequence [b l d] to vectors [b n d], one for each mask."""
        e = 0.3 * self.score(torch.tanh(self.hidden(values)))[..., 0]  # b l
        alpha = torch.softmax(e[:, None].masked_fill(~masks, -torch.inf), -1)  # b n l
        return alpha @ values


class SelfFrames(nn.Module):
    """Attention `alpha_i = sigmoid(f_i^T q0)`, divided by its sum, with each of several masks [n l]."""

    def __init__(self, width):
        super().__init__()
        self.q0 = nn.Linear(width, 1, bias=False)

    def forward(self, values, masks):
        """Pools a sequence [b l d] to vectors [b n d], one for each mask."""
        alpha = torch.sigmoid(self.q0(values))[..., 0][:, None] * masks  # b n l
        return (alpha / alpha.sum(-1, keepdim=True)) @ values


class Trunk(nn.Module):
    """Scalar gates and FBP with biases, for vectors [b n d] of both modalities."""

    def __init__(self, d_a, d_v):
        super().__init__()
        self.gates = nn.ModuleList(
            nn.Sequential(nn.Linear(d, GATE), nn.Tanh(), nn.Linear(GATE, 1, bias=False)) for d in (d_a, d_v)
        )
        self.u, self.v = nn.Linear(d_a, WIDTH * FACTORS), nn.Linear(d_v, WIDTH * FACTORS)

    def forward(self, audio, video):
        """Computes the fused vectors [b n o], which have norm SCALE."""
        beta = torch.softmax(torch.cat([self.gates[0](audio), self.gates[1](video)], -1), -1)  # b n 2
        joint = self.u(audio * beta[..., :1]) * self.v(video * beta[..., 1:])
        joint = F.dropout(joint, DROPOUT, self.training)
        return SCALE * F.normalize(joint.unflatten(-1, (WIDTH, FACTORS)).sum(-1), dim=-1)


class AMFBP(nn.Module):
    """Two encoders of sequences [b l d], attention over the clip and over its parts, fusion, classifier."""

    def __init__(self, audio, d_a, video, d_v, classes, hidden=256):
        super().__init__()
        self.audio, self.video = audio, video
        self.audio_attention, self.video_attention = Additive(d_a, hidden), SelfFrames(d_v)
        self.clip_trunk, self.part_trunk = Trunk(d_a, d_v), Trunk(d_a, d_v)
        self.head = nn.Linear(2 * WIDTH, classes)

    def forward(self, spectrograms, faces):
        """Computes the logits [b c]."""
        audio, video = self.audio(spectrograms), self.video(faces)
        audio = self.audio_attention(audio, trunk_masks(audio))
        video = self.video_attention(video, trunk_masks(video))
        z = [
            self.clip_trunk(audio[:, :1], video[:, :1])[:, 0],
            self.part_trunk(audio[:, 1:], video[:, 1:]).mean(1),
        ]
        return self.head(torch.cat(z, -1))


def trunk_masks(values):
    """Returns the masks [n l] of the complete clip and of its PARTS equal parts in time."""
    part_index = torch.arange(values.shape[1], device=values.device) * PARTS // values.shape[1]
    rows = [torch.ones_like(part_index, dtype=bool), *(part_index == n for n in range(PARTS))]
    return torch.stack(rows)


class Spectra(nn.Module):
    """FCN of Deep Fusion on standardised spectrograms [b t f]; each output step has all bands [b u g*d]."""

    def __init__(self, widths):
        super().__init__()
        self.net = original(widths)

    def forward(self, x):
        """Computes the sequence [b u g*d]."""
        return self.net(((x.float() + 4.0) / 2.0)[:, None]).permute(0, 2, 3, 1).flatten(2)


class Frames(nn.Module):
    """ResNet, linear layer and tanh on each face [b s h w 3] uint8."""

    def __init__(self, width, blocks, embedding):
        super().__init__()
        self.net = ResNet(2, width, blocks, kernel=(7, 7), stride=2, pool=True)
        self.embedding = nn.Linear(width << (len(blocks) - 1), embedding)

    def forward(self, faces):
        """Computes the sequence of embeddings [b s d]."""
        images = (faces.flatten(0, 1).movedim(-1, 1).float() / 127.5 - 1).contiguous(
            memory_format=torch.channels_last
        )
        return torch.tanh(self.embedding(self.net(images).mean((2, 3)))).unflatten(0, faces.shape[:2])


class Projected(nn.Module):
    """Projection `tanh(W norm(x) + b)` of a frozen encoder's features [b l d]."""

    def __init__(self, width, embedding):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, embedding)

    def forward(self, x):
        """Computes the projected features."""
        return torch.tanh(self.linear(self.norm(x.float())))


def end_to_end(classes, bands=5):
    """Builds the network of configs/am_fbp.py, with encoders at the sizes of the papers."""
    audio, video = Spectra((96, 256, 384, 384, 256)), Frames(64, (2, 2, 2, 2), 256)
    return AMFBP(audio, bands * 256, video, 256, classes)


def on_features(audio, face, classes, embedding, hidden):
    """Builds the network of configs/features.py or its small variant.

    `audio` and `face` are the widths of the features, `hidden` is the width of the audio attention.
    """
    streams = Projected(audio, embedding), embedding, Projected(face, embedding), embedding
    return AMFBP(*streams, classes, hidden)


def make_train_step(model, learning_rate, steps):
    """Returns a function that trains on one batch and returns the loss.

    It uses cross-entropy, gradient clipping, AdamW and a cosine schedule over `steps` steps.
    """
    fused = {"fused": True}
    tx = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.05, **fused)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(tx, steps)
    model.train()

    def step(spectrograms, faces, label):
        tx.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(spectrograms, faces), label)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        tx.step()
        schedule.step()
        return loss

    return step
