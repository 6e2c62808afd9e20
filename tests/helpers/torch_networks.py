"""PyTorch networks with the names of torchvision, timm and others, for tests only.

They are written from the state dicts of these libraries: modules have the same names,
and functions compute what the papers say.
"""

import torch
import torch.nn.functional as F  # noqa: N812  (its customary name)
from torch import nn


class Flat(nn.Module):
    """Convolutions with ReLU and pooling, then dense layers: LeNets and ConvNets."""

    def __init__(
        self, convs: list[tuple[int, int, int, int]], dense: list[int], pool: list[int]
    ) -> None:
        """Takes inputs, outputs, size and padding of convolutions; sizes of layers."""
        super().__init__()
        self.pool, self.count = pool, len(convs)
        for i, (inputs, outputs, size, pad) in enumerate(convs, 1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, size, padding=pad))
        for i, (inputs, outputs) in enumerate(zip(dense, dense[1:], strict=False), 1):
            self.add_module(f"fc{i}", nn.Linear(inputs, outputs))
        self.dense = len(dense) - 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for i in range(1, self.count + 1):
            x = F.relu(self.get_submodule(f"conv{i}")(x))
            x = F.max_pool2d(x, 2) if i in self.pool else x
        x = x.flatten(1)
        for i in range(1, self.dense):
            x = F.relu(self.get_submodule(f"fc{i}")(x))
        return self.get_submodule(f"fc{self.dense}")(x)


def conv(i: int, o: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, size, stride, size // 2, groups=groups, bias=False)


class Residual(nn.Module):
    """A block of torchvision's ResNet."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = 4 * width if bottleneck else width
        if bottleneck:
            sizes = ((inputs, width, 1, 1), (width, width, 3, stride))
            sizes += ((width, outputs, 1, 1),)
        else:
            sizes = ((inputs, width, 3, stride), (width, width, 3, 1))
        self.count = len(sizes)
        for i, size in enumerate(sizes, 1):
            self.add_module(f"conv{i}", conv(*size))
            self.add_module(f"bn{i}", nn.BatchNorm2d(size[1]))
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for i in range(1, self.count + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = F.relu(y) if i < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """torchvision's ResNet of any widths and numbers of stages."""

    def __init__(self, widths: list[int], bottleneck: bool, stem: bool) -> None:
        super().__init__()
        self.stem, self.count = stem, len(widths)
        self.conv1 = conv(3, widths[0], 7, 2) if stem else conv(3, widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        inputs = widths[0]
        for i, width in enumerate(widths, 1):
            block = Residual(inputs, width, 1 if i == 1 else 2, bottleneck)
            self.add_module(f"layer{i}", nn.Sequential(block))
            inputs = 4 * width if bottleneck else width
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(x, 3, 2, 1) if self.stem else x
        for i in range(1, self.count + 1):
            x = self.get_submodule(f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


class WideBlock(nn.Module):
    """A block of xternalz's WideResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1, self.conv2 = (
            conv(inputs, outputs, 3, stride),
            conv(outputs, outputs, 3),
        )
        self.convShortcut = (
            conv(inputs, outputs, 1, stride) if inputs != outputs else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideResNet(nn.Module):
    """xternalz's WideResNet with one block in each stage."""

    def __init__(self, width: int, widen: int) -> None:
        super().__init__()
        self.conv1, inputs = conv(3, width, 3), width
        for i in range(3):
            outputs = width * widen * 2**i
            stage = nn.Module()
            stage.layer = nn.Sequential(WideBlock(inputs, outputs, 1 if i == 0 else 2))
            self.add_module(f"block{i + 1}", stage)
            inputs = outputs
        self.bn1, self.fc = nn.BatchNorm2d(inputs), nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        for i in range(1, 4):
            x = self.get_submodule(f"block{i}").layer(x)
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class VGG(nn.Module):
    """kuangliu's VGG with the average in place of the last max pooling."""

    def __init__(self, features: list[int | str], norm: bool) -> None:
        super().__init__()
        layers, inputs = [], 3
        for size in features:
            if size == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(inputs, size, 3, padding=1, bias=norm))
            layers += [nn.BatchNorm2d(size)] if norm else []
            layers.append(nn.ReLU())
            inputs = size
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class MobileV1(nn.Module):
    """kuangliu's MobileNet with blocks of outputs and strides."""

    def __init__(self, width: int, blocks: list[tuple[int, int]]) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv(3, width, 3), nn.BatchNorm2d(width)
        layers = []
        for outputs, stride in blocks:
            block = nn.Module()
            block.conv1 = conv(width, width, 3, stride, groups=width)
            block.bn1, block.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(outputs)
            block.conv2, width = conv(width, outputs, 1), outputs
            layers.append(block)
        self.layers, self.linear = nn.ModuleList(layers), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for block in self.layers:
            x = F.relu(block.bn1(block.conv1(x)))
            x = F.relu(block.bn2(block.conv2(x)))
        return self.linear(x.mean((2, 3)))


def unit(inputs: int, outputs: int, size: int, **options: int) -> nn.Sequential:
    return nn.Sequential(
        conv(inputs, outputs, size, **options), nn.BatchNorm2d(outputs), nn.ReLU6()
    )


class Inverted(nn.Module):
    """A block of torchvision's MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        layers = [unit(inputs, wide, 1)] if expand != 1 else []
        layers += [unit(wide, wide, 3, stride=stride, groups=wide)]
        layers += [conv(wide, outputs, 1), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileV2(nn.Module):
    """torchvision's MobileNetV2; blocks of outputs and strides."""

    def __init__(self, width: int, blocks: list[tuple[int, int]], last: int) -> None:
        super().__init__()
        layers = [unit(3, width, 3)]
        for i, (outputs, stride) in enumerate(blocks):
            layers.append(Inverted(width, outputs, stride, 1 if i == 0 else 2))
            width = outputs
        self.features = nn.Sequential(*layers, unit(width, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(last, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class ViT(nn.Module):
    """timm's vision transformer with one block."""

    def __init__(self, width: int, heads: int, patch: int, tokens: int) -> None:
        super().__init__()
        self.heads = heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens + 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        block = nn.Module()
        block.norm1, block.norm2 = (nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        block.attn, block.mlp = nn.Module(), nn.Module()
        block.attn.qkv = nn.Linear(width, 3 * width)
        block.attn.proj = nn.Linear(width, width)
        block.mlp.fc1 = nn.Linear(width, 4 * width)
        block.mlp.fc2 = nn.Linear(4 * width, width)
        self.blocks = nn.ModuleList([block])
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        b, t, c = x.shape
        for block in self.blocks:
            joint = block.attn.qkv(block.norm1(x)).reshape(b, t, 3, self.heads, -1)
            query, key, value = joint.permute(2, 0, 3, 1, 4)
            seen = F.scaled_dot_product_attention(query, key, value)
            x = x + block.attn.proj(seen.transpose(1, 2).reshape(b, t, c))
            x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        return self.head(self.norm(x)[:, 0])
