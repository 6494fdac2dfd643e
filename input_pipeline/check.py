"""How the `data` fields of a config go together, before anything is spent on them."""

from typing import Any

from input_pipeline.augment import crops_of
from input_pipeline.errors import DataError


def check_fields(data: Any) -> None:
    """Looks over how a config's `data` fields go together before anything is spent on them.

    Raises:
      DataError: a crop larger than the image, scales below the crop, a range whose ends are
        the wrong way round, or what contradicts another field; the message names the field.
    """
    chosen = data.augment
    padding = f" padded by data.pad={data.pad}" if data.pad else ""
    if data.crop > data.resize + 2 * data.pad:
        raise DataError(
            f"data.crop={data.crop} does not fit into data.resize={data.resize} pixels{padding}"
        )

    scales = chosen.scale_range
    if scales:
        if chosen.crop not in ("square", "image"):
            raise DataError(
                f"data.augment.scale_range has no meaning with data.augment.crop={chosen.crop}: "
                "--config.data.augment.scale_range=()"
            )
        if scales[0] > scales[1]:
            raise DataError(
                f"data.augment.scale_range={scales}: smallest and largest shorter side, "
                "such as (256,512)"
            )
        if scales[0] + 2 * data.pad < data.crop:
            raise DataError(
                f"data.augment.scale_range={scales}: the smallest is below "
                f"data.crop={data.crop}{padding}"
            )
    for field in ("area_range", "aspect_range"):
        smaller, larger = chosen[field]
        if smaller > larger:
            raise DataError(f"data.augment.{field}={(smaller, larger)}: the smaller first")
    if data.pad and (chosen.crop == "area" or chosen.crop == "image" or crops_of(data).distorts):
        raise DataError(
            f"data.pad={data.pad} goes with data.augment.crop=square or center and without "
            "distortion; for others --config.data.pad=0"
        )
    if data.mean == "image" and (chosen.crop in ("image", "area") or scales):
        raise DataError(
            "data.mean=image is the mean under each crop of the central square; with "
            f"data.augment.crop={chosen.crop}"
            + (" and scale_range" if scales else "")
            + " choose data.mean=image_center or channel"
        )
