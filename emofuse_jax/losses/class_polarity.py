"""Polarity of emotions: positive, neutral or negative.

The polarity follows the valence of an emotion, as in the polarity-emotion hierarchy of VAANet (Zhao et al.,
2020, arXiv 2003.00832), which has only positive and negative emotions; here neutral and calm speech have
polarity 0. Counting surprise as positive is a design choice.
"""

import ml_collections

POSITIVE = ("happy", "happiness", "joy", "excited", "excitement", "surprised", "surprise")
NEUTRAL = ("neutral", "calm")
NEGATIVE = (
    *("angry", "anger", "frustrated", "frustration", "contempt", "disgust", "disgusted"),
    *("fear", "fearful", "sad", "sadness", "boredom", "bored", "bothered"),
)
POLARITY = dict.fromkeys(POSITIVE, 1) | dict.fromkeys(NEUTRAL, 0) | dict.fromkeys(NEGATIVE, -1)
"""Polarity (-1, 0 or 1) by lower-case class name."""


def class_polarities(classes: tuple[str, ...]) -> tuple[int, ...]:
    """Returns the polarity of each class, in the order of `classes`: 1 positive, 0 neutral, -1 negative.

    It is looked up in the table POLARITY by the name of the class, in upper or lower case: 1 for happy,
    happiness, joy, excited, excitement, surprised and surprise; 0 for neutral and calm; -1 for angry, anger,
    frustrated, frustration, contempt, disgust, disgusted, fear, fearful, sad, sadness, boredom, bored and
    bothered.

    Raises:
      ValueError: if the polarity of a class is not known; the message names the first such class.
    """
    for name in classes:
        if name.lower() not in POLARITY:
            raise ValueError(
                f"config.model.polarity: the polarity of class {name!r} is not known;"
                f" set this field to -1, 0 or 1 for each of {', '.join(classes)}"
            )
    return tuple(POLARITY[name.lower()] for name in classes)


def fill_polarity(config: ml_collections.ConfigDict, classes: tuple[str, ...]) -> ml_collections.ConfigDict:
    """Sets `model.polarity` of an experiment's config by the class names, if it is empty and is needed.

    Hierarchical margins (`model.margins.kind`) and the objective `polarity`, if its factor is not 0, need
    this field.

    Returns:
      A copy of the config with `model.polarity`, a tuple of -1, 0 or 1 for each class, or the same config if
      nothing had to be set.

    Raises:
      ValueError: if the field is empty and needed, and the polarity of a class is not known.
    """
    is_hierarchical = config.model.margins.kind == "hierarchical"
    if len(config.model.polarity) or not (is_hierarchical or config.loss.objectives.get("polarity", 0.0)):
        return config
    filled_config = config.copy_and_resolve_references()
    filled_config.model.polarity = class_polarities(classes)
    return filled_config
