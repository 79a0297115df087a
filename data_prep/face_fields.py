"""The faces of one clip: frames are read, one person is followed through them, crops are cut."""

import numpy as np

from data_prep.faces.face import Face
from data_prep.feature_fields import face_features
from data_prep.media.frame_sampling import frame_times
from data_prep.media.probe import MediaError
from data_prep.media.video_clip import Film, Shots, read_film
from data_prep.onnx_models.encoders import EncoderError, EncoderFiles
from data_prep.settings import FaceSettings, PrepSettings


def clip_faces(
    film: Film, settings: PrepSettings, encoders: EncoderFiles, person: int = 0
) -> tuple[dict | None, str]:
    """The face fields of a record, or None and why there are none; and a remark.

    `person`: which of several people (`choose_track`).

    Raises ValueError for bad settings or a missing encoder.
    """
    video = film.info.video
    if video is None:
        return None, "no video stream"
    first, last = max(film.start, float(video.times.min())), min(film.end, video.end)
    if last <= first:
        return None, "no video in this part"
    try:
        shots = read_film(film, frame_times(video, first, last, settings.face))
    except MediaError as error:
        return None, str(error)
    try:
        faces, people = _track(film, shots, settings, encoders, person)
        if 0 < people <= person:
            return None, f"there is no person number {person + 1}"
        if not any(face is not None for face in faces):
            return None, f"no face in {len(faces)} frames"
        features = face_features(shots.frames, faces, settings, encoders)
    except EncoderError as error:
        return None, str(error)  # crops too: they share the mask
    used = f"number {person + 1}" if person else "the one of best size, place and speech"
    note = f"{people} people; used {used}" if people > 1 else ""
    return _fields(shots, faces, film.start, settings.face) | features, note


def _track(
    film: Film, shots: Shots, settings: PrepSettings, encoders: EncoderFiles, person: int
) -> tuple[list[Face | None], int]:
    """The face of one person or None for each frame, and how many people there are."""
    from data_prep.faces.active_speaker import listen
    from data_prep.faces.choose_person import choose_track
    from data_prep.faces.detector import open_detector  # JAX, which sound alone can do without
    from data_prep.faces.track_faces import find_faces

    search, look = open_detector(settings, encoders)
    faces = find_faces(shots.frames, shots.times, search, look)
    shape = shots.frames.shape[1:3]
    return choose_track(faces, shape, lambda tracks: listen(film, shots, tracks), person)


def _fields(shots: Shots, faces: list[Face | None], start: float, settings: FaceSettings) -> dict:
    from data_prep.faces.align import align_face

    fields, corner = no_faces(settings), np.array([shots.left, 0])
    fields["face_time"] = (shots.times - start).astype(np.float32)
    for i, face in enumerate(faces):
        if face is None:
            continue
        fields["faces"][i] = align_face(shots.frames[i], face, size=settings.size, margin=settings.margin)
        fields["face_valid"][i] = True
        fields["face_box"][i] = (np.asarray(face.box) + np.tile(corner, 2)) / shots.scale
        fields["face_landmarks"][i] = (np.asarray(face.landmarks) + corner) / shots.scale
        fields["face_score"][i] = face.score
    return fields


def no_faces(settings: FaceSettings) -> dict:
    """The face fields of a record without a face."""
    s, size = settings.frames, settings.size
    return {
        "faces": np.zeros((s, size, size, 3), np.uint8),
        "face_valid": np.zeros(s, bool),
        "face_time": np.zeros(s, np.float32),
        "face_box": np.zeros((s, 4), np.float32),
        "face_landmarks": np.zeros((s, 5, 2), np.float32),
        "face_score": np.zeros(s, np.float32),
    }
