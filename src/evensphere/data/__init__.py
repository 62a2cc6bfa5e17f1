"""Image collections by name: where each is defined, and what a reader of `evensphere data` needs to know about it.

Only names live here, so that listing them loads no torch. A source is a function returning
`evensphere.data.source.Splits`; its keywords are the options a recipe may set.
"""

from __future__ import annotations

from typing import NamedTuple

SOURCES = {
    "folder": "evensphere.data.folder:folder",
    "list": "evensphere.data.lists:listed",
    "table": "evensphere.data.table:table",
    "archive": "evensphere.data.archive:archive",
    "hub": "evensphere.data.hub:hub",
    "shards": "evensphere.data.shards:shards",
    "array": "evensphere.data.arrays:array",
    "split": "evensphere.data.card:split",
    "digits": "evensphere.data.digits:digits",
    "cifar10": "evensphere.data.cifar:cifar10",
    "cifar100": "evensphere.data.cifar:cifar100",
    "imagenet-lt": "evensphere.data.published:imagenet_lt",
    "places-lt": "evensphere.data.published:places_lt",
    "inaturalist2018": "evensphere.data.published:inaturalist2018",
    "imagenet100-lt": "evensphere.data.published:imagenet100_lt",
    "fashion-mnist": "evensphere.data.torchvision_sets:fashion_mnist",
    "svhn": "evensphere.data.torchvision_sets:svhn",
    "eurosat": "evensphere.data.torchvision_sets:eurosat",
    "food101": "evensphere.data.torchvision_sets:food101",
    "flowers102": "evensphere.data.torchvision_sets:flowers102",
    "pets": "evensphere.data.torchvision_sets:pets",
    "dtd": "evensphere.data.torchvision_sets:dtd",
    "caltech101": "evensphere.data.torchvision_sets:caltech101",
    "caltech256": "evensphere.data.torchvision_sets:caltech256",
    "gtsrb": "evensphere.data.torchvision_sets:gtsrb",
    "inaturalist": "evensphere.data.torchvision_sets:inaturalist",
}


class SourceInfo(NamedTuple):
    """What `evensphere data` says about a source; every field is text for people."""

    summary: str
    size: str
    classes: str
    licence: str
    how_to_get: str
    imbalance: str = "its own"


def _torchvision(files: str) -> str:
    return f"--set data.path=PATH to the folder that holds {files}, or data.download=true"


def _lists(images: str, lists: str, repository: str = "github.com/facebookresearch/classifier-balancing") -> str:
    return (
        f"{images}; the lists {lists} from {repository}; "
        "then --set data.path=IMAGES, and data.lists=FOLDER where the lists are not beside the images"
    )


