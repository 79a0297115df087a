"""Audio alone, trained from scratch on an hour of speech: a small ECAPA-TDNN on log-mel energies.

It uses attentive statistics pooling, the optimizer Muon, and strong augmentation, because there are few
speakers. `--config=speech:mel_cnn` uses a small 2-D residual network instead of the ECAPA-TDNN. References:
ECAPA-TDNN (Desplanques et al., 2020, arXiv 2005.07143); attentive statistics (Okabe et al., 2018, arXiv
1803.10963).

Command: emofuse crossval --config=speech --config.data.hold_out=False --config.data.path=DIR --workdir=DIR
    --seeds=3
Score: pooled test UA 0.630 on ravdess20_5fold, 95 % interval 0.583 to 0.679; 0.659 if the predictions of
three seeds are averaged (results/ravdess20_5fold). In an ablation on validation clips, speech:mel_cnn was 2.4
points lower.
Time: 2.5 minutes per fold and seed on two cores, measured on the two thirds of them that ran alone.
"""

import ml_collections

import emofuse_jax as ef


def get_config(encoder: str = "ecapa") -> ml_collections.ConfigDict:
    """Returns the config, with another audio encoder if `encoder` is passed (`speech:mel_cnn`).

    Raises:
      ValueError: if no audio encoder has that name.
    """
    config = ef.settings.base("audio_only", audio=encoder)
    config.name = "speech" if encoder == "ecapa" else f"speech_{encoder}"
    config.data.update(recipe="voice", audio_steps=188, batch_size=32)
    config.model.audio.update(attention="statistics", attention_width=128, temperature=1.0)
    if encoder == "mel_cnn":
        config.model.audio.widths = (24, 48, 96, 160)
    config.augment.update(
        speed=0.1,
        pitch=0.1,
        gain=0.5,
        time_masks=2,
        time_width=12,
        frequency_masks=2,
        frequency_width=12,
        noise=0.3,
        reverb=0.3,
    )
    config.loss.smoothing = 0.1
    config.optimizer.update(name="muon", learning_rate=4e-3, warmup=0.1, final_rate=0.0)
    # Temperature fitted to the final predictions of two runs (folds 0 and 1) on their validation clips.
    config.train.update(epochs=50, temperature=1.4)
    return config
