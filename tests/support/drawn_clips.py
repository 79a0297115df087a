"""A small corpus of drawn films, for `emofuse prepare --corpus=folder`."""

import pathlib

from data_prep.synth.clip import render_clip

SECONDS = 1.2


def make_clips(folder: pathlib.Path, seconds: float = SECONDS) -> str:
    """Writes two drawn films of each of three speakers, cut to their beginning."""
    folder.mkdir()
    table = ["path,label,speaker,start,end"]
    for i in range(6):
        film = render_clip(speaker=90 + i // 2, p=i % 2, s_f=0, s_v=i % 2, damage="", corpus_seed=0, seed=i)
        (folder / f"{i}.mp4").write_bytes(film)
        table.append(f"{i}.mp4,{('low', 'high')[i % 2]},s{i // 2},0,{seconds}")
    (folder / "clips.csv").write_text("\n".join(table) + "\n")
    return str(folder)
