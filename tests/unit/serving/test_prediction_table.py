import io

from rich.console import Console

from emofuse_jax.serving.prediction_table import print_table

PREDICTION = {
    "path": "clips/a.mp4",
    "start": 0.0,
    "end": 2.5,
    "label": "happy",
    "confidence": 0.7,
    "probabilities": {"sad": 0.3, "happy": 0.7},
    "voice_weight": 0.25,
    "face_weight": 0.75,
    "audio_ok": True,
    "video_ok": True,
    "notes": "2 people",
}


def test_the_table_shows_answers_and_errors():
    file = io.StringIO()
    audio_only = PREDICTION | {
        "path": "clips/more/b.flac",
        "video_ok": False,
        "voice_weight": None,
        "face_weight": None,
    }
    print_table(
        [PREDICTION, audio_only, {"path": "clips/[x].txt", "error": "not media"}],
        Console(file=file, width=200),
    )
    first, second, third = file.getvalue().splitlines()[1:]
    parts = ("a.mp4", "0.0-2.5", "happy 70 %", "happy 0.70  sad 0.30", "voice 0.25, face 0.75", "2 people")
    assert all(part in first for part in parts)
    assert "clips" not in file.getvalue()
    assert "more/b.flac" in second
    assert "voice only" in second
    assert "[x].txt" in third
    assert "not media" in third
