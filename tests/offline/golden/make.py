"""Makes the golden files with Google's own protobuf, not with prost.

    python3 -m venv /tmp/golden && /tmp/golden/bin/pip install grpcio-tools
    /tmp/golden/bin/python -m grpc_tools.protoc -I proto --python_out=/tmp/golden factlib/v1/outbox.proto
    PYTHONPATH=/tmp/golden /tmp/golden/bin/python tests/offline/golden/make.py
"""

from pathlib import Path

from factlib.v1.outbox_pb2 import OutboxEvent, TraceInfo

# What a later version may add, written by hand: field 9 varint 150, field 100 text
# "later", field 101 fixed 32 bits, field 102 fixed 64 bits.
UNKNOWN = bytes.fromhex("489601" "a206056c61746572" "ad0601020304" "b1060102030405060708")

EVENTS = {
    "empty": OutboxEvent(),
    "full": OutboxEvent(
        id="01890a5d-ac96-774b-bcce-b302099a8057",
        aggregate_type="user",
        aggregate_id="user-1",
        event_type="user.created",
        payload=b'{"name":"Zo\xc3\xab"}\x00\xff',
        created_at=1700000000123456789,
        metadata={"tenant": "7", "region": "eu"},
        trace_info=TraceInfo(
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            span_id="00f067aa0ba902b7",
            metadata={"sampled": "1"},
        ),
    ),
    "no_trace": OutboxEvent(
        aggregate_type="user", aggregate_id="user-1", event_type="user.deleted", created_at=-1
    ),
    "empty_trace": OutboxEvent(aggregate_type="user", trace_info=TraceInfo()),
    # As the Go library's Python client writes it: no id, no trace, microseconds.
    "python_client": OutboxEvent(
        aggregate_type="user",
        aggregate_id="user-1",
        event_type="user.renamed",
        payload=b"{}",
        created_at=1700000000123456,
    ),
    "empty_map_value": OutboxEvent(aggregate_type="user", metadata={"flag": ""}),
    "unknown_fields": OutboxEvent(aggregate_type="order", aggregate_id="o-9", payload=b"p"),
}

for name, event in EVENTS.items():
    data = event.SerializeToString(deterministic=True)
    if name == "unknown_fields":
        data += UNKNOWN
    (Path(__file__).parent / f"{name}.bin").write_bytes(data)
