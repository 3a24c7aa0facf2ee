"""Every package that training sound comes from: where it is had, what is taken from it, and under which licence.

What a package holds is told by readers (models/readers.py); this file is the table. Versions and hashes are pinned:
another content is refused, and the table is edited by hand after a look at what changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["speech", "background"]
Split = Literal["train", "validation"]
Channel = Literal["deb", "pypi", "npm"]

CLASSES = ("rain", "wind", "water", "fire", "nature", "crowd", "traffic", "machine", "music", "events", "hum", "noise", "babble")


@dataclass(frozen=True)
class Item:
    """One sound file that a reader found. `path` is inside the package; `file` is where it lies unpacked.

    `split` None leaves the choice to the file's own hash (one in ten to validation).
    """

    file: Path
    path: str
    kind: Kind
    speaker: str = ""
    class_name: str = ""
    transcript: str = ""
    split: Split | None = None


@dataclass(frozen=True)
class Package:
    """A package as its registry knows it, with the hash of the exact file we have looked at."""

    name: str
    channel: Channel
    version: str
    sha256: str
    size_bytes: int
    licence: str
    sdist: bool = False


@dataclass(frozen=True)
class Source:
    """One group of shards: a package, the packages its reader also looks into, and how it is read.

    `reader` names a function of models/readers.py; `options` are its keyword arguments.
    `music_minutes` caps the music taken, whole files.
    """

    package: Package
    reader: str
    options: dict[str, object] = field(default_factory=dict)
    companions: tuple[Package, ...] = ()
    minimal: bool = False
    music_minutes: float = 25.0

    @property
    def name(self) -> str:
        """The name that --only takes and that the shards carry."""
        return self.package.name


def _deb(name: str, version: str, size_bytes: int, sha256: str, licence: str) -> Package:
    return Package(name, "deb", version, sha256, size_bytes, licence)


_FILLETS = _deb(
    "fillets-ng-data",
    "1.0.1-1.1",
    70_633_484,
    "25de89afd8b1adf7bcace8290248a6a22c89cd42300317e69000e162c032cf84",
    "GPL-2",
)

# The order is the order of making: the core of speech and small backgrounds first, so that training can begin early.
SOURCES: tuple[Source, ...] = (
    Source(
        _deb("fillets-ng-data-cs", "1.0.1-1.1", 39_042_172, "3ecef99b9456f1c80c9625c6f2418642b52d58e7167a46bad7a412db17991b14", "GPL-2"),
        "fillets",
        {"language": "cs", "splits": {}, "other": "train"},
        companions=(_FILLETS,),
        minimal=True,
    ),
    Source(
        _deb("festvox-ru", "0.5+dfsg-6", 178_728_512, "21ef3f0f2978ecf2e2eddb367cb0ff4a72572196d28dc69feb84f4177af5e6c4", "BSD-like"),
        "festvox_ru",
        minimal=True,
    ),
    Source(
        _deb("fillets-ng-data-nl", "1.0.1-1.1", 32_593_580, "afb4443fda9ab507dee578b75be857d121718a1cd6017a474f30e0eb13dc9d10", "GPL-2"),
        "fillets",
        {"language": "nl", "splits": {"font_small": "train", "font_big": "validation"}, "other": None},
        companions=(_FILLETS,),
        minimal=True,
    ),
    Source(
        _deb("btanks-data", "0.9.8083-9", 26_408_548, "fbe1a476d95c68fe73d87715f4f0aecc1bc5428a979cd19451722665c9dbb5ae", "GPL-2+"),
        "background",
        minimal=True,
        music_minutes=10,
    ),
    Source(
        _deb("lincity-ng-data", "2.9~git20150314-5", 44_782_216, "8f5e85bd42879abdc7099b035d7a3d7468eceb6b93b52a12270c28f3f3c792f9", "GPL-2+"),
        "background",
        {"events": r"/sounds/"},
        minimal=True,
        music_minutes=10,
    ),
    Source(
        Package("ambience", "pypi", "1.1.0", "c7b9a557767e72c988af8f14ca909ea59561dee0224f52b9bf5f22e66a5fe8c5", 3_737_499, "MIT"),
        "background",
        {"include": r"sounds/nature/"},
        minimal=True,
    ),
    Source(
        _deb("minetest-data", "5.6.1+dfsg+~1.9.0mt8+dfsg-2", 3_646_524, "91371dd2bd51cfcd4fa60c138667989a47047dfe1a47f7523b9ad1782d397585", "LGPL-2.1+/CC-BY-SA-3.0"),
        "background",
        {"events": r"/sounds/"},
        minimal=True,
    ),
    Source(
        _deb("flare-game", "1.14-1", 122_515_912, "4ab6a8298276013d35a0806257e130d992761af1b749041433b409c3dafec508", "CC-BY-SA-3.0"),
        "background",
        {"include": r"/(environment|music)/"},
        minimal=True,
        music_minutes=15,
    ),
    Source(
        _deb("megaglest-data", "3.13.0-3", 242_024_888, "ed4783d9fc78e201a548b266f7c30325eb16cfd58a20bf4597dd6e622f84a07e", "CC-BY-SA-3.0"),
        "background",
        {"include": r"/(tilesets|music)/"},
        minimal=True,
        music_minutes=15,
    ),
    Source(
        _deb("tuxpaint-stamps-default", "2022.06.04-1", 160_880_444, "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34", "GPL-2"),
        "stamps",
        {"languages": {code: "train" for code in ("ro", "bg", "ru", "be", "fr")} | {"da": "validation", "el": "validation"}},
        minimal=True,
    ),
    Source(
        _deb("colobot-common-sounds", "0.2.0-2", 60_668_912, "819e799542eac69c95b072567b5584eb3e0b2bb900de13efa3684915747b1644", "GPL-3+/CC-BY-SA"),
        "background",
        {"include": r"/music/"},
        minimal=True,
        music_minutes=20,
    ),
    Source(
        _deb("supertux-data", "0.6.3-2", 161_647_984, "a6ad8865972f1dbb5e7b49f4e1b381dd16a68f3028a3502cfeaca2400285d27f", "GPL-2+/CC-BY-SA-3.0"),
        "background",
        {"include": r"/(music|sounds)/"},
        minimal=True,
        music_minutes=20,
    ),
    Source(
        _deb("etw-data", "3.6+svn162-6", 4_955_688, "d1c79c32f6223332c01eb23ba78531e8d9d663c1f057cd21d8aac708b8de218a", "GPL-2"),
        "background",
        {"include": r"crowd"},
        minimal=True,
    ),
    Source(
        _deb("widelands-data", "2:1.1-3", 381_353_540, "0e23d645b15bcfb9e3bcae0de9bc1bdfa75a6ecb36b2e449759d6eb0b4bbd8fb", "GPL-2+"),
        "background",
        {"include": r"/(music|sound)/", "events": r"/sound/"},
        music_minutes=20,
    ),
    Source(
        _deb("unknown-horizons", "2019.1-6", 248_491_344, "ff49ea196d0f57c80d4cd4509c030240cbe632881f8c5b2a1265dd3e3795f100", "GPL-2+/CC-BY-SA-3.0"),
        "background",
        {"include": r"/audio/(music|sounds/[^/]*$)"},
        music_minutes=20,
    ),
    Source(
        _deb("warmux-data", "1:11.04.1+repack2-4", 98_475_600, "cceec72afcc9d5b0515149eb505bf0d883bd47399e602b30a805cafa2d91eb70", "GPL-2+"),
        "background",
        {"include": r"/music/"},
        music_minutes=15,
    ),
    Source(
        _deb("plee-the-bear-data", "0.6.0-8", 32_419_480, "8f8dca242ce75621ea5d175711c05780c17bad6a52bcb9b58e917db6ae2f98d7", "GPL-2+/CC-BY-SA-3.0"),
        "background",
        {"include": r"/(music|sound/(forest|weather))/"},
        music_minutes=10,
    ),
    Source(
        _deb("freedroidrpg-data", "1.0-1", 228_309_836, "16c3cfeb82b1ec20c98493bbe1de2e356bd1aec832845630a5a7f12e303baa2b", "GPL-2+"),
        "background",
        {"include": r"/music/"},
        music_minutes=15,
    ),
    Source(
        _deb("torcs-data", "1.3.7+dfsg-5", 333_308_448, "33a170ec9db8bdf7e33cb07b96b9854d5ef9e47b1f82705e4c24d6caaf13fb99", "GPL-2+/FAL"),
        "background",
        {"include": r"/sound/", "force": "traffic"},
    ),
    Source(
        _deb("searchandrescue-data", "1.3.0-1.1", 46_517_968, "0036c09a92a90a2ce4ac3dde026bb90cc306cd1964f24749c0229926ff36d1d3", "GPL-2"),
        "background",
        {"include": r"/sounds/"},
    ),
    Source(
        _deb("oxygen-sounds", "4:5.27.5-2", 1_892_864, "2230772aea70fb6508a38eeb8fb29f56357d9e00751477fe1954057c41541960", "LGPL-3/CC-BY-SA-3.0"),
        "background",
        {"force": "events"},
    ),
    Source(
        _deb("ktuberling-data", "4:22.12.3-1", 46_661_752, "fba44c875bfa31ea488dadd9263e87a4dcaea0bd47d28817f6c0dc6d2af970ed", "GPL-2+/CC-BY-SA"),
        "words",
        {"pattern": r"/sounds/(?P<speaker>[^/]+)/", "skip": r"/sounds/(da|el)/"},
    ),
    Source(
        _deb("klettres-data", "4:22.12.3-1", 39_529_084, "1186d257a19e84230856baea0b0b1ded8be9195080fcdb2588970b5cd937f5a8", "GPL-2+/LGPL"),
        "words",
        {"pattern": r"/klettres/(?P<speaker>[^/]+)/(alpha|syllab)/", "skip": r"/klettres/(da|el|ml)/"},
    ),
    Source(
        _deb("gcin-voice", "0~20170223-3", 7_740_240, "6a0353f0294d06f7bd901bada3d5d9eec63b66c2ec029f92da3124d93d45de70", "GPL-3/LGPL-3/CC-BY-3.0"),
        "words",
        {"pattern": r"/(?P<speaker>3)\.ogg$"},
    ),
    Source(
        _deb("kajongg", "4:22.12.3-1", 4_713_320, "be0a9cc0f9a97064ffa0ab01133f55e021c7c58f9869857431bf1ca951dadbaf", "GPL-2+"),
        "words",
        {"pattern": r"/voices/(?P<speaker>(de/)?(fe)?male\d)/"},
    ),
    Source(
        _deb("qabcs-data", "1.0.2-6", 33_637_556, "3484da4cf258e6f3a39a1fc99bbfcaddfd679cff96a8fa792f261ab0a2bf9d86", "GPL-3+/PD"),
        "words",
        {"pattern": r"/abcs/(?P<speaker>[^/]+)/sounds/(alpha|words)/", "skip": r"/abcs/all/"},
    ),
    Source(
        _deb("hedgewars-data", "1.0.2-6", 145_330_284, "722225903a72604403e6e0026e40e9a6953f47a74d94efc5f55504bc05bb4761", "GFDL/GPL-2"),
        "hedgewars",
        {"validation": ("British", "Pirate", "Surfer", "Default_uk")},
        music_minutes=15,
    ),
)


def by_name(name: str) -> Source | None:
    """The source of that name, or None."""
    return next((s for s in SOURCES if s.name == name), None)


def packages(sources: tuple[Source, ...]) -> Iterator[Package]:
    """Every package that these sources need, each once."""
    seen: set[str] = set()
    for source in sources:
        for package in (source.package, *source.companions):
            if package.name not in seen:
                seen.add(package.name)
                yield package
