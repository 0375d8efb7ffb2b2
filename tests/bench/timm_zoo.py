"""timm's convolutional architectures at reduced size: which, at how many pixels, how shortened.

timm is no dependency of this project: import this module only where `available()`; the networks
are built untrained, nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from zoo import cheap_init, randomise

FAMILIES: Mapping[str, tuple[str, ...]] = {
    family: tuple(names.split())
    for family, names in {
        "attention": "botnet26t_256 botnet50ts_256 eca_botnext26ts_256 sebotnet33ts_256 "
        "eca_halonext26ts halonet26t halonet50ts halonet_h1 halo2botnet50ts_256 sehalonet33ts "
        "haloregnetz_b lambda_resnet26t lambda_resnet26rpt_256 lambda_resnet50ts "
        "lamhalobotnet50ts_256 bat_resnext26ts",
        "bit": "resnetv2_50x1_bit resnetv2_101x1_bit",
        "blurpool": "resnetblur18 resnetblur50 resnetblur50d densenetblur121d efficientnet_blur_b0 "
        "mobilenetv4_conv_blur_medium",
        "byob": "resnet32ts resnet33ts resnet50_mlp resnet50_clip resnet50_clip_gap resnet51q "
        "resnet61q resnext26ts seresnet33ts seresnext26ts eca_resnet33ts eca_resnext26ts "
        "test_byobnet",
        "convmixer": "convmixer_768_32 convmixer_1024_20_ks9_p14 convmixer_1536_20",
        "convnext": "convnext_zepto_rms convnext_zepto_rms_ols convnext_atto convnext_atto_ols "
        "convnext_atto_rms convnext_femto convnext_pico convnext_pico_ols convnext_nano "
        "convnext_tiny convnext_tiny_hnf convnextv2_atto convnextv2_femto convnextv2_nano "
        "test_convnext test_convnext2 test_convnext3",
        "csp": "cs3darknet_focus_s cs3darknet_focus_m cs3darknet_s cs3darknet_m cs3darknet_l "
        "cs3edgenet_x cs3se_edgenet_x cs3sedarknet_l cs3sedarknet_xdw cspdarknet53 cspresnet50 "
        "cspresnet50d cspresnet50w cspresnext50 darknet17 darknet21 darknet53 darknetaa53 "
        "sedarknet21 cspnext_tiny cspnext_s cspnext_m",
        "densenet": "densenet121 densenet161 densenet169 densenet201 rdnet_tiny",
        "dla": "dla34 dla46_c dla46x_c dla60 dla60x dla60x_c dla102 dla102x dla60_res2net "
        "dla60_res2next",
        "dpn": "dpn48b dpn68 dpn68b dpn92 dpn98",
        "edgenext": "edgenext_xx_small edgenext_x_small edgenext_small edgenext_small_rw "
        "edgenext_base",
        "efficientnet": "efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 "
        "efficientnet_b4 efficientnet_b0_gn efficientnet_b0_g8_gn efficientnet_b0_g16_evos "
        "efficientnet_b3_gn efficientnet_b3_g8_gn efficientnet_b1_pruned efficientnet_b2_pruned "
        "efficientnet_b3_pruned efficientnet_cc_b0_4e efficientnet_cc_b0_8e efficientnet_es "
        "efficientnet_em efficientnet_el efficientnet_es_pruned efficientnet_el_pruned "
        "efficientnet_lite0 efficientnet_lite1 efficientnet_lite4 efficientnet_x_b3 "
        "efficientnet_h_b5 efficientnetv2_rw_t efficientnetv2_rw_s gc_efficientnetv2_rw_t "
        "efficientnetv2_s tf_efficientnet_b0 tf_efficientnet_b3 tf_efficientnet_cc_b0_4e "
        "tf_efficientnet_es tf_efficientnet_lite0 tf_efficientnetv2_b0 tf_efficientnetv2_b1 "
        "tf_efficientnetv2_b3 tf_efficientnetv2_s test_efficientnet test_efficientnet_evos "
        "test_efficientnet_gn test_efficientnet_ln",
        "fasternet": "fasternet_t0 fasternet_t1 fasternet_t2 fasternet_s",
        "fbnet": "fbnetc_100 fbnetv3_b fbnetv3_d fbnetv3_g",
        "gc": "gcresnet33ts gcresnet50t gcresnext26ts gcresnext50ts",
        "ghostnet": "ghostnet_050 ghostnet_100 ghostnet_130 ghostnetv2_100 ghostnetv2_130 "
        "ghostnetv3_050 ghostnetv3_100",
        "hardcore": "hardcorenas_a hardcorenas_b hardcorenas_c hardcorenas_d hardcorenas_e "
        "hardcorenas_f",
        "hgnet": "hgnet_tiny hgnet_small hgnetv2_b0 hgnetv2_b1 hgnetv2_b2 hgnetv2_b3 hgnetv2_b4",
        "hrnet": "hrnet_w18_small hrnet_w18_small_v2 hrnet_w18 hrnet_w18_ssld hrnet_w30",
        "inception": "inception_v3 inception_v4 inception_resnet_v2 xception legacy_xception "
        "xception41 xception41p xception65 xception65p xception71",
        "inceptionnext": "inception_next_atto inception_next_tiny inception_next_small",
        "lcnet": "lcnet_035 lcnet_050 lcnet_100 lcnet_150 lcnetv2_small lcnetv2_base lcnetv2_large",
        "metaformer": "convformer_s18 poolformer_s12 poolformerv2_s12 test_mambaout "
        "mambaout_femto mambaout_kobe",
        "mixed": "efficientvit_b0 efficientvit_b1 efficientvit_l1 fastvit_t8 fastvit_t12 "
        "fastvit_s12 fastvit_sa12 fastvit_mci0 mobilevit_xxs mobilevit_s mobilevitv2_050 "
        "caformer_s18 shvit_s1 csatv2",
        "mixnet": "mixnet_s mixnet_m mixnet_l mixnet_xl tf_mixnet_s tf_mixnet_m tf_mixnet_l",
        "mnasnet": "mnasnet_small mnasnet_050 mnasnet_100 mnasnet_140 semnasnet_050 semnasnet_100 "
        "spnasnet_100",
        "mobilenet": "mobilenetv1_100 mobilenetv1_100h mobilenetv2_035 mobilenetv2_050 "
        "mobilenetv2_100 mobilenetv2_110d mobilenetv2_140 mobilenet_edgetpu_100 "
        "mobilenet_edgetpu_v2_xs mobilenet_edgetpu_v2_m mobilenetv3_small_050 "
        "mobilenetv3_small_100 mobilenetv3_large_075 mobilenetv3_large_100 mobilenetv3_large_150d "
        "mobilenetv3_rw tf_mobilenetv3_small_100 tf_mobilenetv3_small_minimal_100 "
        "tf_mobilenetv3_large_100 tf_mobilenetv3_large_minimal_100",
        "mobilenetv4": "mobilenetv4_conv_small_035 mobilenetv4_conv_small mobilenetv4_conv_medium "
        "mobilenetv4_conv_large mobilenetv4_conv_aa_medium mobilenetv4_hybrid_medium_075 "
        "mobilenetv4_hybrid_medium",
        "mobileone": "mobileone_s0 mobileone_s1 mobileone_s4",
        "nasnet": "nasnetalarge pnasnet5large",
        "nfnet": "nfnet_l0 eca_nfnet_l0 eca_nfnet_l1 nfnet_f0 dm_nfnet_f0 nf_resnet26 nf_resnet50 "
        "nf_seresnet26 nf_ecaresnet26 nf_regnet_b0 nf_regnet_b1 nf_regnet_b2 nf_regnet_b3 "
        "test_nfnet",
        "regnet": "regnetx_002 regnetx_004 regnetx_004_tv regnetx_006 regnetx_008 regnetx_016 "
        "regnetx_032 regnety_002 regnety_004 regnety_006 regnety_008 regnety_008_tv regnety_016 "
        "regnety_032 regnety_040 regnety_040_sgn regnetv_040 regnetz_005 regnetz_040 regnetz_040_h "
        "regnetz_b16 regnetz_b16_evos regnetz_c16 regnetz_c16_evos regnetz_d8 regnetz_d8_evos "
        "regnetz_d32 gernet_s gernet_m gernet_l",
        "repghost": "repghostnet_050 repghostnet_080 repghostnet_100 repghostnet_150",
        "repvgg": "repvgg_a0 repvgg_a1 repvgg_b0 repvgg_b1g4 repvgg_d2se",
        "repvit": "repvit_m0_9 repvit_m1 repvit_m1_1 repvit_m1_5 repvit_m2",
        "res2net": "res2net50_14w_8s res2net50_26w_4s res2net50_26w_6s res2net50_26w_8s "
        "res2net50_48w_2s res2net50d res2net101_26w_4s res2net101d res2next50",
        "resnest": "resnest14d resnest26d resnest50d resnest50d_1s4x24d resnest50d_4s2x40d",
        "resnet": "test_resnet resnet10t resnet14t resnet18 resnet18d resnet26 resnet26d resnet26t "
        "resnet34 resnet34d resnet50 resnet50c resnet50d resnet50s resnet50t resnet50_gn resnet101 "
        "resnetaa34d resnetaa50 resnetaa50d resnetrs50 resnext50_32x4d resnext50d_32x4d "
        "resnext101_64x4d wide_resnet50_2 ecaresnet26t ecaresnet50d ecaresnet50t "
        "ecaresnet50d_pruned ecaresnet101d_pruned ecaresnetlight ecaresnext26t_32x4d",
        "resnetv2": "resnetv2_18 resnetv2_18d resnetv2_34 resnetv2_50 resnetv2_50d resnetv2_50t "
        "resnetv2_50d_gn resnetv2_50d_frn resnetv2_50d_evos",
        "rexnet": "rexnet_100 rexnet_130 rexnet_150 rexnet_200 rexnetr_100 rexnetr_150 rexnetr_200",
        "selecsls": "selecsls42 selecsls42b selecsls60 selecsls60b selecsls84",
        "senet": "legacy_seresnet18 legacy_seresnet50 legacy_seresnext26_32x4d "
        "legacy_seresnext50_32x4d legacy_senet154 seresnet18 seresnet34 seresnet50 seresnet50t "
        "seresnetaa50d seresnext26d_32x4d seresnext26t_32x4d seresnext50_32x4d "
        "seresnextaa101d_32x8d",
        "sk": "skresnet18 skresnet34 skresnet50 skresnet50d skresnext50_32x4d",
        "starnet": "starnet_s050 starnet_s100 starnet_s1 starnet_s2 starnet_s3 starnet_s4",
        "tinynet": "tinynet_a tinynet_b tinynet_c tinynet_d tinynet_e",
        "tresnet": "tresnet_m tresnet_l tresnet_v2_l",
        "vgg": "vgg11 vgg11_bn vgg13_bn vgg16_bn vgg19",
        "vovnet": "vovnet39a vovnet57a eca_vovnet39b ese_vovnet19b_dw ese_vovnet19b_slim "
        "ese_vovnet19b_slim_dw ese_vovnet39b ese_vovnet39b_evos",
    }.items()
}
FAMILY = {name: family for family, names in FAMILIES.items() for name in names}
NETWORKS = tuple(FAMILY)

SIZE = 64  # a last map of 2 × 2 in most: positions and channels are not the same number
SIZES = {
    # unpadded convolutions leave nothing of less
    "inception_v3": 96, "inception_v4": 96, "inception_resnet_v2": 96,
    "nasnetalarge": 96, "pnasnet5large": 96,
    # attention over blocks of 8 × 8 on a map of a sixteenth or a thirty-second
    "eca_halonext26ts": 256, "halonet26t": 256, "halonet50ts": 256, "halonet_h1": 256,
    "halo2botnet50ts_256": 256, "sehalonet33ts": 256, "haloregnetz_b": 256,
    "lamhalobotnet50ts_256": 256, "bat_resnext26ts": 256,
    # attention with a table of positions
    "botnet26t_256": 128, "botnet50ts_256": 128, "eca_botnext26ts_256": 128,
    "sebotnet33ts_256": 128, "lambda_resnet26rpt_256": 128, "resnet50_clip": 96,
    # down to a sixty-fourth, or patches of 14
    "convmixer_1024_20_ks9_p14": 70, "csatv2": 512,
}  # fmt: skip
_FIXED_SIZE = (
    "botnet26t_256", "botnet50ts_256", "eca_botnext26ts_256", "sebotnet33ts_256",
    "lambda_resnet26rpt_256", "resnet50_clip", "lamhalobotnet50ts_256",
)  # fmt: skip
_DEEP_AND_WIDE = (
    "legacy_senet154", "resnext101_64x4d", "seresnextaa101d_32x8d", "wide_resnet50_2",
)  # fmt: skip
# one block that changes the width and one that does not, in each stage
_SHORT = {"layers": (2, 2, 2, 2)}
_VGG_HEAD = {"mlp_ratio": 0.125}  # 512 hidden units; 4096 are three quarters of the network
OPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(FAMILIES["vgg"], _VGG_HEAD),
    **dict.fromkeys(_DEEP_AND_WIDE, _SHORT),
    **{name: {"img_size": SIZES[name]} for name in _FIXED_SIZE},
    "nasnetalarge": {"stem_size": 24, "num_features": 960},
}


def available() -> bool:
    """Whether timm is installed."""
    return importlib.util.find_spec("timm") is not None


def version() -> str:
    """Of timm; networks change between versions."""
    import timm  # not a dependency

    return timm.__version__


def size(name: str) -> int:
    """Edge of the square images the network is surveyed with."""
    return SIZES.get(name, SIZE)


def build(name: str, seed: int = 0) -> nn.Module:
    """The untrained network in eval mode, randomised as torchvision's are."""
    import timm  # not a dependency

    torch.manual_seed(seed)
    with cheap_init():
        model = timm.create_model(name, pretrained=False, **OPTIONS.get(name, {}))
    randomise(model)
    return model.eval()
