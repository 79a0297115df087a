"""Polarity of emotions: which are pleasant, which are not.

By valence, after the polarity-emotion hierarchy of VAANet (arXiv 2003.00832), which has two sides; neutral
and calm speech are on neither. That surprise counts as positive is a design choice.
"""

import ml_collections

POSITIVE = ("happy", "happiness", "joy", "excited", "excitement", "surprised", "surprise")
NEUTRAL = ("neutral", "calm")
NEGATIVE = (
    *("angry", "anger", "frustrated", "frustration", "contempt", "disgust", "disgusted"),
    *("fear", "fearful", "sad", "sadness", "boredom", "bored", "bothered"),
)
POLARITY = dict.fromkeys(POSITIVE, 1) | dict.fromkeys(NEUTRAL, 0) | dict.fromkeys(NEGATIVE, -1)
"""-1, 0 or 1 by the name of a class, in lower case."""


def class_polarities(classes: tuple[str, ...]) -> tuple[int, ...]:
    """The polarity of each class; raises ValueError naming the first that is not known."""
    for name in classes:
        if name.lower() not in POLARITY:
            raise ValueError(
                f"config.model.polarity: the polarity of class {name!r} is not known;"
                f" give -1, 0 or 1 for each of {', '.join(classes)}"
            )
    return tuple(POLARITY[name.lower()] for name in classes)


def fill_polarity(config: ml_collections.ConfigDict, classes: tuple[str, ...]) -> ml_collections.ConfigDict:
    """The experiment's config with `model.polarity` filled in, where it is empty and something needs it.

    Raises ValueError for a class whose polarity is not known.
    """
    is_hierarchical = config.model.margins.kind == "hierarchical"
    if len(config.model.polarity) or not (is_hierarchical or config.loss.objectives.get("polarity", 0.0)):
        return config
    filled_config = config.copy_and_resolve_references()
    filled_config.model.polarity = class_polarities(classes)
    return filled_config