SOURCE_INFO = {
    "folder": SourceInfo(
        summary="your own image files: a flat folder, class folders, or train/val/test folders; several, or a pattern",
        size="any number of JPEG, PNG, BMP, WebP, GIF, TIFF, PPM, PGM or .npy files of any size",
        classes="the folders' names, if there are any; labels are needed for evaluation only",
        licence="yours",
        how_to_get="--data PATH, repeated for several folders; or a pattern: --data 'photos/**/*.jpg'",
    ),
    "list": SourceInfo(
        summary="your own image files, named in a text file or in one like RUN/images.json",
        size="a path in each line, perhaps with the number of its class: train/n0144/x.JPEG 0",
        classes="numbers; their names from --set data.classes=FILE, or from the images' folders",
        licence="yours",
        how_to_get="--data FILE.txt; see --set data.root= validation= test= probe=",
    ),
    "table": SourceInfo(
        summary="your own image files, named in a csv, tsv or parquet table; or encoded in a parquet table",
        size="a row for each image",
        classes="those of a column (label), beside columns for groups and for train, val and test",
        licence="yours",
        how_to_get="--data FILE.csv; see --set data.image_column= label_column= group_column= split_column= root=",
    ),
    "archive": SourceInfo(
        summary="your own image files in a zip or tar file, which is not unpacked",
        size="any number of members with the names that image files have",
        classes="as for a folder",
        licence="yours",
        how_to_get="--data FILE.zip or FILE.tar",
    ),
    "hub": SourceInfo(
        summary="a Hugging Face data set: a folder made by `datasets.save_to_disk`, or one on the hub",
        size="any number of images in a column of the type Image",
        classes="the names in a column of the type ClassLabel, if there is one",
        licence="see the data set's page on the hub",
        how_to_get="pip install 'evensphere[hub]'; --data FOLDER or hf://OWNER/NAME, with --set data.download=true",
    ),
    "shards": SourceInfo(
        summary="WebDataset shards: tar files that are read from beginning to end, as a stream",
        size="any number of images, which are never numbered; what needs numbers refuses them",
        classes="none in training; evaluation takes other images",
        licence="yours",
        how_to_get="--data FOLDER, 'train-{000..099}.tar', or an http(s) address with --set data.samples=N",
    ),
    "array": SourceInfo(
        summary="images in a numpy file: .npy, or .npz with labels and, perhaps, several splits",
        size="any number of images of one size, 8 bits to a channel",
        classes="the different labels, if there are any",
        licence="yours",
        how_to_get="--data FILE.npy or FILE.npz",
    ),
    "split": SourceInfo(
        summary="a division of any labelled collection that `evensphere split` made",
        size="that of its lists",
        classes="those of the collection",
        licence="that of the collection",
        how_to_get="evensphere split SOURCE --out FOLDER, then --data FOLDER",
    ),
    "digits": SourceInfo(
        summary="scikit-learn's handwritten digits, made long-tailed",
        size="1,797 grey images of 8x8",
        classes="10",
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        how_to_get="comes with scikit-learn; nothing to download",
        imbalance="20, or your choice: --set data.imbalance=N",
    ),
    "cifar10": SourceInfo(
        summary="CIFAR-10, made long-tailed (CIFAR-10-LT)",
        size="60,000 RGB images of 32x32",
        classes="10",
        licence="none stated; its authors ask for a citation (Krizhevsky, 2009)",
        how_to_get="--data PATH to the folder that holds cifar-10-batches-bin or cifar-10-batches-py, or download=true",
        imbalance="100, or your choice: --set data.imbalance=N",
    ),
    "cifar100": SourceInfo(
        summary="CIFAR-100, made long-tailed (CIFAR-100-LT)",
        size="60,000 RGB images of 32x32",
        classes="100",
        licence="none stated; its authors ask for a citation (Krizhevsky, 2009)",
        how_to_get="--data PATH to the folder that holds cifar-100-binary or cifar-100-python, or download=true",
        imbalance="100, or your choice: --set data.imbalance=N",
    ),
    "imagenet-lt": SourceInfo(
        summary="ImageNet-LT (Liu et al., CVPR 2019), by its published lists; many > 100, few < 20 images",
        size="115,846 train, 20,000 validation, 50,000 test RGB images of any size",
        classes="1,000",
        licence="ImageNet's terms of access: non-commercial research and education",
        how_to_get=_lists(
            "ImageNet (image-net.org): train and val in class folders", "ImageNet_LT_train.txt, _val and _test"
        ),
    ),
    "places-lt": SourceInfo(
        summary="Places-LT (Liu et al., CVPR 2019), by its published lists; many > 100, few < 20 images",
        size="62,500 train, 7,300 validation, 36,500 test RGB images of 256x256",
        classes="365",
        licence="Places365's terms: non-commercial research and education",
        how_to_get=_lists(
            "Places365-Standard (places2.csail.mit.edu), easy layout", "Places_LT_train.txt, _val and _test"
        ),
    ),
    "inaturalist2018": SourceInfo(
        summary="iNaturalist 2018, by the lists of Kang et al. (ICLR 2020); many > 100, few < 20 images",
        size="437,513 train, 24,426 test RGB images of at most 800 pixels",
        classes="8,142 species, naturally long-tailed",
        licence="each photo its photographer's; for non-commercial research and education",
        how_to_get=_lists("train_val2018 (github.com/visipedia/inat_comp)", "iNaturalist18_train.txt and _val"),
    ),
    "imagenet100-lt": SourceInfo(
        summary="ImageNet-100-LT (SDCLR; Jiang et al., ICML 2021), by its published lists; many > 100, few < 20 images",
        size="12,205 train, 2,000 validation, 5,000 test RGB images of any size",
        classes="100 of ImageNet's",
        licence="ImageNet's terms of access: non-commercial research and education",
        how_to_get=_lists(
            "ImageNet (image-net.org): train and val in class folders",
            "imageNet_100_LT_train.txt, ImageNet_100_val.txt and ImageNet_100_test.txt",
            "github.com/VITA-Group/SDCLR",
        ),
    ),
    "fashion-mnist": SourceInfo(
        summary="Fashion-MNIST, clothes",
        size="70,000 grey images of 28x28 (60,000 train, 10,000 test)",
        classes="10",
        licence="MIT",
        how_to_get=_torchvision("FashionMNIST/raw"),
    ),
    "svhn": SourceInfo(
        summary="SVHN, cropped house numbers",
        size="99,289 RGB images of 32x32 (73,257 train, 26,032 test)",
        classes="10",
        licence="for non-commercial use only, says its page (Netzer et al., 2011)",
        how_to_get=_torchvision("train_32x32.mat and test_32x32.mat"),
    ),
    "eurosat": SourceInfo(
        summary="EuroSAT, land use seen by Sentinel-2",
        size="27,000 RGB images of 64x64, not divided",
        classes="10",
        licence="MIT",
        how_to_get=_torchvision("eurosat/2750"),
    ),
    "food101": SourceInfo(
        summary="Food-101, dishes; the training labels are noisy",
        size="101,000 RGB images of at most 512x512 (75,750 train, 25,250 test)",
        classes="101",
        licence="none stated; the photos are Foodspotting's, for scientific fair use",
        how_to_get=_torchvision("food-101"),
    ),
    "flowers102": SourceInfo(
        summary="Oxford 102 Flowers",
        size="8,189 RGB images of 500 pixels and more (1,020 train, 1,020 validation, 6,149 test)",
        classes="102",
        licence="none stated; its authors ask for a citation (Nilsback & Zisserman, 2008)",
        how_to_get=_torchvision("flowers-102"),
    ),
    "pets": SourceInfo(
        summary="Oxford-IIIT Pet, cats and dogs",
        size="7,349 RGB images of any size (3,680 train, 3,669 test)",
        classes="37",
        licence="CC BY-SA 4.0",
        how_to_get=_torchvision("oxford-iiit-pet"),
    ),
    "dtd": SourceInfo(
        summary="Describable Textures Dataset, its first partition",
        size="5,640 RGB images of 300 to 640 pixels (1,880 each of train, validation, test)",
        classes="47",
        licence="none stated; made available for research purposes (Cimpoi et al., 2014)",
        how_to_get=_torchvision("dtd/dtd"),
    ),
    "caltech101": SourceInfo(
        summary="Caltech-101, objects, naturally skewed",
        size="8,677 images of about 300x200, some grey, not divided",
        classes="101 (the background is left out)",
        licence="CC BY 4.0 (CaltechDATA)",
        how_to_get=_torchvision("caltech101/101_ObjectCategories"),
    ),
    "caltech256": SourceInfo(
        summary="Caltech-256, objects, naturally skewed",
        size="30,607 images of any size, some grey, not divided",
        classes="257 (with clutter)",
        licence="none stated (Griffin et al., 2007)",
        how_to_get=_torchvision("caltech256/256_ObjectCategories"),
    ),
    "gtsrb": SourceInfo(
        summary="German Traffic Sign Recognition Benchmark: frames of films, naturally skewed",
        size="39,270 RGB images of 15 to 250 pixels (26,640 train, 12,630 test)",
        classes="43",
        licence="none stated; its authors ask for a citation (Stallkamp et al., 2012)",
        how_to_get=_torchvision("gtsrb/GTSRB"),
    ),
    "inaturalist": SourceInfo(
        summary="iNaturalist 2021 (version=2021_mini, 2019, 2018, 2017 for the others), animals and plants",
        size="2,786,843 RGB images of at most 500 pixels (2,686,843 train, 100,000 test); 2021_mini: 500,000 train",
        classes="10,000 species (2017: 5,089; 2018: 8,142; 2019: 1,010)",
        licence="each photo its photographer's; for non-commercial research and education",
        how_to_get=_torchvision("2021_train and 2021_valid, or the folder of the version"),
    ),
}
