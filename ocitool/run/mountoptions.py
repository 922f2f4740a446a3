"""Mount options: the strings of config.json, and what each asks of the kernel (config.md).

One table serves the parser and the list that `features` prints, so that they cannot disagree.
"""

from __future__ import annotations

from .kernel import (
    ATTR_ATIME,
    ATTR_NOATIME,
    ATTR_NODEV,
    ATTR_NODIRATIME,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_NOSYMFOLLOW,
    ATTR_RDONLY,
    ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    MS_UNBINDABLE,
)

# name: (attributes to set, attributes to clear). Each also has a recursive form, with "r" before it.
ATTRIBUTES = {
    "ro": (ATTR_RDONLY, 0),
    "rw": (0, ATTR_RDONLY),
    "nosuid": (ATTR_NOSUID, 0),
    "suid": (0, ATTR_NOSUID),
    "nodev": (ATTR_NODEV, 0),
    "dev": (0, ATTR_NODEV),
    "noexec": (ATTR_NOEXEC, 0),
    "exec": (0, ATTR_NOEXEC),
    "nodiratime": (ATTR_NODIRATIME, 0),
    "diratime": (0, ATTR_NODIRATIME),
    "noatime": (ATTR_NOATIME, ATTR_ATIME),
    "atime": (0, ATTR_ATIME),
    "relatime": (0, ATTR_ATIME),
    "norelatime": (0, ATTR_ATIME),
    "strictatime": (ATTR_STRICTATIME, ATTR_ATIME),
    "nostrictatime": (0, ATTR_ATIME),
    "nosymfollow": (ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, ATTR_NOSYMFOLLOW),
}
RECURSIVE = {"r" + name: pair for name, pair in ATTRIBUTES.items()}
PROPAGATION = {
    "private": MS_PRIVATE,
    "shared": MS_SHARED,
    "slave": MS_SLAVE,
    "unbindable": MS_UNBINDABLE,
    "rprivate": MS_PRIVATE | MS_REC,
    "rshared": MS_SHARED | MS_REC,
    "rslave": MS_SLAVE | MS_REC,
    "runbindable": MS_UNBINDABLE | MS_REC,
}
# Flags of the file system itself; "" is a default that needs no call.
FILE_SYSTEM = {
    "async": "async", "sync": "sync", "dirsync": "dirsync", "iversion": "iversion", "noiversion": "",
    "lazytime": "lazytime", "nolazytime": "nolazytime", "mand": "mand", "nomand": "nomand",
    "silent": "silent", "loud": "", "defaults": "", "remount": "",
}  # fmt: skip
OTHERS = ("bind", "rbind", "tmpcopyup", "idmap", "ridmap")


def names() -> list[str]:
    """Every option that is known by name, sorted (features.md, `mountOptions`)."""
    return sorted([*ATTRIBUTES, *RECURSIVE, *PROPAGATION, *FILE_SYSTEM, *OTHERS])


class Options:
    """The options of one mount, sorted by what they are for.

    Attributes:
        bind: whether it is a bind mount; `recursive`: with what is mounted below the source.
        set_, clear: attributes of the mount itself; `set_below`, `clear_below`: of all below as well.
        propagation: changes of propagation, in order.
        file_system: flags and data for the file system, in order.
        copy_up: fill the tmpfs with what the directory below it holds.
        idmap: "", "idmap" or "ridmap".
    """

    def __init__(self, words: list[str]) -> None:
        self.bind = self.recursive = self.copy_up = False
        self.set_ = self.clear = self.set_below = self.clear_below = 0
        self.propagation: list[int] = []
        self.file_system: list[str] = []
        self.idmap = ""
        for word in words:
            self._take(word)

    @property
    def shared(self) -> bool:
        """Whether what is mounted below it is to be seen by its peers, and the other way round."""
        return any(change & MS_SHARED for change in self.propagation[-1:])

    def _take(self, word: str) -> None:
        if word in ATTRIBUTES:
            set_, clear = ATTRIBUTES[word]
            # The later of two contradicting options wins.
            self.set_, self.clear = self.set_ & ~clear | set_, self.clear & ~set_ | clear
        elif word in RECURSIVE:
            set_, clear = RECURSIVE[word]
            self.set_below = self.set_below & ~clear | set_
            self.clear_below = self.clear_below & ~set_ | clear
        elif word in PROPAGATION:
            self.propagation.append(PROPAGATION[word])
        elif word in FILE_SYSTEM:
            if FILE_SYSTEM[word]:
                self.file_system.append(FILE_SYSTEM[word])
        elif word in ("bind", "rbind"):
            self.bind = True
            self.recursive = self.recursive or word == "rbind"
        elif word == "tmpcopyup":
            self.copy_up = True
        elif word in ("idmap", "ridmap"):
            self.idmap = word
        else:
            # "Runtimes SHOULD treat unknown options as filesystem-specific ones."
            self.file_system.append(word)
