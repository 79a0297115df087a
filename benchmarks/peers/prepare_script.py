"""A typical preparation script with PyTorch: one clip after the other, one frame after the other.

OpenCV reads every frame, MTCNN searches each sampled frame, librosa loads the audio, NumPy saves the arrays.
The audio is converted to a WAV file first; such scripts call ffmpeg for this, here PyAV replaces it, and its
time counts. One process, one thread.
"""

import itertools
import os
import tempfile

import av
import cv2
import librosa
import numpy as np
import torch

from benchmarks.peers.mtcnn import detect

FRAMES, SIZE, MARGIN, RATE = 16, 112, 0.3, 16_000
DFT, WINDOW, HOP, BINS = 800, 640, 160, 200

torch.set_num_threads(1)
cv2.setNumThreads(1)


def prepare(path, min_face):
    """Saves the faces and the spectrogram of a clip as two .npy files; returns the number of detected faces.

    `min_face` is the smallest face as a fraction of the frame's shorter side.
    """
    with tempfile.TemporaryDirectory() as folder:
        faces = [crop(frame, min_face) for frame in sample_frames(path)]
        np.save(os.path.join(folder, "faces.npy"), np.stack(faces))
        samples, _ = librosa.load(extract_wav(path, os.path.join(folder, "sound.wav")), sr=RATE)
        spectrum = librosa.stft(samples, n_fft=DFT, win_length=WINDOW, hop_length=HOP, window="hamming")
        np.save(os.path.join(folder, "sound.npy"), np.log(np.abs(spectrum[:BINS]) + 1e-5).T)
        return sum(face.any() for face in faces)


def sample_frames(path):
    """Reads every frame with OpenCV and returns 16 evenly spaced ones as RGB."""
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = video.get(cv2.CAP_PROP_FRAME_COUNT)
    chosen, frames = set(((np.arange(FRAMES) + 0.5) * count / FRAMES).astype(int).tolist()), []
    for number in itertools.count():
        was_read, frame = video.read()
        if not was_read:
            return frames
        if number in chosen:
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def crop(frame, min_face):
    """Returns the crop of the largest face, rotated so that the eyes are level; zeros if there is no face."""
    boxes, _, points = detect(frame, min_face * min(frame.shape[:2]))
    if not len(boxes):
        return np.zeros((SIZE, SIZE, 3), np.uint8)
    best = int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(1)))
    x0, y0, x1, y1 = boxes[best].tolist()
    (left, right), centre = points[best, :2], ((x0 + x1) / 2, (y0 + y1) / 2)
    angle = np.degrees(np.arctan2(right[1] - left[1], right[0] - left[0]))
    side = max(x1 - x0, y1 - y0) * (1 + MARGIN)
    transform = cv2.getRotationMatrix2D(centre, float(angle), SIZE / side)
    transform[:, 2] += SIZE / 2 - np.array(centre)
    return cv2.warpAffine(frame, transform, (SIZE, SIZE))


def extract_wav(path, target):
    with av.open(path) as source, av.open(target, "w") as wav:
        stream = source.streams.audio[0]
        stream.codec_context.thread_count = 1
        output = wav.add_stream("pcm_s16le", rate=stream.rate, layout=stream.layout.name)
        resampler = av.AudioResampler("s16", stream.layout.name, stream.rate)
        for frame in source.decode(stream):
            for resampled_frame in resampler.resample(frame):
                wav.mux(output.encode(resampled_frame))
        wav.mux(output.encode(None))
    return target
