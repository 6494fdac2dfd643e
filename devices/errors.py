"""The exceptions of this package."""


class DeviceError(ValueError):
    """Devices or processes are not as asked for; the message names the fault and the way out."""

    exit_code = 2


class LostProcessError(RuntimeError):
    """Another process of the launch has not come, has failed, or is gone."""

    exit_code = 1
