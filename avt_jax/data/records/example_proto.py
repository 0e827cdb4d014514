"""The message that a record is stored as, TensorFlow's Example, for protobuf.

TFDS has it, too, but importing TFDS takes longer than all else that reading needs, in every worker.
"""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "avt_jax_example"
_FIELD = descriptor_pb2.FieldDescriptorProto
# Lists of a feature, by the number of the field: https://github.com/tensorflow/tensorflow, in
# tensorflow/core/example/feature.proto.
_LISTS = {
    "BytesList": _FIELD.TYPE_BYTES,
    "FloatList": _FIELD.TYPE_FLOAT,
    "Int64List": _FIELD.TYPE_INT64,
}


@functools.cache
def example_class() -> Any:
    """The class of messages."""
    file = descriptor_pb2.FileDescriptorProto(
        name="avt_jax/example.proto", package=_PACKAGE, syntax="proto3"
    )
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(_LISTS.items(), start=1):
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, label=_FIELD.LABEL_REPEATED, type=kind)
        field = name.replace("List", "_list").lower()
        _message(feature, field, number, name).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_STRING)
    _message(entry, "value", 2, "Feature")
    _message(features, "feature", 1, "Features.FeatureEntry").label = _FIELD.LABEL_REPEATED
    _message(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Example"))


def _message(parent: Any, name: str, number: int, kind: str) -> Any:
    """Adds a field that holds another message."""
    return parent.field.add(
        name=name,
        number=number,
        label=_FIELD.LABEL_OPTIONAL,
        type=_FIELD.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.{kind}",
    )
