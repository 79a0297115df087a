import glob

from emofuse_jax.train.writer import Writer, read_epochs, read_rows


def test_a_resumed_run_drops_what_it_does_again(tmp_path):
    writer = Writer(str(tmp_path), resume_step=0, active=True)
    for step in (1, 2, 3):
        writer.write(step, "step", {"loss": float(step)})
    writer.write(3, "epoch", {"epoch": 1, "train_loss": 2.0})
    writer.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 4, "spl')  # cut off by a kill
    writer = Writer(str(tmp_path), resume_step=2, active=True)
    writer.write(3, "step", {"loss": 30.0})
    writer.close()
    assert [(row["step"], row["loss"]) for row in read_rows(str(path))] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert read_epochs(str(tmp_path)) == []


def test_tensorboard_can_read_what_it_wrote(tmp_path):
    writer = Writer(str(tmp_path), resume_step=0, active=True)
    writer.write(7, "step", {"loss": 0.25})
    writer.close()
    (path,) = glob.glob(str(tmp_path / "tensorboard" / "events*"))
    data = open(path, "rb").read()  # noqa: SIM115
    assert b"step/loss" in data


def test_only_the_first_process_writes(tmp_path):
    writer = Writer(str(tmp_path), resume_step=0, active=False)
    writer.write(1, "step", {"loss": 1.0})
    writer.close()
    assert list(tmp_path.iterdir()) == []
