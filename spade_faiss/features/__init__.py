"""From images to a descriptor and a pyramid of patch features, by a pretrained network."""

from .backbone import (
    BACKBONES,
    DEFAULT_BACKBONE,
    Backbone,
    Features,
    check_device,
    check_name,
    device_of,
    devices_of,
    load_backbone,
)

__all__ = [
    "BACKBONES",
    "DEFAULT_BACKBONE",
    "Backbone",
    "Features",
    "check_device",
    "check_name",
    "device_of",
    "devices_of",
    "load_backbone",
]
