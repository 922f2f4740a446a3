"""The one table of limits on what strangers send.

A limit that a user may need to raise is a parameter of the function that applies it, with the value
here as its default.
"""

MIB = 1 << 20

# distribution-spec, "Pushing Manifests": "Client and registry implementations SHOULD expect to be able to
# support manifest pushes of at least 4 megabytes."
MANIFEST_BYTES = 4 * MIB
CONFIG_BYTES = 4 * MIB
INDEX_JSON_BYTES = 64 * MIB  # a layout of a whole registry's tags still is one file
JSON_DEPTH = 100

INDEX_NESTING = 8  # levels of manifests, from an index down to the images
GRAPH_NODES = 1_000_000  # pieces of content reached from one root
GRAPH_BYTES = (
    128 * MIB
)  # all manifests under one root together: they are held in memory until they are written
INDEX_ENTRIES = 10_000

# Whoever may push to a repository can add any number of signatures, of any size (CVE-2023-46737).
SIGNATURES = 100
SIGNATURE_BYTES = MIB

DECOMPRESSED_BYTES = 1 << 40
# A run of zeros compresses to about 1:1030 in gzip and to far more in zstd, and real layers hold
# sparse files, so the ratio is judged only once this many bytes have come out.
RATIO_GRACE_BYTES = 64 * MIB
RATIO = 1100
ZSTD_WINDOW_BYTES = 128 * MIB
EMPTY_MEMBERS = 10_000  # gzip members or zstd frames in a row that hold nothing

TAR_HEADER_BYTES = MIB  # one PAX record block or GNU long name
TAR_ENTRIES = 10_000_000
PATH_BYTES = 4096
NAME_BYTES = 255
