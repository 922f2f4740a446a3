"""Signatures that cosign itself and containers/image have made, with the keys that they are by.

The bytes are those of github.com/containers/container-libs (Apache-2.0), image/signature/fixtures: its two
public keys, and the images `dir-img-cosign-valid`, `-valid-with-tag` and `-key-rekor-valid`.
"""

from __future__ import annotations

KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFNLqFhf4fiN6o/glAuYnq2jYUeL0
vRuLu/z39pmbVwS9ff5AYnlwaP9sxREajdLY9ynM6G1sy6AAmb7Z63TsLg==
-----END PUBLIC KEY-----
"""
MANIFEST = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{'
    b'"mediaType":"application/vnd.docker.container.image.v1+json","size":1512,"digest":"sha256:961769'
    b'676411f082461f9ef46626dd7a2d1e2b2a38e6a44364bcbecf51e66dd4"},"layers":[{"mediaType":"application'
    b'/vnd.docker.image.rootfs.diff.tar.gzip","size":2896510,"digest":"sha256:9d16cba9fb961d1aafec9542'
    b'f2bf7cb64acfc55245f9e4eb5abecd4cdc38d749"}]}'
)
BY_COSIGN = (
    (
        b'{"critical":{"identity":{"docker-reference":"192.168.64.2:5000/cosign-signed-single-sample"},"im'
        b'age":{"docker-manifest-digest":"sha256:634a8f35b5f16dcf4aaa0822adc0b1964bb786fca12f6831de8ddc45e'
        b'5986a00"},"type":"cosign container image signature"},"optional":null}'
    ),
    "MEYCIQDmtamqYPjMg81nqeBhptrPls44aA/r7PwLmspINJY4MwIhANKRpqe2E9UCBtGFdPoz/8jAbaQm4uP4h+IpwKTE6ClR",
)
BY_CONTAINERS_IMAGE = (
    (
        b'{"critical":{"identity":{"docker-reference":"192.168.64.2:5000/skopeo-signed:tag"},"image":{"doc'
        b'ker-manifest-digest":"sha256:634a8f35b5f16dcf4aaa0822adc0b1964bb786fca12f6831de8ddc45e5986a00"},'
        b'"type":"cosign container image signature"},"optional":{"creator":"containers/image 5.21.2-dev","'
        b'timestamp":1657296609}}'
    ),
    "MEUCIAhoI92AgO+sWjr6N+QjEDQE9Wwg1oaDDcaJIlALUqRlAiEA9+iphb/7b5T13Wy7KnlXMUM17uYTgEkUl97pu3GD/5M=",
)

LOGGED_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwOkOF9xpfG8ghueIhnZ66ooujwt1
+ReV3HupgKnGFYnEh3Hh1YTg5L6kN1Yakkt5WltRoav8/R3hpCtUO3Rldw==
-----END PUBLIC KEY-----
"""
LOGGED_DIGEST = "sha256:0489474da8ea22426ece86ace6c1c0026ab2fd3cdfbbd62b7e94650266c37d9a"
LOGGED = (
    (
        b'{"critical":{"identity":{"docker-reference":"192.168.64.2:5000/cosign-signed/key-1"},"image":{"d'
        b'ocker-manifest-digest":"sha256:0489474da8ea22426ece86ace6c1c0026ab2fd3cdfbbd62b7e94650266c37d9a"'
        b'},"type":"cosign container image signature"},"optional":null}'
    ),
    "MEUCIQClOJvH+5f5Gr+FLd1c+NS/a+TJQ+BDDoJcnlD0FKqI3AIgPVcMB5yb/JdtohCSzrxATJX6UcyWO+uAWO8Q7CNGnRQ=",
)
LOG_ENTRY = (
    '{"SignedEntryTimestamp":"MEYCIQCtP1W8YAJxuSNaiWKlVlJoDkXAoTgjZDlZ48ObheV5kgIhAItJ3MB9nU8qc+lf/IG'
    'azOQ/VgldK6MOX+I2YMPOMZOs","Payload":{"body":"eyJhcGlWZXJzaW9uIjoiMC4wLjEiLCJraW5kIjoiaGFzaGVkcm'
    "Vrb3JkIiwic3BlYyI6eyJkYXRhIjp7Imhhc2giOnsiYWxnb3JpdGhtIjoic2hhMjU2IiwidmFsdWUiOiI1ZjQxMDc3NDc2OW"
    "EyZWRkNGNkMWVlMzYwNzIyMjMwMThhYzkzNDk1Yzk2OGE0NDJkNDIwOGRhNWNhNzUzZjM3In19LCJzaWduYXR1cmUiOnsiY2"
    "9udGVudCI6Ik1FVUNJUUNsT0p2SCs1ZjVHcitGTGQxYytOUy9hK1RKUStCRERvSmNubEQwRktxSTNBSWdQVmNNQjV5Yi9KZH"
    "RvaENTenJ4QVRKWDZVY3lXTyt1QVdPOFE3Q05HblJRPSIsInB1YmxpY0tleSI6eyJjb250ZW50IjoiTFMwdExTMUNSVWRKVG"
    "lCUVZVSk1TVU1nUzBWWkxTMHRMUzBLVFVacmQwVjNXVWhMYjFwSmVtb3dRMEZSV1VsTGIxcEplbW93UkVGUlkwUlJaMEZGZD"
    "A5clQwWTVlSEJtUnpobmFIVmxTV2h1V2pZMmIyOTFhbmQwTVFvclVtVldNMGgxY0dkTGJrZEdXVzVGYUROSWFERlpWR2MxVE"
    "RaclRqRlpZV3RyZERWWGJIUlNiMkYyT0M5U00yaHdRM1JWVHpOU2JHUjNQVDBLTFMwdExTMUZUa1FnVUZWQ1RFbERJRXRGV1"
    'MwdExTMHRDZz09In19fX0=","integratedTime":1674251859,"logIndex":11608800,"logID":"c0d23d6ad406973'
    'f9559f3ba2d1ca01f84147d8ffc5b8445c224f98b9591801d"}}'
)
"""What a transparency log has said of `LOGGED`."""
