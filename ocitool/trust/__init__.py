"""Trust: files and signatures beside images, and images that are used only where they are signed.

`attach` and `fetch` put files beside an image and get them back; `sign` signs it as cosign does with a key,
and `verify` says whether that was done by those who should have. Keys are all that is believed: certificates,
and the logs where they are written down, are not looked at.
"""

from ocitool.trust.attaching import File, attach
from ocitool.trust.claims import Claims, Policy, Signature
from ocitool.trust.fetching import artifact_of, fetch
from ocitool.trust.keys import PrivateKey, PublicKey
from ocitool.trust.signing import sign
from ocitool.trust.verification import verify

__all__ = [
    "Claims",
    "File",
    "Policy",
    "PrivateKey",
    "PublicKey",
    "Signature",
    "artifact_of",
    "attach",
    "fetch",
    "sign",
    "verify",
]
