"""The networks of `vision_models` in PyTorch, for comparison: eager modules, written plainly.

Shapes, parameters and multiply-adds are those of `vision_models` (a test counts them). Everything
else is written as a PyTorch user would write it.
"""

import itertools
from typing import Any

from benchmarks.layers import TORCH_LRN

# GoogLeNet's modules (Table 1), and those that a pool and an auxiliary classifier follow. Repeated
# for the reason that TORCH_LRN has: memory is the whole process's, and our networks import JAX.
INCEPTION = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
POOLED = ("inception_3b", "inception_4e")
AUXILIARY = ("inception_4a", "inception_4d")


def make(name: str, num_classes: int) -> Any:
    """A `torch.nn.Module` in training mode, float32.

    Its `forward` returns logits [n, classes]. In training, that of GoogLeNet returns a list: the
    main logits, then those of the auxiliary classifiers.

    Raises:
      KeyError: the network has no counterpart here.
    """
    return _NETWORKS[name](num_classes)


def _alexnet(num_classes: int) -> Any:
    """AlexNet: two towers as grouped convolutions; response normalisation across both."""
    from torch import nn

    def lrn() -> Any:
        return nn.LocalResponseNorm(**TORCH_LRN)

    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4, padding=2),
        nn.ReLU(inplace=True),
        lrn(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(inplace=True),
        lrn(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(256 * 6 * 6, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(4096, num_classes),
    )


def _vgg_d(num_classes: int) -> Any:
    from torch import nn

    layers: list[Any] = []
    in_maps = 3
    for maps, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(in_maps, maps, 3, padding=1), nn.ReLU(inplace=True)]
            in_maps = maps
        layers.append(nn.MaxPool2d(2, 2))
    layers.append(nn.Flatten())
    for features in (512 * 7 * 7, 4096):
        layers += [nn.Linear(features, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(4096, num_classes))


def _googlenet(num_classes: int) -> Any:
    """GoogLeNet as in the paper: response normalisation and two auxiliary classifiers."""
    import torch
    from torch import nn

    def conv(in_maps: int, maps: int, window: int, stride: int = 1) -> Any:
        return nn.Sequential(
            nn.Conv2d(in_maps, maps, window, stride, padding=window // 2), nn.ReLU(inplace=True)
        )

    def lrn() -> Any:
        return nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0)

    def pool() -> Any:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    class Inception(nn.Module):
        def __init__(self, in_maps: int, maps: tuple[int, ...]) -> None:
            super().__init__()
            one, reduce3, three, reduce5, five, projection = maps
            self.branches = nn.ModuleList(
                [
                    conv(in_maps, one, 1),
                    nn.Sequential(conv(in_maps, reduce3, 1), conv(reduce3, three, 3)),
                    nn.Sequential(conv(in_maps, reduce5, 1), conv(reduce5, five, 5)),
                    nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv(in_maps, projection, 1)),
                ]
            )

        def forward(self, x: Any) -> Any:
            return torch.cat([branch(x) for branch in self.branches], 1)

    class GoogLeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(
                conv(3, 64, 7, 2), pool(), lrn(),
                conv(64, 64, 1), conv(64, 192, 3), lrn(), pool(),
            )  # fmt: skip
            self.stages, self.pools = nn.ModuleDict(), nn.ModuleDict()
            self.auxiliary = nn.ModuleDict()
            in_maps = 192
            for name, maps in INCEPTION.items():
                self.stages[name] = Inception(in_maps, maps)
                in_maps = maps[0] + maps[2] + maps[4] + maps[5]
                if name in AUXILIARY:
                    self.auxiliary[name] = nn.Sequential(
                        nn.AvgPool2d(5, 3), conv(in_maps, 128, 1), nn.Flatten(),
                        nn.Linear(128 * 4 * 4, 1024), nn.ReLU(inplace=True), nn.Dropout(0.7),
                        nn.Linear(1024, num_classes),
                    )  # fmt: skip
                if name in POOLED:
                    self.pools[name] = pool()
            self.head = nn.Sequential(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1024, num_classes)
            )

        def forward(self, x: Any) -> Any:
            x, auxiliary_logits = self.stem(x), []
            for name, stage in self.stages.items():
                x = stage(x)
                if self.training and name in self.auxiliary:
                    auxiliary_logits.append(self.auxiliary[name](x))
                if name in self.pools:
                    x = self.pools[name](x)
            logits = self.head(x)
            return [logits, *auxiliary_logits] if self.training else logits

    return GoogLeNet()


def _resnet50(num_classes: int) -> Any:
    """ResNet-50 with the stride in the first 1x1 convolution of a block, as in the paper."""
    import torch
    from torch import nn

    def conv(in_maps: int, maps: int, window: int, stride: int = 1) -> list[Any]:
        return [
            nn.Conv2d(in_maps, maps, window, stride, padding=window // 2, bias=False),
            nn.BatchNorm2d(maps),
        ]

    class Block(nn.Module):
        def __init__(self, in_maps: int, maps: int, stride: int) -> None:
            super().__init__()
            self.residual = nn.Sequential(
                *conv(in_maps, maps, 1, stride), nn.ReLU(inplace=True),
                *conv(maps, maps, 3), nn.ReLU(inplace=True),
                *conv(maps, 4 * maps, 1),
            )  # fmt: skip
            same = in_maps == 4 * maps
            self.shortcut = (
                nn.Identity() if same else nn.Sequential(*conv(in_maps, 4 * maps, 1, stride))
            )

        def forward(self, x: Any) -> Any:
            return torch.relu(self.residual(x) + self.shortcut(x))

    layers: list[Any] = [
        *conv(3, 64, 7, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
    ]
    in_maps = 64
    for stage, (maps, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(count):
            layers.append(Block(in_maps, maps, 2 if stage and not block else 1))
            in_maps = 4 * maps
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, num_classes)
    )


def _cifar10_four_layer(num_classes: int) -> Any:
    """cuda-convnet's network of four layers for CIFAR-10."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, num_classes),
    )


def resnet20(num_classes: int, norm: Any = None) -> Any:
    """ResNet-20 for CIFAR-10, with shortcuts of option A; class `norm` replaces BatchNorm2d."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    norm = norm or nn.BatchNorm2d

    class Block(nn.Module):
        def __init__(self, in_maps: int, maps: int) -> None:
            super().__init__()
            self.stride, self.pad_maps = (1, 0) if in_maps == maps else (2, (maps - in_maps) // 2)
            self.residual = nn.Sequential(
                nn.Conv2d(in_maps, maps, 3, self.stride, 1, bias=False),
                norm(maps),
                nn.ReLU(inplace=True),
                nn.Conv2d(maps, maps, 3, 1, 1, bias=False),
                norm(maps),
            )

        def forward(self, x: Any) -> Any:
            shortcut = x
            if self.pad_maps:
                pads = (0, 0, 0, 0, self.pad_maps, self.pad_maps)
                shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], pads)
            return torch.relu(self.residual(x) + shortcut)

    widths = [16] * 4 + [32] * 3 + [64] * 3
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        norm(16),
        nn.ReLU(inplace=True),
        *(Block(in_maps, maps) for in_maps, maps in itertools.pairwise(widths)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_classes),
    )


_NETWORKS = {
    "alexnet": _alexnet,
    "vgg_d": _vgg_d,
    "googlenet": _googlenet,
    "resnet50": _resnet50,
    "cifar10_four_layer": _cifar10_four_layer,
    "resnet20": resnet20,
}
