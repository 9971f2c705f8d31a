"""RefCOCO, RefCOCO+ and RefCOCOg: a phrase and a box in a COCO image, in the layout of `refer` or of MDETR.

    {annotations}/{dataset}/refs({split_by}).p (lichengunc/refer), a pickle of a list of
      {"sent_ids": [0, 1, 2], "file_name": "COCO_train2014_000000581857_16.jpg", "ann_id": 1719310, "ref_id": 0,
       "image_id": 581857, "split": "train", "category_id": 1, "sentences": [{"tokens": ["the", "lady", ...],
         "raw": "THE LADY WITH THE BLUE SHIRT", "sent_id": 0, "sent": "the lady with the blue shirt"}, ...]}
    and {annotations}/{dataset}/instances.json (COCO)
      {"images": [{"id": 581857, "width": 427, "height": 640, ...}],
       "annotations": [{"id": 1719310, "image_id": 581857, "bbox": [103.93, 299.99, 134.22, 177.42], ...}], ...}
    or {annotations}/finetune_{dataset}_{split}.json (ashkamath/mdetr), images and annotations in the same order
      {"images": [{"id": 0, "file_name": "COCO_train2014_000000581857.jpg", "width": 427, "height": 640,
                   "caption": "the lady with the blue shirt", "original_id": 581857, ...}],
       "annotations": [{"id": 0, "image_id": 0, "bbox": [103.93, 299.99, 134.22, 177.42], ...}], ...}

Splits: train, val, testA, testB (unc), train, val, test (umd), train, val (google). One sample for each sentence: task
`rec`, a clip of one frame, the box as xyxy, the image `{videos}/COCO_train2014_000000581857.jpg`. Traps: boxes are
(left, top, width, height) in pixels; `file_name` of refs carries a suffix that no image has; the pickle is from Python 2
and is read without running it; RefCOCOg's google split shares images between train and val. A box is cut to the
image, flagged "boxes_clipped".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from configs.sources import RefcocoSource
from data.annotated_boxes import clip_box, xywh_to_xyxy
from data.annotations import AnnotationError, FieldError, MissingFileError, RawRecord, Split, media_path, parse_raw, read_json
from data.raw_fields import FourPx, SidePx, Text
from data.sources.files import only_file
from data.sources.plain_pickle import read_plain_pickle
from data.sources.seconds import Sentence
from data.types import BoxPx, FrameSpan, GroundingSample

THE_IMAGE = FrameSpan(0, 1)


class Ref(RawRecord):
    """An object that people described; its sentences are checked one by one."""

    ann_id: int
    image_id: Annotated[int, Field(ge=0)]
    split: Text
    sentences: Annotated[list[Any], Field(min_length=1)]


class RefSentence(RawRecord):
    """One description. sent: `raw` in small letters, without punctuation."""

    sent_id: int
    sent: Sentence


class Image(RawRecord):
    """An image of instances.json."""

    width: SidePx
    height: SidePx


class CaptionedImage(Image):
    """An image of the MDETR form, which lists it once for each caption."""

    id: int
    file_name: Text
    caption: Sentence


class Annotation(RawRecord):
    """A box as (left, top, width, height); image_id: of its image."""

    image_id: int | None = None
    bbox: FourPx


@dataclass(frozen=True)
class Target:
    """What a sentence is about: a box in an image of this size."""

    width: int
    height: int
    box_xyxy_px: BoxPx
    is_clipped: bool


def load(config: RefcocoSource, split: str) -> Split:
    """All sentences of a split. Raises AnnotationError."""
    refs_name, mdetr_name = f"{config.dataset}/refs({config.split_by}).p", f"finetune_{config.dataset}_{split}.json"
    path = only_file(config.annotations, (refs_name, mdetr_name))
    return _read_mdetr(path, config, split) if path.name == mdetr_name else _read_refer(path, config, split)


def _read_refer(path: Path, config: RefcocoSource, split_name: str) -> Split:
    split, instances_path = Split(), path.with_name("instances.json")
    tree = read_json(instances_path, dict)
    images, annotations = _by_id(instances_path, tree, "images"), _by_id(instances_path, tree, "annotations")
    for index, raw in enumerate(read_plain_pickle(path, list)):
        if not _is_of_another_split(raw, split_name):
            with split.record(path, f"record {index}"):
                ref = parse_raw(Ref, raw)
                raw_image, raw_box = _find(images, ref.image_id, "image_id"), _find(annotations, ref.ann_id, "ann_id")
                with split.part(instances_path, f"image {ref.image_id}, annotation {ref.ann_id}"):
                    target = _target(parse_raw(Image, raw_image), parse_raw(Annotation, raw_box), ref.image_id)
                    _add_sentences(split, path, f"record {index}", ref, target, config)
    if not split.num_records:
        raise MissingFileError(path, f"no record of split {split_name!r}")
    return split


def _is_of_another_split(raw: Any, split_name: str) -> bool:
    """One file holds all splits; a record that does not say which is read, and fails."""
    return isinstance(raw, dict) and isinstance(raw.get("split"), str) and raw["split"] != split_name


def _by_id(path: Path, tree: dict[str, Any], key: str) -> dict[int, Any]:
    """The entries of a list that have an id; each is checked when a record asks for it. Raises AnnotationError."""
    entries = tree.get(key)
    if not isinstance(entries, list):
        raise AnnotationError(path, f"expected a list, found a {type(entries).__name__}", field=key)
    return {entry["id"]: entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), int)}


def _find(entries: dict[int, Any], entry_id: int, field: str) -> Any:
    if entry_id not in entries:
        raise FieldError(field, f"{entry_id} is not in instances.json")
    return entries[entry_id]


def _add_sentences(split: Split, path: Path, name: str, ref: Ref, target: Target, config: RefcocoSource) -> None:
    for number, raw in enumerate(ref.sentences):
        with split.part(path, f"{name}, sentence {number}"):
            sentence = parse_raw(RefSentence, raw)
            sample_id = f"{config.dataset}-{config.split_by}-{sentence.sent_id}"
            file_name = f"COCO_train2014_{ref.image_id:012d}.jpg"
            _add(split, config, target, sample_id=sample_id, query=sentence.sent, file_name=file_name)


def _read_mdetr(path: Path, config: RefcocoSource, split_name: str) -> Split:
    tree, split = read_json(path, dict), Split()
    images, annotations = _lists_of_one_length(path, tree, "images", "annotations")
    for index, (raw_image, raw_box) in enumerate(zip(images, annotations, strict=True)):
        with split.record(path, f"record {index}"):
            image = parse_raw(CaptionedImage, raw_image)
            target = _target(image, parse_raw(Annotation, raw_box), image.id)
            sample_id = f"{config.dataset}-{split_name}-{image.id}"
            _add(split, config, target, sample_id=sample_id, query=image.caption, file_name=image.file_name)
    return split


def _lists_of_one_length(path: Path, tree: dict[str, Any], *keys: str) -> list[list[Any]]:
    lists = [tree.get(key) for key in keys]
    lengths = {
        key: len(entries) if isinstance(entries, list) else None for key, entries in zip(keys, lists, strict=True)
    }
    if None in lengths.values() or len(set(lengths.values())) > 1:
        raise AnnotationError(path, f"expected lists of one length, got {lengths}", field=", ".join(keys))
    return [entries for entries in lists if isinstance(entries, list)]


def _target(image: Image, annotation: Annotation, image_id: int) -> Target:
    """Raises FieldError for a box of no size, or of which nothing is seen."""
    if annotation.image_id not in (None, image_id):
        raise FieldError("image_id", f"expected {image_id}, the image of the sentence, got {annotation.image_id}")
    if min(annotation.bbox[2:]) <= 0:
        raise FieldError("bbox", f"expected (left, top, width, height) of positive size, got {annotation.bbox}")
    whole = xywh_to_xyxy(annotation.bbox)
    box = clip_box(whole, width=image.width, height=image.height)
    if box is None:
        raise FieldError("bbox", f"{annotation.bbox} lies outside of the image of {image.width} x {image.height}")
    return Target(image.width, image.height, box, is_clipped=box != whole)


def _add(split: Split, config: RefcocoSource, target: Target, *, sample_id: str, query: str, file_name: str) -> None:
    sample = GroundingSample(
        sample_id=sample_id,
        task="rec",
        query=query,
        video_path=media_path(config.videos, file_name, field="file_name"),
        fps=1.0,
        width=target.width,
        height=target.height,
        clip=THE_IMAGE,
        span=THE_IMAGE,
        boxes_xyxy_px=(target.box_xyxy_px,),
        source=config.type,
    )
    split.add(sample, *(["boxes_clipped"] if target.is_clipped else []))
