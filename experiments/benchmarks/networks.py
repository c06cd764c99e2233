"""The networks that EfficientNetV2 is measured against, and what is published of them.

Top-1, hours (on 32 TPU v3 cores) and sizes are those of EfficientNetV2's paper (arXiv 2104.00298)
as far as it has them, and else of the networks' own: V1 (1905.11946), ResNet-RS (2103.07579), DeiT
(2012.12877) and ViT (2010.11929). V1 is trained at the size of its evaluation, as its paper says.
"""

import dataclasses

IMAGENET = 1_281_167
IMAGENET21K = 12_720_275
IMAGENET21K_OF_VIT = 14_197_122
"""All of it; EfficientNetV2's leaves a part out for validation."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A part of a training."""

    epochs: float
    sizes: tuple[int, ...]
    """Of the images, in stages of equal length."""
    images: int = IMAGENET


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A network as it was published."""

    key: str
    """Names it in results."""
    name: str
    """Of the model here."""
    timm: str
    family: str
    phases: tuple[Phase, ...]
    eval_size: int
    top1: float
    hours: float | None = None

    @property
    def timed_sizes(self) -> tuple[int, ...]:
        """Sizes at which training is timed; those between them follow."""
        ends = {size for phase in self.phases for size in (phase.sizes[0], phase.sizes[-1])}
        return tuple(sorted(ends))


def _v2(size: str, last: int, top1: float, hours: float | None, eval_size: int) -> Network:
    first = 128
    sizes = tuple(int(first + (last - first) * stage / 3) for stage in range(4))
    return Network(
        key=f"v2-{size}",
        name=f"efficientnetv2-{size}",
        timm=f"tf_efficientnetv2_{size}",
        family="EfficientNetV2",
        phases=(Phase(350, sizes),),
        eval_size=eval_size,
        top1=top1,
        hours=hours,
    )


def _v2_of_21k(size: str, fine_tuned: int, top1: float) -> Network:
    return dataclasses.replace(
        _v2(size, 380, top1, None, fine_tuned),
        key=f"v2-{size}-21k",
        family="EfficientNetV2, ImageNet21k",
        phases=(Phase(60, (224,), IMAGENET21K), Phase(15, (fine_tuned,))),
    )


def _v2_small(size: str, trained: int, eval_size: int, top1: float) -> Network:
    return dataclasses.replace(
        _v2(size, trained, top1, None, eval_size), phases=(Phase(350, (trained,)),)
    )


def _v1(size: str, pixels: int, top1: float, hours: float | None) -> Network:
    return Network(
        key=size,
        name=f"efficientnet-{size}",
        timm=f"tf_efficientnet_{size}",
        family="EfficientNet",
        phases=(Phase(350, (pixels,)),),
        eval_size=pixels,
        top1=top1,
        hours=hours,
    )


def _resnet(
    name: str, pixels: int, eval_size: int, top1: float, hours: float | None = None
) -> Network:
    return Network(
        key=f"{name}-{pixels}",
        name=name,
        timm=name,
        family="ResNet-RS" if "rs" in name else "ResNet",
        phases=(Phase(350, (pixels,)),),
        eval_size=eval_size,
        top1=top1,
        hours=hours,
    )


def _vit(
    key: str, timm: str, phases: tuple[Phase, ...], top1: float, hours: float | None = None
) -> Network:
    of_21k = phases[0].images > IMAGENET
    return Network(
        key=key,
        name=key.removesuffix("-21k"),
        timm=timm,
        family="ViT, ImageNet21k" if of_21k else "DeiT",
        phases=phases,
        eval_size=phases[-1].sizes[-1],
        top1=top1,
        hours=hours,
    )


_DEIT = Phase(300, (224,))
# 90 epochs of ImageNet21k at 224 pixels, then 20,000 steps of 512 images of ImageNet at 384.
_VIT = (Phase(90, (224,), IMAGENET21K_OF_VIT), Phase(20_000 * 512 / IMAGENET, (384,)))

NETWORKS = {
    each.key: each
    for each in (
        _v2("s", 300, 83.9, 7.1, 384),
        _v1("b5", 456, 83.7, 43),
        _v2("m", 380, 85.1, 13, 480),
        _v1("b7", 600, 84.7, 139),
        _resnet("resnetrs350", 288, 320, 84.2),
        _vit("vit-l16-384-21k", "vit_large_patch16_384", _VIT, 85.3, 172),
        _v2_of_21k("l", 480, 86.8),
        _v2_of_21k("xl", 512, 87.3),
        _v2("l", 380, 85.7, 24, 480),
        _resnet("resnet50", 224, 224, 78.1, 4.9),
        _vit("deit-s", "deit_small_patch16_224", (_DEIT,), 79.8),
        _v2_small("b3", 240, 300, 82.1),
        _v1("b4", 380, 82.9, 21),
        _resnet("resnetrs50", 160, 160, 78.8),
        _vit("deit-b", "deit_base_patch16_224", (_DEIT,), 81.8),
        _vit("deit-b-384", "deit_base_patch16_384", (_DEIT, Phase(30, (384,))), 83.1),
        _vit("vit-b16-384-21k", "vit_base_patch16_384", _VIT, 84.6),
        _v1("b3", 300, 81.5, 10),
        _resnet("resnetrs152", 256, 256, 83.0),
        _resnet("resnetrs420", 320, 320, 84.4, 61),
        _v1("b6", 528, 84.3, 75),
        _v2_small("b0", 192, 224, 78.7),
        _v2_small("b1", 192, 240, 79.8),
        _v2_small("b2", 208, 260, 80.5),
        _v1("b0", 224, 77.1, None),
        _v1("b1", 240, 79.1, None),
        _v1("b2", 260, 80.1, None),
        _resnet("resnetrs101", 192, 192, 81.2),
        _resnet("resnetrs200", 256, 256, 83.4),
        _resnet("resnetrs270", 256, 256, 83.8),
        _resnet("resnet50", 380, 380, 80.0, 14.3),
        _resnet("resnet152", 380, 380, 82.4, 15.5),
    )
}
"""By key, in the order in which they are measured: those of the paper's claims first."""
