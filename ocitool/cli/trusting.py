"""Commands about what stands beside images, and who vouches for them: attach, fetch, sign, verify."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ocitool.cli.options import (
    FILE,
    asked,
    entry_option,
    format_option,
    jobs_option,
    pairs,
    source_date,
    wanted_platform,
    with_session,
)
from ocitool.cli.registries import changeable

if TYPE_CHECKING:
    from collections.abc import Callable

    from ocitool.content import Source
    from ocitool.locations import Location, Session
    from ocitool.model import Descriptor
    from ocitool.trust import File, Policy, Signature

_CREATED: Final = "org.opencontainers.image.created"
_PASSWORD: Final = "OCITOOL_KEY_PASSWORD"  # noqa: S105 - the name of a variable

verify_key_option = click.option(
    "--verify-key",
    "verify_keys",
    type=FILE,
    multiple=True,
    help="Take the image only if this public key (PEM) has signed it; with several, all of them.",
)
key_password_option = click.option(
    "--key-password-file",
    type=FILE,
    help=f"Read the key's password from this file. [${_PASSWORD}, or the terminal]",
)
_annotation_option = click.option(
    "--annotation",
    "annotations",
    multiple=True,
    metavar="NAME=VALUE",
    help="Say this of it, too; repeatable.",
)


def policy_of(verify_keys: tuple[Path, ...]) -> Policy | None:
    """Whose signatures an image needs that is to be used; None where it needs none."""
    if not verify_keys:
        return None
    from ocitool.trust import Policy, PublicKey

    return Policy(tuple(map(PublicKey.read, verify_keys)))


def resolved(source: Source, where: Location, policy: Policy | None) -> Descriptor:
    """What a location names, verified. Who goes on from here does not ask for the name again."""
    root = source.resolve(where.name)
    if policy:
        from ocitool.trust import verify

        verify(source, root, policy, name=_name(where))
    return root


def _name(where: Location) -> str:
    """An image's name as the names of its signatures are made of it."""
    from ocitool.locations import Kind

    return where.reference.tagged if where.kind is Kind.STORE and where.reference else where.name


@click.command(short_help="Put files beside an image, as an SBOM.")
@click.argument("location")
@click.argument("files", metavar="FILE[:MEDIATYPE]...", nargs=-1, required=True)
@click.option("--artifact-type", required=True, metavar="TYPE", help="What kind of artifact it is.")
@_annotation_option
@entry_option
@jobs_option
@with_session
def attach(
    session: Session,
    location: str,
    files: tuple[str, ...],
    *,
    artifact_type: str,
    annotations: tuple[str, ...],
    platform: str | None,
    jobs: int,
) -> None:
    """Put files beside an image, as an artifact that refers to it; print the artifact's digest.

    `ocitool referrers` lists what refers to an image, and `ocitool fetch` gets its files back. The same files
    give the same digest; a time is written down only with SOURCE_DATE_EPOCH in the environment.
    """
    from ocitool import console, trust
    from ocitool.locations import Location

    said = pairs(annotations)
    if created := source_date():
        said.setdefault(_CREATED, created.strftime("%Y-%m-%dT%H:%M:%SZ"))
    where = Location.parse(location)
    store = changeable(session, where)
    subject = _entry(store, store.resolve(where.name), platform)
    desc = trust.attach(
        store,
        subject,
        [_file(text) for text in files],
        artifact_type=artifact_type,
        annotations=said,
        jobs=jobs,
        on_event=session.on_event,
    )
    console.result(str(desc.digest))


def _entry(source: Source, root: Descriptor, platform: str | None) -> Descriptor:
    return wanted_platform(platform).under(source, root) if platform else root


def _file(text: str) -> File:
    """A file, and its type where the text ends in one: `sbom.json:application/spdx+json`."""
    from ocitool.trust import File

    path, _, media_type = text.rpartition(":")
    kind, slash, rest = media_type.partition("/")
    return File(Path(path), media_type) if path and kind and slash and rest else File(Path(text))


@click.command(short_help="Write the files of an artifact into a directory.")
@click.argument("location")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--artifact-type", metavar="TYPE", help="Of an image, take its one artifact of this type.")
@with_session
def fetch(session: Session, location: str, directory: Path, *, artifact_type: str | None) -> None:
    """Write the files of an artifact into a directory; print their paths.

    LOCATION names the artifact by its digest (`ocitool referrers` lists those of an image), or with
    --artifact-type the image that it refers to. No file that is there is replaced.
    """
    from ocitool import console, trust
    from ocitool.locations import Location

    where = Location.parse(location)
    source = session.source(where)
    desc = source.resolve(where.name)
    if artifact_type:
        desc = trust.artifact_of(source, desc, artifact_type)
    for path in trust.fetch(source, desc, directory, on_event=session.on_event):
        console.result_path(path)


