"""Architectures of timm and torchvision in small configurations."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.zoo.subject import Subject, images


def _timm(module: str, name: str, *args: Any, size: int = 64, **options: Any) -> Subject:
    """A class of ``timm.models.module``."""

    def make() -> nn.Module:
        found = importlib.import_module(f"timm.models.{module}")
        called = {
            k: v() if callable(v) and k in ("cfg", "block") else v for k, v in options.items()
        }
        network: nn.Module = getattr(found, name)(*args, num_classes=10, **called)
        return network

    return Subject(make, images(size))


def _named(name: str, size: int = 64, **options: Any) -> Subject:
    """What ``timm.create_model`` makes."""

    def make() -> nn.Module:
        import timm

        network: nn.Module = timm.create_model(name, num_classes=10, **options)
        return network

    return Subject(make, images(size))


def _vision(path: str, size: int = 64, **options: Any) -> Subject:
    """A function of ``torchvision.models``, without weights."""

    def make() -> nn.Module:
        module, _, name = f"torchvision.models.{path}".rpartition(".")
        network: nn.Module = getattr(importlib.import_module(module), name)(weights=None, **options)
        return network

    return Subject(make, images(size))


def _of(module: str, name: str, **fields: Any) -> Any:
    """A configuration of ``timm.models.module``, made when it is needed."""
    return lambda: getattr(importlib.import_module(f"timm.models.{module}"), name)(**fields)


def _resnet(block: str, layers: tuple[int, ...]) -> Subject:
    def make() -> nn.Module:
        from timm.models import resnet

        return resnet.ResNet(
            getattr(resnet, block), layers, num_classes=10, channels=(16, 32, 64, 128),
            stem_width=16, base_width=64,
        )  # fmt: skip

    return Subject(make, images(64))


def _nfnet() -> nn.Module:
    from timm.models import nfnet

    cfg = nfnet.NfCfg(depths=(1, 1, 1, 1), channels=(32, 32, 64, 64), stem_chs=16, num_features=64)
    return nfnet.NormFreeNet(cfg, num_classes=10)


def _efficientnet(padding: str) -> nn.Module:
    from timm.models import _efficientnet_builder, efficientnet

    stages = ["ds_r1_k3_s1_e1_c8_se0.25", "ir_r2_k3_s2_e4_c16_se0.25", "ir_r2_k5_s2_e4_c24_se0.25"]
    decoded = _efficientnet_builder.decode_arch_def([[stage] for stage in stages])
    return efficientnet.EfficientNet(
        decoded, num_classes=10, num_features=64, stem_size=16, pad_type=padding
    )


def _mixer(block: str, norm: str) -> nn.Module:
    from timm.layers import GatedMlp, Mlp
    from timm.models import mlp_mixer

    gated = block == "SpatialGatingBlock"
    return mlp_mixer.MlpMixer(
        num_classes=10, img_size=64, patch_size=16, num_blocks=3, embed_dim=48, mlp_ratio=4,
        block_layer=getattr(mlp_mixer, block), mlp_layer=GatedMlp if gated else Mlp,
        norm_layer=mlp_mixer.Affine if norm == "Affine" else nn.LayerNorm,
    )  # fmt: skip


def _regnet(se: float) -> nn.Module:
    from timm.models import regnet

    cfg = regnet.RegNetCfg(
        w0=24, wa=24.0, wm=2.0, group_size=8, depth=6, stem_width=16, se_ratio=se
    )
    return regnet.RegNet(cfg, num_classes=10)


def _bit() -> nn.Module:
    from timm.layers import GroupNormAct
    from timm.models import resnetv2

    return resnetv2.ResNetV2(
        [1, 1, 1, 1], channels=(32, 64, 64, 128), num_classes=10, stem_chs=16,
        norm_layer=partial(GroupNormAct, num_groups=4),
    )  # fmt: skip


def _maxxvit(blocks: tuple[str, ...]) -> nn.Module:
    from timm.models import maxxvit

    window = maxxvit.MaxxVitTransformerCfg(dim_head=16, window_size=(2, 2), grid_size=(2, 2))
    cfg = maxxvit.MaxxVitCfg(
        embed_dim=(16, 32, 48, 64), depths=(1, 1, 1, 1), block_type=blocks, stem_width=16,
        transformer_cfg=window,
    )  # fmt: skip
    return maxxvit.MaxxVit(cfg, img_size=64, num_classes=10)


def _vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(64, 16, 3, 3, 48, 96, num_classes=10)


def _fcn() -> nn.Module:
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    backbone = IntermediateLayerGetter(ResNet(BasicBlock, [1, 1, 1, 1]), {"layer2": "out"})
    return FCN(backbone, FCNHead(128, 5))


def _deeplab() -> nn.Module:
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.resnet import BasicBlock, ResNet
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead, DeepLabV3

    backbone = IntermediateLayerGetter(ResNet(BasicBlock, [1, 1, 1, 1]), {"layer1": "out"})
    return DeepLabV3(backbone, DeepLabHead(64, 5, (2, 4)))


def _detector(make: Any) -> Subject:
    def draw(generator: torch.Generator, count: int) -> tuple[tuple[list[Tensor]], dict[str, Any]]:
        return ([*torch.rand(count // 4, 3, 96, 96, generator=generator)],), {}

    return Subject(make, draw, _detections)


def _detections(dense: list[dict[str, Tensor]], sparse: list[dict[str, Tensor]]) -> Tensor:
    """How far the scores of all that is detected differ in sum, for every image."""
    pairs = zip(dense, sparse, strict=True)
    return torch.stack([(a["scores"].sum() - b["scores"].sum()).square() for a, b in pairs])


def _faster_rcnn() -> nn.Module:
    from torchvision.models import mobilenet_v3_small
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    backbone: Any = mobilenet_v3_small(weights=None, width_mult=0.35).features
    anchors = AnchorGenerator(sizes=((16, 32),), aspect_ratios=((0.5, 1.0),))
    pool = MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=1)
    backbone.out_channels = next(
        m.num_features for m in reversed(list(backbone.modules())) if isinstance(m, nn.BatchNorm2d)
    )
    head = TwoMLPHead(9 * backbone.out_channels, 64)
    return FasterRCNN(
        backbone, box_head=head, box_predictor=FastRCNNPredictor(64, 4),
        rpn_anchor_generator=anchors, box_roi_pool=pool, min_size=96,
        max_size=96, rpn_post_nms_top_n_test=20, box_detections_per_img=5,
    )  # fmt: skip


def _ssdlite() -> nn.Module:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)


_VIT = {"img_size": 64, "patch_size": 16, "embed_dim": 48, "depth": 3, "num_heads": 3}
_TINY = {"img_size": 64, "patch_size": 16, "num_blocks": 3}
_CFG = [16, "M", 32, "M", 64, 64, "M", 64, "M"]
_GHOST = [
    [[3, 16, 16, 0, 1]],
    [[3, 48, 24, 0, 2]],
    [[5, 72, 40, 0.25, 2]],
    [[5, 120, 80, 0.25, 2]],
]

SUBJECTS: dict[str, Subject] = {
    "timm ResNet-18": _resnet("BasicBlock", (2, 2, 2, 2)),
    "timm ResNet-50": _resnet("Bottleneck", (3, 4, 6, 3)),
    "timm VGG-BN": _timm("vgg", "VGG", _CFG, norm_layer=nn.BatchNorm2d, mlp_ratio=0.02),
    "timm DenseNet": _timm("densenet", "DenseNet", 8, (3, 4, 4, 3)),
    "timm MobileNetV2": _named("mobilenetv2_035"),
    "timm MobileNetV3": _named("mobilenetv3_small_050"),
    "timm EfficientNet": Subject(partial(_efficientnet, ""), images(64)),
    "timm tf_efficientnet (SAME)": Subject(partial(_efficientnet, "same"), images(64)),
    "timm tf_mobilenetv3 (SAME)": _named("tf_mobilenetv3_small_minimal_100"),
    "timm RegNetX": Subject(partial(_regnet, 0.0), images(64)),
    "timm RegNetY": Subject(partial(_regnet, 0.25), images(64)),
    "timm ConvNeXt": _timm("convnext", "ConvNeXt", depths=(1, 1, 2, 1), dims=(16, 32, 48, 64)),
    "timm ConvNeXt V2": _timm(
        "convnext", "ConvNeXt", depths=(1, 1, 2, 1), dims=(16, 32, 48, 64), use_grn=True,
        ls_init_value=None,
    ),
    "timm NFNet (weight standardisation)": Subject(_nfnet, images(64)),
    "timm BiT (weight standardisation)": Subject(_bit, images(64)),
    "timm ViT": _timm("vision_transformer", "VisionTransformer", **_VIT),
    "timm ViT, registers and qk-norm": _timm(
        "vision_transformer", "VisionTransformer", **_VIT, reg_tokens=2, qk_norm=True,
        init_values=0.1, global_pool="map", class_token=False,
    ),
    "timm DeiT, distilled": _timm("deit", "VisionTransformerDistilled", **_VIT),
    "timm Swin": _timm(
        "swin_transformer", "SwinTransformer", img_size=64, patch_size=4, embed_dim=24,
        depths=(2, 2), num_heads=(2, 4), window_size=4,
    ),
    "timm Swin V2": _timm(
        "swin_transformer_v2", "SwinTransformerV2", img_size=64, patch_size=4, embed_dim=24,
        depths=(2, 2), num_heads=(2, 4), window_size=4,
    ),
    "timm EVA-02": _timm(
        "eva", "Eva", **_VIT, qkv_fused=False, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True
    ),
    "timm BEiT": _timm("beit", "Beit", **_VIT, use_rel_pos_bias=True, init_values=0.1),
    "timm MaxViT": Subject(partial(_maxxvit, ("M", "M", "M", "M")), images(64)),
    "timm CoAtNet": Subject(partial(_maxxvit, ("C", "C", "T", "T")), images(64)),
    "timm MLP-Mixer": _timm("mlp_mixer", "MlpMixer", **_TINY, embed_dim=48),
    "timm ResMLP": Subject(partial(_mixer, "ResBlock", "Affine"), images(64)),
    "timm PoolFormer": _timm(
        "metaformer", "MetaFormer", depths=(1, 1, 2, 1), dims=(16, 32, 48, 64),
        layer_scale_init_values=0.1,
    ),
    "timm GhostNet": _timm("ghostnet", "GhostNet", _GHOST, width=0.5),
    "timm Inception v3": _named("inception_v3", size=96),
    "timm DLA": _named("dla46x_c"),
    "timm RepVGG": _named("repvgg_a0"),
    "timm LeViT": _timm(
        "levit", "Levit", img_size=64, embed_dim=(32, 48, 64), key_dim=8, depth=(1, 1, 1),
        num_heads=(2, 3, 4),
    ),
    "timm PVT v2": _timm(
        "pvt_v2", "PyramidVisionTransformerV2", depths=(1, 1, 1, 1), embed_dims=(16, 32, 48, 64),
        num_heads=(1, 2, 4, 4),
    ),
    "timm EdgeNeXt": _named("edgenext_xx_small"),
    "timm FastViT": _timm(
        "fastvit", "FastVit", layers=(1, 1, 1, 1), embed_dims=(16, 32, 64, 128),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
        down_patch_size=7, down_stride=2,
    ),
    "timm XCiT": _timm(
        "xcit", "Xcit", img_size=64, patch_size=16, embed_dim=48, depth=2, num_heads=4
    ),
    "timm Twins": _timm(
        "twins", "Twins", img_size=64, embed_dims=(16, 32, 48, 64), depths=(1, 1, 1, 1),
        num_heads=(1, 2, 2, 4), wss=(2, 2, 2, 2),
    ),
    "timm CaiT": _timm(
        "cait", "Cait", **_VIT, depth_token_only=1
    ),
    "timm ConvMixer": _timm("convmixer", "ConvMixer", 48, 3),
    "timm gMLP": Subject(partial(_mixer, "SpatialGatingBlock", "LayerNorm"), images(64)),
    "torchvision GoogLeNet": _vision(
        "googlenet", 64, aux_logits=False, init_weights=False, num_classes=10
    ),
    "torchvision SqueezeNet": _vision("squeezenet1_1", num_classes=10),
    "torchvision ShuffleNet V2": _vision("shufflenet_v2_x0_5", num_classes=10),
    "torchvision MNASNet": _vision("mnasnet0_5", num_classes=10),
    "torchvision MobileNetV2": _vision("mobilenet_v2", width_mult=0.35, num_classes=10),
    "torchvision ViT": Subject(_vit, images(64)),
    "torchvision FCN": Subject(_fcn, images(64)),
    "torchvision DeepLabV3": Subject(_deeplab, images(64)),
    "torchvision LR-ASPP": _vision(
        "segmentation.lraspp_mobilenet_v3_large", weights_backbone=None, num_classes=5
    ),
    "torchvision SSDLite": _detector(_ssdlite),
    "torchvision Faster R-CNN": _detector(_faster_rcnn),
}  # fmt: skip
