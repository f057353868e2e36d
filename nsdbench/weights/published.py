"""Every weights file that authors publish and nsdbench uses: what it is, where it is, under which terms.

Sizes. ``size`` is exact: published by the authors, or by several who hold the file with the published hash. ``about`` is
what torchvision documents, or 4 bytes times the number of parameters of the network, which leaves out some kilobytes of
names; with ``at_least`` the file holds more than the network (optimizers, other networks).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nsdbench.weights.entry import HubFile, Weights

TORCHVISION = "https://download.pytorch.org/models/"
BSD = "BSD-3-Clause (torchvision); trained on ImageNet-1k"
FIGSHARE = "https://figshare.com/ndownloader/files/"


def _torchvision(
    id: str, filename: str, source: str, mebibytes: float, used_by: tuple[str, ...] = ()
) -> Weights:
    """Return an entry whose size is the one of torchvision's documentation, in MiB with three decimals."""
    prefix = Path(filename).stem.rpartition("-")[2]
    about = round(mebibytes * 2**20)
    return Weights(
        id, filename, TORCHVISION + filename, BSD, source, used_by, sha256_prefixes=(prefix,), about=about
    )


def _hub(
    id: str, file: HubFile, licence: str, source: str, about: int, used_by: tuple[str, ...] = ()
) -> Weights:
    return Weights(id, id + Path(file.path).suffix, file, licence, source, used_by, about=about)


def _captions(name: str) -> tuple[str, str]:
    """Return both metrics of one comparison of captions: with those of people, and with those of a captioner."""
    return f"caption_{name}", f"caption_{name}_git"


def _float32(parameters: int) -> int:
    return 4 * parameters


def _mindeye1(id: str, path: str, source: str, about: int) -> Weights:
    """Return an entry of MindEye1, whose files were saved with the state of the optimizer."""
    file = HubFile("pscotti/naturalscenesdataset", f"mindeye_models/{path}", "dataset")
    return replace(_hub(id, file, _MINDEYE_LICENCE, source, about), at_least=True)


def _mindeye2(id: str, training: str, source: str, about: int) -> Weights:
    file = HubFile("pscotti/mindeyev2", f"train_logs/{training}/last.pth", "dataset")
    return _hub(id, file, _MINDEYE_LICENCE, source, about)


def _mindeye2_of(subject: int, voxels: int) -> tuple[Weights, ...]:
    """Return the three published trainings around one subject."""
    paper = "MindEye2 (arXiv 2403.11207)"
    shared, per_voxel = 2_162_886_624, 4096  # per voxel one weight for each unit, and per subject one bias
    one = _float32(shared + per_voxel * (voxels + 1))
    others = len(_VOXELS) - 1
    seven = _float32(shared + per_voxel * (sum(_VOXELS.values()) - voxels + others))
    return (
        _mindeye2(
            f"mindeye2-subj0{subject}-40sess",
            f"final_subj0{subject}_pretrained_40sess_24bs",
            f"{paper}, subject {subject}, tuned on all sessions",
            one,
        ),
        _mindeye2(
            f"mindeye2-subj0{subject}-1sess",
            f"final_subj0{subject}_pretrained_1sess_24bs",
            f"{paper}, subject {subject}, tuned on the first session",
            one,
        ),
        _mindeye2(
            f"mindeye2-multisubject-without-subj0{subject}",
            f"final_multisubject_subj0{subject}",
            f"{paper}, trained on all subjects but subject {subject}, to be tuned",
            seven,
        ),
    )


