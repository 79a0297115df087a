"""Intended use, limitations and legal notice of every trained model, for model cards and bundles."""

INTENDED_USE = (
    "Research and teaching on audio-visual emotion recognition: scoring short clips of one visible or"
    " audible speaker, in the conditions of the corpus that is named here. A prediction is the category"
    " that raters of that corpus would most likely choose for the expression, with its probability; it is not"
    " what a person feels."
)


LIMITATIONS = (
    "Trained on the speakers, language and recording conditions of one corpus, often of acted emotions,"
    " which are stronger and cleaner than those of daily life; for other people, ages, skin tones, languages,"
    " cultures, accents, cameras, lighting, rooms and noise the accuracy is unknown and usually lower, and"
    " may differ between groups. Probabilities are calibrated with one temperature, and only for speakers of"
    " that corpus. If audio_ok or video_ok of a window is false, its prediction uses only the other modality."
    " Not for decisions about a person, such as employment, education, credit, health, border control or"
    " policing. Analyse people only with their consent."
)


LEGAL_NOTICE = (
    "In the European Union, Regulation (EU) 2024/1689 (AI Act), article 5(1)(f), forbids systems that infer"
    " emotions of people at work and in education, except for medical or safety reasons. Elsewhere emotion"
    " recognition is high-risk by annex III, point 1(c), and by article 50(3) people who are exposed to it"
    " must be informed. Voices and faces are personal data (GDPR). Other countries have their own rules. This"
    " is not legal advice."
)
