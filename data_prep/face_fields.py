"""Extracts the faces of one clip: reads frames, follows one person through them, and cuts face crops."""

import numpy as np

from data_prep.faces.face import Face
from data_prep.feature_fields import extract_face_features
from data_prep.media.frame_sampling import frame_times
from data_prep.media.probe import MediaError
from data_prep.media.video_clip import ClipFrames, VideoClip, read_clip_frames
from data_prep.onnx_models.encoders import EncoderError, EncoderFiles
from data_prep.settings import FaceSettings, PrepSettings
from emofuse_jax.data.records import RecordArrays


def extract_face_fields(
    video_clip: VideoClip, settings: PrepSettings, encoder_files: EncoderFiles, person: int = 0
) -> tuple[RecordArrays | None, str]:
    """Extracts the face fields of a record from the frames of a clip.

    Args:
      video_clip: the clip.
      settings: settings of the preparation, of which `face` (sampling, detector, crops) and `features`
        (encoders) are used.
      encoder_files: paths of the ONNX files that the settings name.
      person: which of several people to follow: 0 is the person with the highest weight by size, position and
        speech, 1 the second, and so on.

    Returns:
      The fields and a note. With s frames and crops of size x size pixels, the fields are a dict of arrays:
      `faces` uint8 RGB [s size size 3], `face_valid` bool [s], True if the person was found in the frame, and
      as float32 `face_time` [s] in seconds of the clip, `face_box` [s 4] (left, top, right, bottom),
      `face_landmarks` [s 5 2] (x, y of the eye at the image's left, the eye at its right, the nose, the left
      and the right corner of the mouth), and `face_score` [s] of the detector (0 to 1 for MTCNN). Boxes and
      landmarks are in pixels from the top left corner of the complete source frame. If the settings have a
      face encoder, there are also `face_features`, float16 [s d], vectors of width d. All are zero in frames
      without the person, except `face_time`. The note is empty unless several people were found. If no face
      can be used, the fields are None and the note is the reason: no video, undecodable frames, no face, no
      person with this number, or a failed encoder.

    Raises:
      ValueError: the settings name an unknown detector or sampling or have a `min_face` outside (0, 1],
        `video_clip.half` is unknown, an ONNX file has no path, is missing, has another SHA-256 or is not an
        ONNX model, the weights of MTCNN have another SHA-256, or lz4 is not installed.
      OSError: an ONNX file, or the weights of MTCNN, can't be read.
      ModuleNotFoundError: a package of the extra `prep` (such as the `mtcnn` wheel with the weights), joblib
        or onnxruntime is needed, but not installed.
    """
    video = video_clip.info.video
    if video is None:
        return None, "no video stream"
    video_start, video_end = max(video_clip.start, float(video.times.min())), min(video_clip.end, video.end)
    if video_end <= video_start:
        return None, "no video in this part of the file"
    try:
        clip_frames = read_clip_frames(video_clip, frame_times(video, video_start, video_end, settings.face))
    except MediaError as error:
        return None, str(error)
    try:
        faces, num_people = _track_person(video_clip, clip_frames, settings, encoder_files, person)
        if 0 < num_people <= person:
            return None, f"person number {person + 1} does not exist, {num_people} found"
        if not any(face is not None for face in faces):
            return None, f"no face in {len(faces)} frames"
        features = extract_face_features(clip_frames.frames, faces, settings, encoder_files)
    except EncoderError as error:
        return None, str(error)  # no crops either: they share one mask with the features
    chosen_person = f"number {person + 1}" if person else "the one with the best size, position and speech"
    note = f"{num_people} people; used {chosen_person}" if num_people > 1 else ""
    return _to_record_fields(clip_frames, faces, video_clip.start, settings.face) | features, note


def _track_person(
    video_clip: VideoClip,
    clip_frames: ClipFrames,
    settings: PrepSettings,
    encoder_files: EncoderFiles,
    person: int,
) -> tuple[list[Face | None], int]:
    """Returns the chosen person's `Face` in each frame (None if not visible) and the number of people.

    A `Face` has `box` [4] (left, top, right, bottom), `landmarks` [5 2] (x, y of the eye at the image's left,
    the eye at its right, the nose, the left and the right corner of the mouth), both float32 in pixels of
    `clip_frames.frames`, and `score`. `person` 0 is the person with the highest weight by size, position and
    speech, 1 the second, and so on; all faces are None if there are not so many people.

    Raises:
      EncoderError: a custom detector fails.
      ValueError: the settings name an unknown detector or have a `min_face` outside (0, 1], the detector's
        ONNX file has no path, is missing, has another SHA-256 or is not an ONNX model, the weights of MTCNN
        have another SHA-256, or lz4 is not installed.
      OSError: the ONNX file, or the weights of MTCNN, can't be read.
      ModuleNotFoundError: a package of the extra `prep` (such as the `mtcnn` wheel with the weights), joblib
        or onnxruntime is needed, but not installed.
    """
    from data_prep.faces.active_speaker import score_speech
    from data_prep.faces.choose_person import choose_track
    from data_prep.faces.detector import open_detector  # imports JAX, which audio alone does not need
    from data_prep.faces.track_faces import find_faces

    detect_faces, redetect_faces = open_detector(settings, encoder_files)
    faces = find_faces(clip_frames.frames, clip_frames.times, detect_faces, redetect_faces)
    frame_shape = clip_frames.frames.shape[1:3]
    return choose_track(
        faces, frame_shape, lambda tracks: score_speech(video_clip, clip_frames, tracks), person
    )


def _to_record_fields(
    clip_frames: ClipFrames, faces: list[Face | None], start: float, settings: FaceSettings
) -> RecordArrays:
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


def zero_face_fields(settings: FaceSettings) -> RecordArrays:
    """Returns the face fields of a record without a face: arrays of zeros, and `face_valid` all False.

    With s = `settings.frames` frames and crops of `settings.size` (size) pixels, the keys are `faces` uint8
    [s size size 3], `face_valid` bool [s], and the float32 arrays `face_time` [s], `face_box` [s 4],
    `face_landmarks` [s 5 2] and `face_score` [s].
    """
    s, size = settings.frames, settings.size
    return {
        "faces": np.zeros((s, size, size, 3), np.uint8),
        "face_valid": np.zeros(s, bool),
        "face_time": np.zeros(s, np.float32),
        "face_box": np.zeros((s, 4), np.float32),
        "face_landmarks": np.zeros((s, 5, 2), np.float32),
        "face_score": np.zeros(s, np.float32),
    }
