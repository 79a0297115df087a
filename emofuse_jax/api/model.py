"""Models for custom code: pure functions, compiled on their first call."""

import dataclasses
import functools
import os
from collections.abc import Callable

import jax

from emofuse_jax.api.records import Records, with_records
from emofuse_jax.data.dataset import open_dataset
from emofuse_jax.losses.class_polarity import fill_polarity
from emofuse_jax.models import build
from emofuse_jax.parallel.mesh import replica_mesh
from emofuse_jax.parallel.xla_options import single_use_options
from emofuse_jax.training.experiment import make_input_spec
from emofuse_jax.types import Batch, InputSpec, Outputs, Params, PRNGKey
from emofuse_jax.utils.config_dict import ConfigDict


@dataclasses.dataclass(frozen=True)
class CompiledModel:
    """A network without parameters, whose pure functions are compiled on their first call."""

    network: build.Model
    """The same functions uncompiled, for your own `jax.jit`: slower to compile, faster to run on a CPU."""

    @property
    def spec(self) -> InputSpec:
        """Shape of one clip.

        It has the numbers of audio steps `t`, frequency bins `f`, video frames `s` and `classes`, height `h`
        and width `w` of a face in pixels, and `feature_steps`, `audio_features` and `face_features`, the
        number of steps and the widths of the features of frozen encoders; 0 for what clips do not have.
        """
        return self.network.spec

    def init(self, key: PRNGKey) -> tuple[Params, Params]:
        """Returns `(params, model_state)`: new parameters to train, and the statistics of norms and inputs.

        Both are nested dicts of arrays; the parameters are drawn with the random key `key`.
        """
        return self._init(key)

    def apply(
        self,
        params: Params,
        model_state: Params,
        batch: Batch,
        *,
        train: bool = False,
        key: PRNGKey | None = None,
    ) -> tuple[Outputs, Params]:
        """Computes the outputs of the network for a batch.

        Args:
          params: parameters, from `init` or trained.
          model_state: from `init` or from an earlier call.
          batch: a Batch of b clips: `audio` [b t f] and `faces` uint8 [b s h w 3], or features, with their
            masks (True at valid steps and faces), `label`, `weight` and others, as `fake_batch` returns it;
            the number of time steps and frames may differ from `spec`.
          train: uses the statistics of the batch and dropout; False leaves the model state unchanged.
          key: random key for dropout; needed if `train`.

        Returns:
          A pair `(outputs, model_state)`. The outputs have `logits` [b c] for b clips and c classes,
          `embedding` [b d], the input of the classifier, `audio_vector` [b d_a] and `video_vector` [b d_v],
          the pooled vectors of widths d_a and d_v (None for a modality that the network does not read), and
          `aux`, a dict of other arrays such as attention weights.

        Raises:
          ValueError: `train` without a key, other arrays in `params` or `model_state` than `init` returns,
            arrays of the batch whose shapes do not fit `spec`, too few steps or a wrong number of frames for
            an encoder, an invalid dropout rate or place in the config, or a registered fusion that does not
            return a FusionOutput.
          Exception: a registered encoder or fusion raised it.
        """
        return self._apply(params, model_state, batch, train=train, key=key)

    def fake_batch(self, size: int, seed: int = 0) -> Batch:
        """Returns a valid random batch of `size` clips, some with padding and frames without a face.

        The fields are NumPy arrays of b = `size` rows with the sizes in `spec`: `audio` float16 [b t f],
        `faces` uint8 [b s h w 3], their masks `audio_mask` [b t] and `face_mask` [b s] (True at valid steps
        and faces), `label`, `speaker` and `clip` int32 [b] (indices), `label_mask` [b] (True) and `weight`
        float32 [b] (1). If `spec` has features, also `audio_features` float16 [b u d_a] of u steps,
        `audio_features_mask` [b u] and `face_features` float16 [b s d_v]; otherwise they are None. An axis of
        `audio` or `faces` is 0 if it is 0 in `spec`. The same `seed` gives the same batch. Raises ValueError
        if `size` is less than 1, `seed` is negative or `spec.classes` is 0, IndexError if `spec.s` is 0.
        """
        return self.network.fake_batch(size, seed)

    @functools.cached_property
    def _init(self) -> Callable[[PRNGKey], tuple[Params, Params]]:
        return jax.jit(self.network.init, compiler_options=single_use_options(replica_mesh(1)))

    @functools.cached_property
    def _apply(self) -> Callable[..., tuple[Outputs, Params]]:
        # on a CPU compiled four times as fast as by default, and run a third slower
        options = single_use_options(replica_mesh(1))
        return jax.jit(self.network.apply, static_argnames="train", compiler_options=options)


def build_model(config: ConfigDict, records: Records | InputSpec | str | os.PathLike[str]) -> CompiledModel:
    """Builds the network of a config for the clips of records.

    Args:
      config: a config that `config` returned.
      records: records or their directory; or the shape of one clip.

    Returns:
      The network without parameters; its functions `init` and `apply` are compiled on their first call.

    Raises:
      FileNotFoundError: there are no records at this path.
      ValueError: the records are damaged, a field of the config is invalid, or the config and the records do
        not fit together; one line that names the file or field.
      OSError: a file of the records cannot be read.
      AttributeError: the config lacks a field.
      Exception: a registered encoder or fusion raised it.

    Example:
      >>> import jax
      >>> model = ef.build_model(ef.config("concat", form="small_features"), "records")
      >>> params, model_state = model.init(jax.random.key(0))
      >>> outputs, _ = model.apply(params, model_state, model.fake_batch(2))
      >>> outputs.logits.shape
      (2, 2)
    """
    if isinstance(records, InputSpec):
        return CompiledModel(build.build_model(config.model, records))
    config = with_records(config, records)
    dataset = open_dataset(config.data.path, config.data.recipe)
    config = fill_polarity(config, dataset.classes)
    return CompiledModel(build.build_model(config.model, make_input_spec(config, dataset)))
