"""The complete AM-FBP network in PyTorch, which scores one clip at a time without padding and masks."""

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.peers.case import Case, normal, prefix_mask
from benchmarks.peers.fcn import SMALL_WIDTHS, original
from benchmarks.peers.modules import buffer_names, call, random_weights
from benchmarks.peers.resnet import ResNet
from tests.peers import am_fbp
from tests.peers.attention import attention_pool, score, self_frames

BINS, FACE, PARTS = 67, 9, 3


def make_frame_resnet(width):
    return ResNet(2, width, (1, 1), kernel=(3, 3), stride=2, pool=True)


def part_mask(count, part):
    """Returns the mask [count] of the positions in time that are in a part; part 0 is the complete clip."""
    positions = torch.arange(count) * PARTS
    return (
        torch.ones(count, dtype=bool)
        if not part
        else (positions >= (part - 1) * count) & (positions < part * count)
    )


def audio_vectors(a, spectrogram):
    """Standardises a spectrogram, applies the FCN and pools over time (`1d_concat`): the clip and each part.

    Returns the vectors and the masks of the clip and its parts.
    """
    x = (spectrogram - a["mean"]) / a["std"]
    fcn = {k.removeprefix("fcn."): v for k, v in a.items() if k.startswith("fcn.")}
    values = call(original(SMALL_WIDTHS), fcn, x[None, None])[0].permute(1, 2, 0).flatten(1)[None]  # 1 u g*d
    scores = score(values, *(a[f"audio_attention.{k}"] for k in ("w", "b", "u")))
    masks = [part_mask(values.shape[1], part)[None] for part in range(1 + PARTS)]
    return [
        attention_pool(values, scores, m)[0][0] if m.any() else torch.zeros_like(values[0, 0]) for m in masks
    ], masks


def video_vectors(a, faces, face_mask):
    """Applies ResNet, linear layer and tanh to each face and pools valid faces with AM-FBP's self-attention.

    Returns the vectors and the masks of the clip and its parts.
    """
    images = (faces.double() / 127.5 - 1).movedim(-1, 1)
    resnet = {k.removeprefix("resnet."): v for k, v in a.items() if k.startswith("resnet.")}
    features = call(make_frame_resnet(len(a["resnet.bn1.weight"])).eval(), resnet, images).mean((2, 3))
    values = torch.tanh(F.linear(features, a["embedding.weight"], a["embedding.bias"]))[None]
    masks = [(part_mask(len(faces), part) & face_mask)[None] for part in range(1 + PARTS)]
    return [
        self_frames(values, a["q0"], m)[0][0] if m.any() else torch.zeros_like(values[0, 0]) for m in masks
    ], masks


def peer(a):
    rows = {"audio": [], "video": [], "ok": []}
    for i, length in enumerate(a["audio_mask"].sum(1)):
        audio, audio_masks = audio_vectors(a, a["audio"][i, :length])
        video, video_masks = video_vectors(a, a["faces"][i], a["face_mask"][i])
        ok = torch.tensor(
            [[bool(x.any()), bool(y.any())] for x, y in zip(audio_masks, video_masks, strict=True)]
        )
        for name, value in (("audio", torch.stack(audio)), ("video", torch.stack(video)), ("ok", ok)):
            rows[name].append(value)
    fusion_params = {k.removeprefix("fusion."): v for k, v in a.items() if k.startswith("fusion.")}
    return am_fbp.fuse(fusion_params | {k: torch.stack(v) for k, v in rows.items()}, am_fbp.scalar_gates)


def inputs(rng, size):
    """Draws clips of different lengths with missing faces; the second has none in its last third."""
    b, t, s = 1 + size, 131 + 32 * (size - 1), 3 + 2 * size
    audio_mask = prefix_mask([t] + [131] * (b - 1), t)  # 131: three columns
    face_mask = np.ones((b, s), bool)
    face_mask[0, 1] = face_mask[1, 2 * s // 3 :] = False
    audio = np.round(normal(rng, b, t, BINS, scale=8)) - 20
    arrays = {"audio": audio * audio_mask[:, :, None], "audio_mask": audio_mask, "face_mask": face_mask}
    arrays["faces"] = rng.integers(0, 256, (b, s, FACE, FACE, 3), np.uint8) * face_mask[..., None, None, None]
    arrays |= {"mean": normal(rng, BINS) - 20, "std": rng.uniform(5, 10, BINS).astype(np.float32)}
    arrays |= random_weights(rng, original(SMALL_WIDTHS), "fcn.") | random_weights(
        rng, make_frame_resnet(2 * size), "resnet."
    )
    d_a, d_v, r = SMALL_WIDTHS[-1], 4 * size, 3
    attention = {"w": normal(rng, d_a, r), "b": normal(rng, r), "u": normal(rng, r, scale=2.0)}
    arrays |= {f"audio_attention.{k}": v for k, v in attention.items()}
    arrays |= {"embedding.weight": normal(rng, d_v, 4 * size, scale=0.3), "embedding.bias": normal(rng, d_v)}
    arrays["q0"] = normal(rng, d_v)
    fusion = am_fbp.make_params(rng, {"audio": d_a, "video": d_v}, 3, 2 * size, "scalar")
    return arrays | {f"fusion.{k}": v for k, v in fusion.items()}


CONSTANTS = (
    "audio",
    "mean",
    "std",
    *buffer_names(random_weights(np.random.default_rng(0), make_frame_resnet(2), "resnet.")),
)
CASES = {"network_am_fbp": Case(inputs, peer, CONSTANTS)}
