"""The exceptions of this package."""


class DeviceError(ValueError):
    """Devices or processes are not as asked for; the message names the fault and the way out."""


class LostProcessError(RuntimeError):
    """Another process of the launch has not come, has failed, or is gone."""
