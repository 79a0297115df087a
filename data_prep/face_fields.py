"""The faces of one clip: frames are read, one person is followed through them, crops are cut."""

import numpy as np

from data_prep.faces.face import Face
from data_prep.feature_fields import extract_face_features
from data_prep.media.frame_sampling import frame_times
from data_prep.media.probe import MediaError
from data_prep.media.video_clip import ClipFrames, VideoClip, read_clip_frames
from data_prep.onnx_models.encoders import EncoderError, EncoderFiles
from data_prep.settings import FaceSettings, PrepSettings


def extract_face_fields(
    video_clip: VideoClip, settings: PrepSettings, encoder_files: EncoderFiles, person: int = 0
) -> tuple[dict | None, str]:
    """The face fields of a record, or None and why there are none; and a remark.

    `person`: which of several people (`choose_track`).

    Raises ValueError for bad settings or a missing encoder.
    """
    video = video_clip.info.video
    if video is None:
        return None, "no video stream"
    video_start, video_end = max(video_clip.start, float(video.times.min())), min(video_clip.end, video.end)
    if video_end <= video_start:
        return None, "no video in this part"
    try:
        clip_frames = read_clip_frames(video_clip, frame_times(video, video_start, video_end, settings.face))
    except MediaError as error:
        return None, str(error)
    try:
        faces, num_people = _track_person(video_clip, clip_frames, settings, encoder_files, person)
        if 0 < num_people <= person:
            return None, f"there is no person number {person + 1}"
        if not any(face is not None for face in faces):
            return None, f"no face in {len(faces)} frames"
        features = extract_face_features(clip_frames.frames, faces, settings, encoder_files)
    except EncoderError as error:
        return None, str(error)  # crops too: they share the mask
    chosen_person = f"number {person + 1}" if person else "the one of best size, place and speech"
    note = f"{num_people} people; used {chosen_person}" if num_people > 1 else ""
    return _to_record_fields(clip_frames, faces, video_clip.start, settings.face) | features, note


def _track_person(
    video_clip: VideoClip,
    clip_frames: ClipFrames,
    settings: PrepSettings,
    encoder_files: EncoderFiles,
    person: int,
) -> tuple[list[Face | None], int]:
    """The face of one person or None for each frame, and how many people there are."""
    from data_prep.faces.active_speaker import score_speech
    from data_prep.faces.choose_person import choose_track
    from data_prep.faces.detector import open_detector  # JAX, which sound alone can do without
    from data_prep.faces.track_faces import find_faces

    detect_faces, redetect_faces = open_detector(settings, encoder_files)
    faces = find_faces(clip_frames.frames, clip_frames.times, detect_faces, redetect_faces)
    frame_shape = clip_frames.frames.shape[1:3]
    return choose_track(
        faces, frame_shape, lambda tracks: score_speech(video_clip, clip_frames, tracks), person
    )


def _to_record_fields(
    clip_frames: ClipFrames, faces: list[Face | None], start: float, settings: FaceSettings
) -> dict:
    from data_prep.faces.align import align_face

    fields, half_offset = zero_face_fields(settings), np.array([clip_frames.left_column, 0])
    fields["face_time"] = (clip_frames.times - start).astype(np.float32)
    for i, face in enumerate(faces):
        if face is None:
            continue
        fields["faces"][i] = align_face(
            clip_frames.frames[i], face, size=settings.size, margin=settings.margin
        )
        fields["face_valid"][i] = True
        fields["face_box"][i] = (np.asarray(face.box) + np.tile(half_offset, 2)) / clip_frames.scale
        fields["face_landmarks"][i] = (np.asarray(face.landmarks) + half_offset) / clip_frames.scale
        fields["face_score"][i] = face.score
    return fields


def zero_face_fields(settings: FaceSettings) -> dict:
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