@click.command(short_help="Sign an image with a key, as cosign does.")
@click.argument("location")
@click.option("--key", required=True, type=FILE, help="The private key (PEM): ECDSA P-256 or Ed25519.")
@key_password_option
@click.option("--identity", metavar="NAME", help="What the signature calls the image. [its repository]")
@_annotation_option
@click.option("--recursive", is_flag=True, help="Sign every manifest that an index lists as well.")
@entry_option
@with_session
def sign(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    location: str,
    *,
    key: Path,
    key_password_file: Path | None,
    identity: str | None,
    annotations: tuple[str, ...],
    recursive: bool,
    platform: str | None,
) -> None:
    """Sign an image with a key; print the digest that is signed.

    The signature goes where cosign keeps its own, under the tag `sha256-….sig`, beside those that are there.
    Of an index, the index itself is signed. Nothing is written to a transparency log.
    """
    from ocitool import console, trust
    from ocitool.locations import Location

    said = pairs(annotations)
    where = Location.parse(location)
    private = trust.PrivateKey.read(key, password_of(key_password_file))
    store = changeable(session, where)
    root = _entry(store, store.resolve(where.name), platform)
    signed = trust.sign(
        store,
        root,
        private,
        identity=identity or _identity(where),
        name=_name(where),
        annotations=said,
        recursive=recursive,
    )
    if not signed:
        console.say(f"{root.digest} is signed so already")
    for desc in signed:
        if desc != root:
            console.say(f"signed {desc.digest}")
    console.result(str(root.digest))


def password_of(file: Path | None) -> Callable[[], bytes]:
    """Who is asked for a key's password, if it takes one."""

    def password() -> bytes:
        from ocitool.errors import OciError

        if file:
            try:
                return file.read_bytes().removesuffix(b"\n").removesuffix(b"\r")
            except OSError as error:
                raise OciError(f"the password file {file} can't be read: {error.strerror}") from error
        given = os.environ.get(_PASSWORD)
        return (given or asked("Password of the key", "--key-password-file", hide_input=True)).encode()

    return password


def _identity(where: Location) -> str:
    """What an image is called where nobody says so: its repository, as other tools write it down."""
    from ocitool.digesttags import repository_of

    identity = where.reference.name if where.reference else repository_of(where.name)
    if not identity:
        raise click.UsageError(f"{where} names no repository: say with --identity what the image is called")
    return identity


@click.command(short_help="Say whether an image is signed by a key.")
@click.argument("location")
@click.option(
    "--key", "keys", required=True, multiple=True, type=FILE, help="The public key (PEM); repeatable."
)
@click.option("--all/--any", "every", default=True, help="Which of several keys it takes. [all]")
@click.option(
    "--annotation", "annotations", multiple=True, metavar="NAME=VALUE", help="Signatures have to say this."
)
@click.option("--identity", default="", metavar="NAME", help="Signatures have to call the image this.")
@entry_option
@format_option
@with_session
def verify(  # noqa: PLR0913 - one parameter for each option
    session: Session,
    location: str,
    *,
    keys: tuple[Path, ...],
    every: bool,
    annotations: tuple[str, ...],
    identity: str,
    platform: str | None,
    output: str,
) -> None:
    """Say whether an image is signed by a key; print the digest that is verified, to be used from then on.

    Of an index, the index itself has to be signed; --platform gives the digest of one of its manifests then.
    Read are cosign's signatures by keys, in the tag `sha256-….sig` and in bundles that refer to the image.
    Certificates and transparency logs are not looked at.
    """
    from ocitool import console, trust
    from ocitool.locations import Location

    policy = trust.Policy(
        tuple(map(trust.PublicKey.read, keys)), every=every, annotations=pairs(annotations), identity=identity
    )
    where = Location.parse(location)
    source = session.source(where)
    root = source.resolve(where.name)
    signatures = trust.verify(source, root, policy, name=_name(where))
    desc = _entry(source, root, platform)
    if output == "json":
        console.result_json(
            {
                "digest": str(desc.digest),
                "signed": str(root.digest),
                "signatures": [
                    {
                        "key": signature.key.name,
                        "keyId": signature.key.id,
                        "mediaType": signature.media_type,
                        "identity": signature.claims.identity,
                        "annotations": dict(signature.claims.annotations),
                    }
                    for signature in signatures
                ],
            }
        )
        return
    for signature in signatures:
        console.say(" ".join(_told(signature)))
    console.result(str(desc.digest))


def _told(signature: Signature) -> list[str]:
    claims = signature.claims
    named = [f"as {claims.identity}"] if claims.identity else []
    return [f"signed by {signature.key.name}", *named, *(f"{k}={v}" for k, v in claims.annotations.items())]


COMMANDS = (attach, fetch, sign, verify)
