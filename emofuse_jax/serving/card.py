"""What every bundle says about its use."""

INTENDED_USE = (
    "Research and teaching on audio-visual emotion recognition: scoring short clips of one visible or audible"
    " speaker, in the conditions of the corpus that is named here. The answer is the category that raters of"
    " that corpus would most likely give to the expression, with its probability; it is not what a person"
    " feels."
)
LIMITS = (
    "Trained on the speakers, language and recording conditions of one corpus, often of acted emotions; on"
    " other people, ages, skin tones, languages, accents, cameras and rooms the accuracy is unknown and"
    " usually lower, and may differ between groups. Probabilities are calibrated by one temperature, on"
    " validation speakers of that corpus alone. Windows with"
    " audio_ok or video_ok false rest on the other modality alone. Not for decisions about a person, such as"
    " employment, education, credit, health, border control or policing; inferring emotions at work and in"
    " schools is forbidden in some places, the European Union among them. Analyse people only with their"
    " consent."
)
