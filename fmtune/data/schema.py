"""Schema of a SageMaker record (``aialgs.data``, proto2), built with protobuf's own descriptors.

::

    Float32Tensor { repeated float values = 1 [packed]; repeated uint64 keys = 2 [packed];
                    repeated uint64 shape = 3 [packed]; }
    Float64Tensor   the same with double, Int32Tensor the same with int32
    Bytes  { repeated bytes value = 1; optional string content_type = 2; }
    Value  { oneof value { Float32Tensor float32_tensor = 2; Float64Tensor float64_tensor = 3;
                           Int32Tensor int32_tensor = 7; Bytes bytes = 9; } }
    Record { map<string, Value> features = 1; map<string, Value> label = 2;
             optional string uid = 3; optional string metadata = 4; optional string configuration = 5; }

The writer fills these messages; the reader (``kernels/wire.py``) does without them and is tested against them.
No compiler of ``.proto`` files is needed.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE = ".aialgs.data."


def _add(
    message: descriptor_pb2.DescriptorProto,
    name: str,
    number: int,
    kind: int,
    *,
    of: str = "",
    repeated: bool = False,
    packed: bool = False,
    oneof: bool = False,
) -> None:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, type=kind, label=label)
    if of:
        field.type_name = _PACKAGE + of
    if packed:
        field.options.packed = True
    if oneof:
        field.oneof_index = 0


def _tensor(file: descriptor_pb2.FileDescriptorProto, name: str, kind: int) -> None:
    message = file.message_type.add(name=name)
    _add(message, "values", 1, kind, repeated=True, packed=True)
    _add(message, "keys", 2, _Field.TYPE_UINT64, repeated=True, packed=True)
    _add(message, "shape", 3, _Field.TYPE_UINT64, repeated=True, packed=True)


def _map(record: descriptor_pb2.DescriptorProto, name: str, number: int) -> None:
    entry = record.nested_type.add(name=f"{name.capitalize()}Entry")
    entry.options.map_entry = True
    _add(entry, "key", 1, _Field.TYPE_STRING)
    _add(entry, "value", 2, _Field.TYPE_MESSAGE, of="Value")
    _add(record, name, number, _Field.TYPE_MESSAGE, of=f"Record.{entry.name}", repeated=True)


def _schema() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="fmtune/record.proto", package="aialgs.data", syntax="proto2")
    _tensor(file, "Float32Tensor", _Field.TYPE_FLOAT)
    _tensor(file, "Float64Tensor", _Field.TYPE_DOUBLE)
    _tensor(file, "Int32Tensor", _Field.TYPE_INT32)
    content = file.message_type.add(name="Bytes")
    _add(content, "value", 1, _Field.TYPE_BYTES, repeated=True)
    _add(content, "content_type", 2, _Field.TYPE_STRING)
    value = file.message_type.add(name="Value")
    value.oneof_decl.add(name="value")
    for name, number, of in (
        ("float32_tensor", 2, "Float32Tensor"),
        ("float64_tensor", 3, "Float64Tensor"),
        ("int32_tensor", 7, "Int32Tensor"),
        ("bytes", 9, "Bytes"),
    ):
        _add(value, name, number, _Field.TYPE_MESSAGE, of=of, oneof=True)
    record = file.message_type.add(name="Record")
    _map(record, "features", 1)
    _map(record, "label", 2)
    for name, number in (("uid", 3), ("metadata", 4), ("configuration", 5)):
        _add(record, name, number, _Field.TYPE_STRING)
    return file


# A pool of our own: the same schema from another package in the process does not clash with it.
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(_schema())

Record: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("aialgs.data.Record"))
"""The message class of one record."""
