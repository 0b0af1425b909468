"""Writes the event files of test/golden/tensorboard/, of a short run and of one that goes on, by TensorBoard's own protos and record writer.

    pip install tensorboard==2.21.0
    python test/golden/make_tensorboard_golden.py

Made with tensorboard 2.21.0. The test writes the same events with Lowrank and compares the bytes.
"""

from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.summary.writer.record_writer import RecordWriter

TIME = 1_790_000_000.125
CONFIG = '    {\n      "r": 8\n    }'


def scalars(step, values):
    return Event(wall_time=TIME, step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]))


text = Summary.Value(
    tag="args/text_summary",
    metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
    tensor=TensorProto(
        dtype="DT_STRING",
        string_val=[CONFIG.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    ),
)
first = [
    Event(wall_time=TIME, file_version="brain.Event:2"),
    Event(wall_time=TIME, summary=Summary(value=[text])),
    scalars(
        2,
        {
            "train/loss": 2.25,
            "train/grad_norm": 0.53,
            "train/learning_rate": 1e-4,
            "train/epoch": 2 / 3,
            "train/tokens_per_second": 812.0,
            "train/memory_gb": 1.2,
        },
    ),
    scalars(
        2,
        {
            "eval/loss": 1.9,
            "eval/perplexity": 6.6859,
            "eval/mean_token_accuracy": 0.615,
            "eval/runtime": 1.25,
            "eval/samples_per_second": 64.0,
        },
    ),
]
resumed = [
    Event(wall_time=TIME, file_version="brain.Event:2"),
    Event(wall_time=TIME, step=300, session_log=SessionLog(status=SessionLog.START)),
    scalars(1_000_000, {"train/train_loss": 2.0, "train/train_runtime": 12.5}),
]

folder = Path(__file__).parent / "tensorboard"
folder.mkdir(exist_ok=True)
for name, events in {"first": first, "resumed": resumed}.items():
    with open(folder / f"{name}.bin", "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))
        writer.flush()
