"""Reads what a training wrote for TensorBoard."""

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c


def events(file):
    """The events of a file, after checking their checksums."""
    data = file.read_bytes()
    while data:
        size = int.from_bytes(data[:8], "little")
        assert int.from_bytes(data[8:12], "little") == masked_crc32c(data[:8])
        yield Event.FromString(data[12 : 12 + size])
        data = data[16 + size :]


def images(run_dir):
    """{(step, tag): (height, width)} of all images of a run."""
    return {
        (event.step, value.tag): (value.image.height, value.image.width)
        for file in (run_dir / "tensorboard").iterdir()
        for event in events(file)
        for value in event.summary.value
        if value.HasField("image")
    }
