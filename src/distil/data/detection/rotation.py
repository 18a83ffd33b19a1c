"""The EXIF tag that says which side of a picture is up, and the size that boxes on it are for."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from distil.data.detection.inventory import Findings, numbered
from distil.data.picture_file import MOST_PIXELS, ORIENTATION, UPRIGHT
from distil.errors import DistilError

BATCH = 64
"""Headers that one thread reads at a time."""


@dataclass(frozen=True)
class Header:
    """What a picture's header says.

    size: height and width as stored. orientation: of the EXIF tag, 1 to 8; 1 is upright.
    """

    size: tuple[int, int]
    orientation: int

    @property
    def turned(self) -> tuple[int, int]:
        """Height and width once the picture is turned as its tag says."""
        return (self.size[1], self.size[0]) if self.orientation >= 5 else self.size


def orientation_of(image: Image.Image) -> int:
    """The orientation of an opened picture, 1 to 8; 1 where there is no tag, or one that cannot be read.

    The pixels are not decoded for it: the tag of a PNG counts where it stands before them, where it belongs.
    """
    try:
        found = Image.Image.getexif(image).get(ORIENTATION, 1)  # a PNG's own getexif would decode its pixels
    except Exception:  # broken EXIF raises anything, and the picture is good without
        return 1
    return found if found in UPRIGHT else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned upright."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def turn_back(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is stored, from one turned upright."""
    return turn(image, {6: 8, 8: 6}.get(orientation, orientation))


def read_headers(paths: Sequence[Path]) -> list[Header]:
    """The headers of pictures.

    Raises: DistilError that names a file which is missing, has no header that can be read, or is too large.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module=r"PIL\b")
        batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        return [
            header for headers in pool.map(lambda batch: [*map(_read_header, batch)], batches) for header in headers
        ]


def _read_header(path: Path) -> Header:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DistilError(
                    f"the image {path} has {image.width:,} x {image.height:,} pixels, and distil decodes pictures of "
                    f"at most {MOST_PIXELS // 10**6} megapixels. Make it smaller or leave it out."
                )
            return Header((image.height, image.width), orientation_of(image))
    except DistilError:
        raise
    except FileNotFoundError as error:
        raise DistilError(f"the image {path} is missing: put it there, or take it out of the annotations.") from error
    except Exception as error:  # decoders of broken files raise anything
        reason = str(error) or type(error).__name__
        raise DistilError(f"cannot read the image {path}: {reason}. Replace it or leave it out.") from error


def size_error(path: Path, found: tuple[int, int], size: tuple[int, int]) -> DistilError:
    """The error of a picture that has another size than its annotations are for. Sizes: height and width."""
    swapped = " Its width and height are swapped there." if found == size[::-1] and found != size else ""
    return DistilError(
        f"the image {path} has {found[1]} x {found[0]} pixels (width x height), but its annotations are for "
        f"{size[1]} x {size[0]}: use the image that was annotated, or mend width and height.{swapped}"
    )


def settled_sizes(
    paths: Sequence[Path], headers: Sequence[Header], annotated: Sequence[tuple[int, int] | None], findings: Findings
) -> list[tuple[int, int]]:
    """The height and width that the boxes of each picture are for: what was annotated, or else as it is stored.

    How pictures with a rotation tag are read is noted. annotated: height and width that the annotations tell, or None.

    Raises: DistilError if a picture has the annotated size neither as it is stored nor turned as its tag says.
    """
    sizes, turned, stored, untold = [], 0, 0, []
    for path, header, size in zip(paths, headers, annotated, strict=True):
        if size not in (None, header.size, header.turned):
            raise size_error(path, header.size, size)
        sizes.append(size or header.size)
        if header.orientation == 1:
            continue
        if size is None or header.size == header.turned:
            untold.append(path.name)
        elif size == header.turned:
            turned += 1
        else:
            stored += 1
    ways = []
    if turned:
        ways.append(
            f"{turned:,} turned as it says, because the annotated width and height are those of the turned picture"
        )
    if stored:
        ways.append(f"{stored:,} as stored, because the annotated width and height are those of the stored picture")
    if untold:
        ways.append(
            f"{len(untold):,} as stored ({', '.join(untold[:3])}), because nothing in the annotations tells on which "
            "way up the boxes were drawn: look at some with distil detector show, and save the pictures upright if "
            "they are wrong"
        )
    if ways:
        count = turned + stored + len(untold)
        findings.note(f"{numbered(count, 'picture')} with an EXIF rotation tag: {'; '.join(ways)}")
    return sizes


def turned_sizes(headers: Sequence[Header], findings: Findings) -> list[tuple[int, int]]:
    """The height and width of pictures turned as their tags say; how many have one is noted."""
    tagged = sum(header.orientation != 1 for header in headers)
    if tagged:
        findings.note(
            f"{numbered(tagged, 'picture')} with an EXIF rotation tag: turned as it says, as YOLO's readers do"
        )
    return [header.turned for header in headers]
