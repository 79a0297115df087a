"""Intended use, limits and legal notes of every trained model, for cards and bundles."""

INTENDED_USE = (
    "Research and teaching on audio-visual emotion recognition: scoring short clips of one visible or"
    " audible speaker, in the conditions of the corpus that is named here. The answer is the category that"
    " raters of that corpus would most likely give to the expression, with its probability; it is not what a"
    " person feels."
)


LIMITATIONS = (
    "Trained on the speakers, language and recording conditions of one corpus, often of acted emotions,"
    " which are stronger and cleaner than those of daily life; on other people, ages, skin tones, languages,"
    " cultures, accents, cameras, lighting, rooms and noise the accuracy is unknown and usually lower, and"
    " may differ between groups. Probabilities are calibrated by one temperature, on speakers of"
    " that corpus at most. Windows with audio_ok or video_ok false rest on the other modality alone. Not for"
    " decisions about a person, such as employment, education, credit, health, border control or policing."
    " Analyse people only with their consent."
)


LEGAL_NOTICE = (
    "In the European Union, Regulation (EU) 2024/1689 (AI Act), article 5(1)(f), forbids systems that infer"
    " emotions of people at work and in education, except for medical or safety reasons. Elsewhere emotion"
    " recognition is high-risk by annex III, point 1(c), and by article 50(3) people who are exposed to it"
    " must be told. Voices and faces are personal data (GDPR). Other countries have rules of their own. This"
    " is no legal advice."
)
