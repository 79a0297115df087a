from emofuse_jax import settings as settings
from emofuse_jax.api.config import (
    config as config,
    configs as configs,
)
from emofuse_jax.api.cross_validation import (
    CrossvalResults as CrossvalResults,
    compare as compare,
    crossval as crossval,
)
from emofuse_jax.api.model import (
    CompiledModel as CompiledModel,
    build_model as build_model,
)
from emofuse_jax.api.prepare import (
    prepare as prepare,
)
from emofuse_jax.api.records import (
    Records as Records,
    open_records as open_records,
)
from emofuse_jax.api.registration import (
    register_corpus as register_corpus,
    register_encoder as register_encoder,
    register_fusion as register_fusion,
    register_objective as register_objective,
)
from emofuse_jax.api.results import (
    Comparison as Comparison,
    Scores as Scores,
)
from emofuse_jax.api.run import (
    Evaluation as Evaluation,
    Run as Run,
    evaluate as evaluate,
    export as export,
    train as train,
)
from emofuse_jax.api.write_records import (
    write_records as write_records,
)
from emofuse_jax.data.array_clip import (
    Clip as Clip,
)
from emofuse_jax.data.records import (
    Record as Record,
)
from emofuse_jax.data.writing.corpus import (
    Corpus as Corpus,
    EvaluationProtocol as EvaluationProtocol,
    MediaClip as MediaClip,
)
from emofuse_jax.models.interfaces import (
    EncodedSequence as EncodedSequence,
    EncodedSequences as EncodedSequences,
    EncoderOutput as EncoderOutput,
    FusionOutput as FusionOutput,
    PooledVectors as PooledVectors,
)
from emofuse_jax.serving import (
    load as load,
)
from emofuse_jax.serving.bundle.load import (
    Bundle as Bundle,
)
from emofuse_jax.serving.predictions import (
    FailedWindow as FailedWindow,
    FilePredictions as FilePredictions,
    Prediction as Prediction,
)
from emofuse_jax.types import (
    Batch as Batch,
    InputSpec as InputSpec,
    Outputs as Outputs,
    TrainState as TrainState,
)
from emofuse_jax.utils.config_dict import (
    ConfigDict as ConfigDict,
)

__version__: str
__all__: list[str]