_NSD_TERMS = "trained on NSD, whose terms apply (naturalscenesdataset.org)"
_MINDEYE_LICENCE = f"MIT for the code (MedARC-AI), not stated for the weights; {_NSD_TERMS}"
_OPENRAIL = "CreativeML OpenRAIL-M; the hub may ask for its acceptance"
_OPENRAIL_XL = "CreativeML Open RAIL++-M"
_VERSATILE_LICENCE = "MIT (shi-labs/versatile-diffusion)"
_CLIP_SHA256 = "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"
_CLIP_B_SHA256 = "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"
_MINILM_LICENCE = "Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)"
_SD_UNET, _SD_VAE = _float32(859_520_964), _float32(83_653_863)
_VOXELS = dict(
    enumerate((15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386), 1)
)  # of nsdgeneral, by subject
_BIGG = _float32(2_539_567_362)
_CLIP_L = _float32(427_616_513)
_BERT_WORDS = 231_508  # vocab.txt of BERT, uncased
PUBLISHED = (
    _torchvision(
        "alexnet-imagenet1k-v1",
        "alexnet-owt-7be5be79.pth",
        "torchvision AlexNet, ImageNet-1k classification",
        233.087,
        ("alexnet2", "alexnet5", "lpips"),
    ),
    _torchvision(
        "inception-v3-imagenet1k-v1",
        "inception_v3_google-0cc3c7bd.pth",
        "torchvision Inception-v3, ImageNet-1k classification (converted from TensorFlow)",
        103.903,
        ("inception",),
    ),
    _torchvision(
        "efficientnet-b1-imagenet1k-v2",
        "efficientnet_b1-c27df63c.pth",
        "torchvision EfficientNet-B1, ImageNet-1k classification, second recipe",
        30.136,
        ("effnet",),
    ),
    _torchvision(
        "efficientnet-b1-imagenet1k-v1",
        "efficientnet_b1_rwightman-bac287d4.pth",
        "torchvision EfficientNet-B1, ImageNet-1k classification, ported from timm; profile brain-diffuser",
        30.134,
    ),
    Weights(
        "efficientnet-b1-imagenet1k-v1-old-name",
        "efficientnet_b1_rwightman-533bc792.pth",
        TORCHVISION + "efficientnet_b1_rwightman-533bc792.pth",
        BSD,
        "the same under its name before torchvision 0.16",
        # torchvision renamed these files because the old names did not match their content (pytorch/vision 8036)
        sha256_prefixes=("bac287d4", "533bc792"),
        about=round(30.134 * 2**20),
        same_as="efficientnet-b1-imagenet1k-v1",
    ),
    Weights(
        "clip-vit-l14-openai",
        "ViT-L-14.pt",
        f"https://openaipublic.azureedge.net/clip/models/{_CLIP_SHA256}/ViT-L-14.pt",
        "MIT (openai/CLIP)",
        "OpenAI CLIP ViT-L/14, 400 million image-text pairs; TorchScript archive",
        ("clip", *_captions("clip_l")),
        sha256=_CLIP_SHA256,
        size=932_768_134,
    ),
    Weights(
        "clip-vit-l14-openai-open-clip",
        "clip-vit-l14-openai.open_clip.safetensors",
        HubFile("timm/vit_large_patch14_clip_224.openai", "open_clip_model.safetensors"),
        "MIT (openai/CLIP)",
        "the same in open_clip's layout",
        about=_CLIP_L,
        same_as="clip-vit-l14-openai",
    ),
    Weights(
        "clip-vit-l14-openai-transformers",
        "clip-vit-l14-openai.transformers.safetensors",
        HubFile("openai/clip-vit-large-patch14", "model.safetensors"),
        "MIT (openai/CLIP)",
        "the same in the layout of Hugging Face transformers",
        about=_CLIP_L,
        same_as="clip-vit-l14-openai",
    ),
    Weights(
        "swav-resnet50-800ep",
        "swav_800ep_pretrain.pth.tar",
        "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
        "CC BY-NC 4.0 (facebookresearch/swav)",
        "SwAV ResNet-50, 800 epochs on ImageNet-1k without labels (arXiv 2006.09882)",
        ("swav",),
        about=_float32(28_400_000),  # ResNet-50 without its last layer, projection head, prototypes
    ),
    Weights(
        "vdvae-imagenet64-ema",
        "imagenet64-iter-1600000-model-ema.th",
        "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets/vdvae-assets-2/"
        "imagenet64-iter-1600000-model-ema.th",
        "MIT for the code (openai/vdvae); not stated for the weights",
        "VDVAE on ImageNet at 64 x 64 pixels, running mean of the weights (arXiv 2011.10650)",
        about=_float32(125_005_860),
    ),
    Weights(
        "vgg19-caffe",
        "VGG_ILSVRC_19_layers.zip",
        FIGSHARE + "38225868",
        "not stated",
        "VGG19 as trained in Caffe (arXiv 1409.1556), and the contrast of its features; Kamitani Lab",
        md5="49f4d6dbf1024f33149352dfd309dc4d",
        about=_float32(143_667_240),
    ),
    Weights(
        "fc7-generator",
        "bvlc_reference_caffenet_generator_ILSVRC2012_Training.zip",
        FIGSHARE + "38361230",
        "not stated",
        "image generators of Dosovitskiy & Brox 2016 (arXiv 1602.02644); Kamitani Lab",
        md5="bf9d4de43782cb019de733ed7cf84926",
        about=_float32(56_097_891),  # the one generator that is used
        at_least=True,
    ),
    _hub(
        "stable-diffusion-v1-4-unet",
        HubFile("CompVis/stable-diffusion-v1-4", "unet/diffusion_pytorch_model.safetensors"),
        _OPENRAIL,
        "Stable Diffusion 1.4, denoiser of image latents under a text (arXiv 2112.10752)",
        _SD_UNET,
    ),
    _hub(
        "stable-diffusion-v1-4-vae",
        HubFile("CompVis/stable-diffusion-v1-4", "vae/diffusion_pytorch_model.safetensors"),
        _OPENRAIL,
        "Stable Diffusion 1.4, autoencoder",
        _SD_VAE,
    ),
    _hub(
        "versatile-diffusion-image-unet",
        HubFile("shi-labs/versatile-diffusion", "image_unet/diffusion_pytorch_model.bin"),
        _VERSATILE_LICENCE,
        "Versatile Diffusion, denoiser of image latents under an image (arXiv 2211.08332)",
        _SD_UNET,
    ),
    _hub(
        "versatile-diffusion-text-unet",
        HubFile("shi-labs/versatile-diffusion", "text_unet/diffusion_pytorch_model.bin"),
        _VERSATILE_LICENCE,
        "Versatile Diffusion, its counterpart under a text; only the attention layers are used",
        _float32(1_708_848_448),
    ),
    _hub(
        "versatile-diffusion-vae",
        HubFile("shi-labs/versatile-diffusion", "vae/diffusion_pytorch_model.bin"),
        _VERSATILE_LICENCE,
        "Versatile Diffusion, autoencoder",
        _SD_VAE,
    ),
    _mindeye1(
        "mindeye1-subj01",
        "prior_257_final_subj01_bimixco_softclip_byol/last.pth",
        "MindEye1 (arXiv 2305.18274), subject 1: voxels to CLIP tokens, and diffusion prior",
        _float32(1_003_636_468),
    ),
    _mindeye1(
        "mindeye1-lowlevel-subj01",
        "autoencoder_subj01_4x_locont_no_reconst/epoch120.pth",
        "MindEye1, subject 1: voxels to latents of a blurry image",
        _float32(206_065_604),
    ),
    *(entry for subject in (1, 2, 5, 7) for entry in _mindeye2_of(subject, _VOXELS[subject])),
    _mindeye2(
        "mindeye2-multisubject-without-subj01-1024",
        "multisubject_subj01_1024hid_nolow_300ep",
        "MindEye2, trained on subjects 2 to 8, width 1024 and no low-level branch",
        2_860_000_000,  # as a user reports it; seven subjects would make 3.27e9
    ),
    Weights(
        "sd-image-variations-vae",
        "sd_image_var_autoenc.pth",
        HubFile("pscotti/mindeyev2", "sd_image_var_autoenc.pth", "dataset"),
        _OPENRAIL,
        "Stable Diffusion Image Variations, autoencoder: what MindEye's low-level latents are latents of",
        about=_SD_VAE,
    ),
    Weights(
        "mindeye2-caption-converter",
        "bigG_to_L_epoch8.pth",
        HubFile("pscotti/mindeyev2", "bigG_to_L_epoch8.pth", "dataset"),
        "MIT for the code (MedARC-AI), not stated for the weights",
        "MindEye2, linear maps from OpenCLIP bigG tokens to the CLIP L tokens that GIT reads",
        about=_float32(1_771_009),
    ),
    Weights(
        "mindeye2-unclip6",
        "unclip6_epoch0_step110000.ckpt",
        HubFile("pscotti/mindeyev2", "unclip6_epoch0_step110000.ckpt", "dataset"),
        _OPENRAIL_XL + ", assumed: the weights derive from Stable Diffusion XL",
        "MindEye2, Stable Diffusion XL tuned to draw what OpenCLIP bigG tokens describe",
        about=_float32(4_494_816_212),
        unused=("conditioner.",),
    ),
    _hub(
        "openclip-vit-bigg14",
        HubFile("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "open_clip_pytorch_model.safetensors"),
        "MIT (laion/CLIP-ViT-bigG-14-laion2B-39B-b160k)",
        "OpenCLIP ViT-bigG/14, laion2b_s39b_b160k",
        _BIGG,
    ),
    Weights(
        "openclip-vit-bigg14-pickle",
        "openclip-vit-bigg14.bin",
        HubFile("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "open_clip_pytorch_model.bin"),
        "MIT (laion/CLIP-ViT-bigG-14-laion2B-39B-b160k)",
        "the same as a pickle, the file that MindEye2 and its forks use",
        about=_BIGG,
        same_as="openclip-vit-bigg14",
    ),
    _hub(
        "sdxl-base-1.0-unet",
        HubFile("stabilityai/stable-diffusion-xl-base-1.0", "unet/diffusion_pytorch_model.safetensors"),
        _OPENRAIL_XL,
        "Stable Diffusion XL base 1.0, denoiser (arXiv 2307.01952)",
        _float32(2_567_463_684),
    ),
    _hub(
        "sdxl-base-1.0-vae",
        HubFile("stabilityai/stable-diffusion-xl-base-1.0", "vae/diffusion_pytorch_model.safetensors"),
        _OPENRAIL_XL,
        "Stable Diffusion XL base 1.0, autoencoder, which needs single precision",
        _SD_VAE,
    ),
    _hub(
        "git-large-coco",
        HubFile("microsoft/git-large-coco", "pytorch_model.bin"),
        "MIT (microsoft/git-large-coco)",
        "GIT large, tuned to caption COCO (arXiv 2205.14100)",
        _float32(394_000_000),
    ),
    _hub(
        "git-large-coco-vocab",
        HubFile("microsoft/git-large-coco", "vocab.txt"),
        "MIT (microsoft/git-large-coco)",
        "the words of GIT, one a line",
        _BERT_WORDS,
    ),
    Weights(
        "vicregl-convnext-xl-alpha0.75",
        "convnext_xlarge_alpha0.75_fullckpt.pth",
        "https://dl.fbaipublicfiles.com/vicregl/convnext_xlarge_alpha0.75_fullckpt.pth",
        "CC BY-NC 4.0 (facebookresearch/VICRegL)",
        "VICRegL ConvNeXt-XL, alpha 0.75 (arXiv 2210.01571): teacher of MindEye's low-level maps",
        about=6_600_000_000,  # with heads, optimizer and expander
    ),
    Weights(
        "clip-vit-b32-openai",
        "ViT-B-32.pt",
        f"https://openaipublic.azureedge.net/clip/models/{_CLIP_B_SHA256}/ViT-B-32.pt",
        "MIT (openai/CLIP)",
        "OpenAI CLIP ViT-B/32, 400 million image-text pairs; TorchScript archive",
        _captions("clip_b"),
        sha256=_CLIP_B_SHA256,
        size=353_976_522,
    ),
    _hub(
        "all-minilm-l6-v2",
        HubFile("sentence-transformers/all-MiniLM-L6-v2", "model.safetensors"),
        _MINILM_LICENCE,
        "MiniLM with 6 layers, tuned to place sentences of one meaning close together",
        _float32(22_713_728),
        _captions("sentence"),
    ),
    _hub(
        "all-minilm-l6-v2-vocab",
        HubFile("sentence-transformers/all-MiniLM-L6-v2", "vocab.txt"),
        _MINILM_LICENCE,
        "its words, one a line",
        _BERT_WORDS,
        _captions("sentence"),
    ),
    Weights(
        "nltk-wordnet",
        "wordnet.zip",
        "https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/wordnet.zip",
        "WordNet 3.0 licence (Princeton University)",
        "WordNet 3.0, synonyms of English words, as packed for NLTK",
        _captions("meteor"),
        md5="b3f38606f626e54c6f060548546f71f0",  # index.xml of nltk_data
        size=10_775_600,
    ),
)
"""Every file, in the order in which lists show them."""
