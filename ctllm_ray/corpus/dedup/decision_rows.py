"""The files of decisions: a row for each document of a cluster, in partitions by the shard of the section before."""

import pyarrow as pa

DECISIONS = "fates"  # the kind of file
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("survivor", pa.string()),
        ("similarity", pa.float32()),
        ("cluster_size", pa.float32()),
        ("stays", pa.int64()),  # number of the survivor
        ("stays_in", pa.string()),  # snapshot of the survivor; empty for this pass
    ]
)
