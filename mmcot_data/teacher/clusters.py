"""Clusters of questions, each ordered from its centre outwards (Auto-CoT, arXiv 2210.03493).

Shape letters: N questions, D vector width, K clusters, T tokens.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmcot_data.errors import DataError
from mmcot_data.teacher.config import ClusterConfig

__all__ = ["Placed", "cluster_texts", "order_clusters"]

Placed = tuple[int, float]
"""Place of a text in the list, and its distance from the centre of its cluster."""

_ENCODER_BATCH = 32
_ENCODER_TOKENS = 512


def cluster_texts(texts: Sequence[str], config: ClusterConfig, seed: int) -> list[list[Placed]]:
    """Cluster texts with k-means.

    Returns:
        The texts of each cluster, nearest to its centre first; clusters in no meaningful order.

    Raises:
        DataError: If there are fewer distinct texts than clusters.
        GenerationError: If the text encoder can't be found or loaded.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(set(texts)) < config.num_clusters:
        raise DataError(
            f"{len(set(texts))} distinct train questions make no {config.num_clusters} clusters: "
            "ask for fewer"
        )
    vectors_ND = _tf_idf(texts) if config.model is None else _encode(texts, config)
    with warnings.catch_warnings():
        # Texts that differ may share a vector; empty clusters are left out below.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans = KMeans(n_clusters=config.num_clusters, n_init=10, random_state=seed)
        distances_NK = kmeans.fit_transform(vectors_ND)
    return order_clusters(distances_NK, kmeans.labels_)


def order_clusters(distances_NK: Any, labels_N: Any) -> list[list[Placed]]:
    """The members of each cluster by distance from its centre; equally near ones by place."""
    clusters = []
    for cluster in range(distances_NK.shape[1]):
        members = np.flatnonzero(labels_N == cluster)
        order = np.lexsort((members, distances_NK[members, cluster]))
        clusters.append(
            [(int(place), float(distances_NK[place, cluster])) for place in members[order]]
        )
    return [members for members in clusters if members]


def _tf_idf(texts: Sequence[str]) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(sublinear_tf=True).fit_transform(texts)


def _encode(texts: Sequence[str], config: ClusterConfig) -> Any:
    """Mean last hidden states of a text encoder, of length 1: float32 (N, D)."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from mmcot_data.errors import GenerationError
    from mmcot_data.teacher.model_files import find_model_files

    files = find_model_files(str(config.model), config.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder)
        loaded: Any = AutoModel.from_pretrained(files.folder, dtype=torch.float32)
    except (OSError, ValueError, TypeError, KeyError, ImportError, RuntimeError) as error:
        raise GenerationError(
            f"the text encoder {config.model} cannot be loaded ({type(error).__name__}: "
            f"{' '.join(str(error).split()):.300}); expected a model of transformers with its "
            "tokenizer, such as sentence-transformers/all-MiniLM-L6-v2"
        ) from error
    model = (loaded.get_encoder() if loaded.config.is_encoder_decoder else loaded).eval()
    limit = min(_ENCODER_TOKENS, getattr(model.config, "max_position_embeddings", _ENCODER_TOKENS))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    means = []
    for start in range(0, len(texts), _ENCODER_BATCH):
        batch = tokenizer(
            list(texts[start : start + _ENCODER_BATCH]),
            padding=True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        )
        mask_NT1 = batch["attention_mask"][..., None]
        with torch.inference_mode():
            states_NTD = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
        mean_ND = (states_NTD * mask_NT1).sum(dim=1) / mask_NT1.sum(dim=1)
        means.append(torch.nn.functional.normalize(mean_ND, dim=-1).numpy())
    return np.concatenate(means)
