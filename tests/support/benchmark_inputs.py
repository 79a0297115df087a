"""A demo corpus of a few clips with its records beside it, as the suites of `emofuse benchmark` take it."""

from data_prep.corpora import read_corpus
from data_prep.corpora.demo import write_corpus
from data_prep.prepare import prepare
from data_prep.settings import RECIPES


def write_demo(home):
    """The directory of the records of six clips; the clips lie beside it."""
    write_corpus(str(home / "clips"), speakers=3, clips_per_speaker=2, workers=1)
    prepare(read_corpus("demo", str(home / "clips")), RECIPES["fbp"], str(home / "records"), workers=0)
    return str(home / "records")
