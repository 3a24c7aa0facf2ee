"""What the window says of the models: sizes, states and progress in words for a person."""

from __future__ import annotations

from app.model_jobs import Doing, Job
from app.model_shelf import Inventory, NetworkRow, Presence, SizeRow
from engine.sizes import SIZES, Size, canonical
from engine.types import DEFAULT_WHISPER, EngineConfig

MB = 1e6
WHISPER_LICENSE = "MIT"
PROVIDERS = {"cpu": "the CPU", "cuda": "the GPU (CUDA)", "tensorrt": "the GPU (TensorRT)"}
ONLY_BASE = "The view of the noise around you works with Whisper base alone."


def megabytes(count: float) -> str:
    """Bytes as a person reads them."""
    mb = count / MB
    return f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB" if mb >= 10 else f"{mb:.1f} MB"


def duration(seconds: float) -> str:
    """How long something will take, about."""
    if seconds < 50:
        return f"{max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60) or 1} min"
    return f"{seconds / 3600:.1f} h"


def facts(size: Size) -> str:
    """What a size needs."""
    needs = f"{megabytes(size.disk_mb * MB)} on disk, about {megabytes(size.load_mb * MB)} of memory while it loads"
    if size.name.removesuffix(".en") == DEFAULT_WHISPER:
        pace = "the usual pace"
    elif size.slowdown < 1:
        pace = f"about {1 / size.slowdown:.0f} times faster than base, with many more errors"
    else:
        pace = f"about {size.slowdown:.0f} times slower than base, with fewer errors"
    slow = "" if size.live else "; too slow for live captions on most processors"
    return f"{needs}; {pace}{slow}" + ("; English alone" if size.english else "")


def state(row: SizeRow) -> str:
    """What is here of a size."""
    if row.presence is Presence.HERE:
        checked = (
            f"sha256 {row.sha256[:12]}… checked"
            if row.verified
            else f"unverified: its sha256 {row.sha256[:12]}… is in no list, its structure was checked"
        )
        license = f", {WHISPER_LICENSE}" if row.verified else ""
        return f"Here: {row.source}, {megabytes(row.done_bytes)}, {checked}{license}"
    if row.presence is Presence.UNFINISHED:
        return f"Paused: {megabytes(row.done_bytes)} of {megabytes(row.size.disk_mb * MB)} are here"
    if row.presence is Presence.DAMAGED:
        return f"Damaged, and not used: {row.path} has a wrong sha256. Remove it and get it again."
    return "Not on this machine"


def progress(job: Job) -> str:
    """How far a job has come."""
    if job.stopping:
        return "Stopping …"
    if not job.total:
        return f"{job.what[:1].upper()}{job.what[1:]} …"
    parts = [f"{megabytes(job.done)} of {megabytes(job.total)}"]
    if job.rate > 0:
        parts.append(f"{job.rate / MB:.1f} MB/s")
    if job.left_s is not None and job.left_s > 0:
        parts.append(f"{duration(job.left_s)} left")
    label = "" if job.what.startswith("downloading") else f"{job.what[:1].upper()}{job.what[1:]}: "
    return label + " · ".join(parts)


def brief(job: Job | None) -> str:
    """A job in the few words that a button has room for; empty where it is nobody's concern."""
    if job is None or job.doing not in (Doing.GET, Doing.IMPORT):
        return ""
    name = "Whisper" if job.doing is Doing.GET else "Import"
    return f"{name} {100 * job.done / job.total:.0f} %" if job.total else f"{name} …"


def finished(doing: Doing, name: str, config: EngineConfig) -> str:
    """The sentence after a job. config: what captions are asked for now."""
    then = "captions use it" if config.captions else "switch captions on to use it"
    if name != canonical(config.whisper):
        then = "choose Use to caption with it"
    return {
        Doing.GET: f"Whisper {name} is here and verified; {then}.",
        Doing.IMPORT: f"Whisper {name} is imported; {then}.",
        Doing.REMOVE: f"Whisper {name} is removed from this machine.",
        Doing.DISCARD: f"What was here of Whisper {name} is removed.",
        Doing.LOOK: "",
    }[doing]


def lacking(size: str, keys: str) -> str:
    """Why there are no captions, and what to do. keys: what opens the models, where there are any."""
    return f"Captions need Whisper {size}, which is not on this machine: get it under Models{keys and f' ({keys})'}."


def in_use(chosen: str, inventory: Inventory) -> str:
    """Which Whisper captions use."""
    row = inventory.row(canonical(chosen))
    if row is None:
        return f"Captions ask for Whisper {chosen}, which nobody knows; choose Use at another."
    if row.presence is not Presence.HERE:
        return f"Captions use Whisper {row.size.name}, which is not here yet: get it, or choose Use at another."
    return f"Captions use Whisper {row.size.name}." + ("" if row.size.name == DEFAULT_WHISPER else f" {ONLY_BASE}")


def chosen(config: EngineConfig) -> str:
    """The sentence after the size in it was chosen."""
    name = config.whisper
    when = "switch captions off and on to have it now" if config.captions else "from the next start of captions on"
    slow = ""
    if (size := SIZES.get(name)) is not None and not size.live:
        slow = " It is too slow for live captions on most processors: words may be left out."
    return f"Captions will use Whisper {name}; {when}.{slow}" + ("" if name == DEFAULT_WHISPER else f" {ONLY_BASE}")


def network(row: NetworkRow) -> str:
    """What there is to know of a sound network."""
    if row.problem:
        return row.problem
    return f"Ships with Sottovoce, {megabytes(row.size_bytes)}, sha256 {row.sha256[:12]}… checked, {row.license}"


def ancestors(row: NetworkRow) -> str:
    """What a sound network was made from."""
    return f"From {'; '.join(row.ancestors)}" if row.ancestors else "Made for Sottovoce, from no other network"


def machine(inventory: Inventory) -> str:
    """Where the sound networks run and why, and which codec they are."""
    if not inventory.provider:
        return f"They do not load: {inventory.why}"
    where = PROVIDERS.get(inventory.provider, inventory.provider)
    return f"They run on {where}: {inventory.why}. Codec {inventory.codec_id[:16]}."
