"""Recipes by name: (where, one line about it). Only names live here, so that listing them loads no torch."""

RECIPES: dict[str, tuple[str, str]] = {
    "digits-lt": (
        "evensphere.recipes.digits:digits_lt",
        "long-tailed 8x8 digits that come with scikit-learn; seconds on a CPU",
    ),
    "cifar100-lt": (
        "evensphere.recipes.cifar:cifar100_lt",
        "the paper's CIFAR-100-LT: ResNet-18, 1000 epochs, GH from epoch 500; for a GPU",
    ),
    "cifar100-lt-small": (
        "evensphere.recipes.cifar:cifar100_lt_small",
        "CIFAR-100-LT with a small ResNet; 10 to 20 minutes on a CPU core with native bfloat16",
    ),
    "imagenet-lt": (
        "evensphere.recipes.large:imagenet_lt",
        "the paper's ImageNet-LT (--data PATH): ResNet-50, 500 epochs, GH from epoch 400; for GPUs",
    ),
    "places-lt": (
        "evensphere.recipes.large:places_lt",
        "the paper's Places-LT (--data PATH): ResNet-50, 500 epochs, GH from epoch 400; for GPUs",
    ),
    "folder": (
        "evensphere.recipes.folder:folder",
        "your own images (--data PATH); sizes follow from the data",
    ),
}

# runs in several stages, on top of any method (--set stages=NAME)
STAGES: dict[str, tuple[str, str]] = {
    "dnc": (
        "evensphere.recipes.dnc:DnC",
        "Tian et al., ICCV 2021: a base, an expert on each cluster of its features, one network distilled from all",
    ),
}

ARMS: dict[str, str] = {
    "gh": "the method, then GH on top of it, with the two-stage learning rate",
    "base": "the method alone, with one cosine",
    "two-stage": "the method alone, with GH's two-stage learning rate: the control for it",
}
